"""A browser whose every request is answered in this process, by Django's test client: no server, no second database.

What a test did to the database, also within a transaction that will be taken back, is what the browser sees. Playwright has a thread
of its own, since Django takes the loop that it runs for one of the test's; requests come over to the thread of the test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any, TypeVar

from django.test import Client
from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

from tests.chromium import CHROMIUM, FLAGS

#: Browsers take it for a trustworthy origin, and ``ALLOWED_HOSTS`` has it.
HERE = "http://localhost"
_FILES = f"{HERE}/static/"
_KEPT = ("content-type", "content-security-policy", "content-disposition")
_T = TypeVar("_T")


@dataclass
class _Asked:
    request: Request
    post: bytes
    answered: Event = field(default_factory=Event)
    answer: dict[str, Any] = field(default_factory=dict)


class InProcessBrowser:
    """``visit`` runs a job with a page of its own; ``client`` answers for the console meanwhile."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._thread = ThreadPoolExecutor(1)
        self._playwright, self._browser = self._thread.submit(self._launch).result()
        self._kept: Page | None = None
        self._files: dict[str, dict[str, Any]] = {}

    @staticmethod
    def _launch() -> tuple[Any, Browser]:
        playwright = sync_playwright().start()
        return playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

    def close(self) -> None:
        self._thread.submit(lambda: (self._browser.close(), self._playwright.stop())).result()
        self._thread.shutdown()

    def visit(
        self,
        client: Client,
        job: Callable[[Page], _T],
        *,
        resting: tuple[str, ...] = (),
        again: bool = False,
        **context: Any,
    ) -> _T:
        """``resting``: how addresses end that are to say that nothing is new, as live pages ask them all the time.

        ``again``: in the window of the visit before that said so as well, for jobs that only look. A window of its own
        costs as much as what is done in it.
        """
        future = self._thread.submit(self._job_again if again else self._job, job, resting, context)
        while True:
            try:
                asked = self._asked.get(timeout=0.05)
            except Empty:
                if future.done():
                    return future.result()
                continue
            try:
                asked.answer = self._file(client, asked) or _answered(client, asked)
            finally:
                asked.answered.set()

    def _file(self, client: Client, asked: _Asked) -> dict[str, Any] | None:
        """A static file, asked for once: a browser keeps it, but not one whose requests are taken over here."""
        url = asked.request.url
        if asked.request.method != "GET" or not url.startswith(_FILES):
            return None
        if url not in self._files:
            answer = _answered(client, asked)
            if answer["status"] != 200:
                return answer
            self._files[url] = answer
        return self._files[url]

    def _job(self, job: Callable[[Page], _T], resting: tuple[str, ...], context: dict[str, Any]) -> _T:
        page = self._window(resting, context)
        try:
            return job(page)
        finally:
            page.context.close()

    def _job_again(self, job: Callable[[Page], _T], resting: tuple[str, ...], context: dict[str, Any]) -> _T:
        self._kept = self._kept or self._window(resting, context)
        try:
            return job(self._kept)
        finally:
            # What the page goes on asking is not for the next visit's client.
            self._kept.goto("about:blank")

    def _window(self, resting: tuple[str, ...], context: dict[str, Any]) -> Page:
        found = self._browser.new_context(locale="en", **context)
        found.set_default_timeout(60_000)
        found.route("**/*", lambda route: self._route(route, resting))
        return found.new_page()

    def _route(self, route: Route, resting: tuple[str, ...]) -> None:
        request = route.request
        path = request.url.removeprefix(HERE).partition("?")[0]
        if not request.url.startswith(HERE) or (resting and path.endswith(resting)):
            route.fulfill(status=204)
            return
        asked = _Asked(request, request.post_data_buffer or b"")
        self._asked.put(asked)
        asked.answered.wait(60)
        route.fulfill(**(asked.answer or {"status": 500, "body": "the test client raised"}))


def _answered(client: Client, asked: _Asked) -> dict[str, Any]:
    # As the browser would send it, but for cookies: those are the client's own.
    headers = {
        name: value
        for name, value in asked.request.headers.items()
        if name not in ("cookie", "content-length", "host")
    }
    found = client.generic(
        asked.request.method,
        asked.request.url.removeprefix(HERE),
        asked.post,
        content_type=headers.pop("content-type", "application/octet-stream"),
        headers=headers,
        HTTP_HOST="localhost",
    )
    if found.status_code in (301, 302, 303):
        # What answers a redirect itself is not intercepted again, so the page is told to go there.
        target = found["Location"]
        return {
            "status": 200,
            "content_type": "text/html",
            "body": f'<!DOCTYPE html><title>…</title><meta http-equiv="refresh" content="0;url={target}">',
        }
    kept = {name: found.headers[name] for name in _KEPT if name in found.headers}
    body = b"".join(found.streaming_content) if found.streaming else found.content  # type: ignore[attr-defined]
    return {"status": found.status_code, "headers": kept, "body": body}


@contextmanager
def a_browser() -> Iterator[InProcessBrowser]:
    found = InProcessBrowser()
    try:
        yield found
    finally:
        found.close()


def axe_source() -> str:
    """axe-core as it comes in the wheel ``axe-playwright-python``."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
