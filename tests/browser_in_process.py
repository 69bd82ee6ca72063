"""A browser whose every request is answered in this process, by Django's test client: no second process, no second database.

What a test did to the database, also within a transaction that will be taken back, is what the browser sees. Playwright has a thread
of its own, since Django takes the loop that it runs for one of the test's; what the browser asks for comes in at a port, and over to
the thread of the test. It keeps static files as it keeps those of a server, and what it made of scripts as well: to take its requests
over within the browser would switch that off, and cost more than the pages themselves.

Files that import ``browser`` share one, and are run by one process, one after the other (``handing_on.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

import pytest
from django.test import Client
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests.chromium import CHROMIUM, FLAGS
from tests.handing_on import handed_on

#: Browsers take it for a trustworthy origin, and ``ALLOWED_HOSTS`` has it.
HERE = "http://localhost"
#: Where axe-core is, and a page with nothing on it: of the same origin, so that a window keeps its process between two visits.
AXE, NOTHING = "/-axe.js", "/-nothing"
_FILES = "/static/"
_KEPT = ("content-type", "content-security-policy", "content-disposition", "cache-control", "location")
_NOT_PASSED_ON = ("cookie", "content-length", "host", "connection", "accept-encoding")
_T = TypeVar("_T")


@dataclass
class _Answer:
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class _Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    answered: Event = field(default_factory=Event)
    answer: _Answer = field(default_factory=lambda: _Answer(500, body=b"the test client raised"))


class InProcessBrowser:
    """``visit`` runs a job with a page of its own; ``client`` answers for the console meanwhile."""

    def __init__(self) -> None:
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._visited = False
        self._resting: tuple[str, ...] = ()
        self._files = {
            AXE: _Answer(
                200,
                {"content-type": "text/javascript", "cache-control": "max-age=86400"},
                axe_source().encode(),
            ),
            NOTHING: _Answer(
                200,
                {"content-type": "text/html"},
                b'<!DOCTYPE html><title>-</title><link rel="icon" href="data:,">',
            ),
        }
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        Thread(target=self._server.serve_forever, daemon=True).start()
        self._thread = ThreadPoolExecutor(1)
        self._playwright: Playwright = self._thread.submit(sync_playwright().start).result()
        self._browser = self._launched()
        self._kept: Page | None = None
        self._kept_is: dict[str, Any] = {}

    def _launched(self, *flags: str) -> Browser:
        here = f"--host-resolver-rules=MAP localhost:80 127.0.0.1:{self._server.server_port}"
        return self._thread.submit(
            self._playwright.chromium.launch, executable_path=CHROMIUM, args=[*FLAGS, *flags, here]
        ).result()

    @contextmanager
    def another(self, *flags: str) -> Iterator[None]:
        """As long as the block lasts, visits are made with one that is started with more ``flags``."""
        before = self._browser, self._kept, self._kept_is
        self._browser, self._kept = self._launched(*flags), None
        try:
            yield
        finally:
            self._thread.submit(self._browser.close).result()
            self._browser, self._kept, self._kept_is = before

    def close(self) -> None:
        self._thread.submit(lambda: (self._browser.close(), self._playwright.stop())).result()
        self._thread.shutdown()
        self._server.shutdown()
        self._server.server_close()

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

        ``again``: in the window of the visit before that said so as well and asked for the same ``context``, for jobs that
        only look. A window of its own costs as much as what is done in it.
        """
        self._resting, self._visited = resting, True
        future = self._thread.submit(self._job_again if again else self._job, job, context)
        try:
            while True:
                try:
                    asked = self._asked.get(timeout=0.05)
                except Empty:
                    if future.done():
                        return future.result()
                    continue
                try:
                    asked.answer = _answered(client, asked)
                    if asked.path.startswith(_FILES) and asked.answer.status == 200:
                        asked.answer.headers["cache-control"] = "max-age=86400"
                        self._files[asked.path] = asked.answer
                finally:
                    asked.answered.set()
        finally:
            # What a page still asks for when its visit is over is nobody's.
            self._visited = False
            with suppress(Empty):
                while True:
                    self._asked.get_nowait().answered.set()

    def answer(self, asked: _Asked) -> _Answer:
        """In a thread of the server: what this browser has by itself, or else what the thread of the test says."""
        path = asked.path.partition("?")[0]
        if asked.method == "GET" and (file := self._files.get(asked.path)) is not None:
            return file
        if not self._visited or (self._resting and path.endswith(self._resting)):
            return _Answer()
        self._asked.put(asked)
        asked.answered.wait(60)
        return asked.answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        browser = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body go out together.
            wbufsize = -1

            def handle_one_request(self) -> None:
                # The browser closes what it keeps open whenever it likes.
                with suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, *_: object) -> None:
                pass

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {
                    name: value for name, value in self.headers.items() if name.lower() not in _NOT_PASSED_ON
                }
                answer = browser.answer(_Asked(self.command, self.path, headers, body))
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815

        return Handler

    def _job(self, job: Callable[[Page], _T], context: dict[str, Any]) -> _T:
        if self._kept is not None:
            # What its page goes on asking is not for this visit's client; one that only looks leads it elsewhere anyway.
            self._kept.goto(HERE + NOTHING)
        page = self._window(context)
        try:
            return job(page)
        finally:
            page.context.close()

    def _job_again(self, job: Callable[[Page], _T], context: dict[str, Any]) -> _T:
        if self._kept is None or self._kept_is != context:
            if self._kept is not None:
                self._kept.context.close()
            self._kept, self._kept_is = self._window(context), context
        return job(self._kept)

    def _window(self, context: dict[str, Any]) -> Page:
        # What breathes while a page is live would be drawn sixty times a second, and what fades would not have its colour yet.
        given = {"locale": "en", "reduced_motion": "reduce", **context}
        found = self._browser.new_context(**given)
        found.set_default_timeout(60_000)
        return found.new_page()


def _answered(client: Client, asked: _Asked) -> _Answer:
    # As the browser sent it, but for cookies: those are the client's own.
    headers = {name.lower(): value for name, value in asked.headers.items()}
    found = client.generic(
        asked.method,
        asked.path,
        asked.body,
        content_type=headers.pop("content-type", "application/octet-stream"),
        headers=headers,
        HTTP_HOST="localhost",
    )
    kept = {name: found.headers[name] for name in _KEPT if name in found.headers}
    body = b"".join(found.streaming_content) if found.streaming else found.content  # type: ignore[attr-defined]
    return _Answer(found.status_code, kept, body)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[InProcessBrowser]:
    yield from handed_on(request, lambda: closing(InProcessBrowser()))


def axe_source() -> str:
    """axe-core as it comes in the wheel ``axe-playwright-python``."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
