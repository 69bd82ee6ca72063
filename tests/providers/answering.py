"""A provider over real HTTP that answers as a test says, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Script = Callable[[BaseHTTPRequestHandler], None]


class Answering:
    """``script`` answers every request; ``asked`` holds ``(method, path, headers, body)`` of each."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.script: Script = models_list
        self.stop = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.asked.append((self.command, self.path, dict(self.headers), body))
                with suppress(OSError):
                    outer.script(self)

            def log_message(self, *args: Any) -> None:
                pass

        for method in ("GET", "POST", "CONNECT"):
            setattr(Handler, f"do_{method}", Handler._any)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()


def answer(status: int, body: bytes = b"{}", *, kind: str = "application/json", **headers: str) -> Script:
    def script(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return script


def models_list(request: BaseHTTPRequestHandler) -> None:
    answer(200, b'{"object": "list", "data": []}')(request)


@pytest.fixture
def answering() -> Iterator[Callable[[], Answering]]:
    """Makes providers; they are gone when the test ends."""
    made: list[Answering] = []

    def make() -> Answering:
        made.append(Answering())
        return made[-1]

    yield make
    for one in made:
        one.close()
