"""What benchmarks stand on: a wrong answer must fail them, however it is wrong and however it is cut into pieces."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import load, report
from benchmarks.failure import BenchmarkFailed
from benchmarks.http1 import Malformed, message_end
from benchmarks.report import Bar, Section, Table

MARK = b"the text to look for"
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n" + MARK
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n> \r\n14\r\n" + MARK + b"\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    "message", [GOOD, CHUNKED, b"POST / HTTP/1.1\r\nContent-Length: 2\r\nHost: a\r\n\r\nok"]
)
def test_a_message_ends_where_it_ends(message: bytes) -> None:
    assert all(message_end(message[:cut])[1] == -1 for cut in range(len(message)))
    assert message_end(message)[1] == len(message)
    assert message_end(message + b"HTTP/1.1 200")[1] == len(message)


def test_a_message_without_a_length_is_refused() -> None:
    with pytest.raises(Malformed):
        message_end(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")


@contextmanager
def _server(*answers: bytes) -> Iterator[int]:
    """Gives each request the next answer, the last one for ever; an empty one closes the connection."""
    lock, left = threading.Lock(), list(answers)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            buffer = b""
            while data := self.request.recv(65536):
                buffer += data
                if message_end(buffer)[1] < 0:
                    continue
                buffer = b""
                with lock:
                    answer = left.pop(0) if len(left) > 1 else left[0]
                if not answer:
                    return
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _load(port: int) -> load.Run:
    request = load.chat_request(host="127.0.0.1", port=port, model="m", key="k", mark=MARK)
    return load.run(request, in_flight=3, seconds=0.05)


def test_every_answer_is_counted_once() -> None:
    with _server(GOOD, CHUNKED, GOOD) as port:
        run = _load(port)
    assert run.requests == len(run.latencies) >= 3
    assert run.latencies == sorted(run.latencies)
    assert run.percentile(0) == run.latencies[0]
    assert run.percentile(1) == run.latencies[-1]


@pytest.mark.parametrize(
    "wrong",
    [
        GOOD.replace(b"200", b"429"),
        GOOD.replace(b"look", b"LOOK"),
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"",
    ],
    ids=["status", "body", "no length", "hang-up"],
)
def test_one_wrong_answer_fails_a_run(wrong: bytes) -> None:
    with _server(GOOD, GOOD, GOOD, wrong, GOOD) as port, pytest.raises(BenchmarkFailed):
        _load(port)


def test_figures_replace_what_stands_between_their_markers(tmp_path, monkeypatch) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("a\n<!-- begin one -->\nold\n<!-- end one -->\nb\n<!-- begin two -->\n<!-- end two -->\n")
    monkeypatch.setattr(report, "PAGE", page)
    bars = [Bar("speed", ">= 2", "1", met=False)]
    report.write(
        Section("one", [Table(["x", "figure"], [["y", "1,000"]])], bars, ["a note"]), "./dev bench one"
    )
    report.write(
        Section("one", [Table(["x", "figure"], [["y", "2,000"]])], bars, ["a note"]), "./dev bench one"
    )
    text = page.read_text()
    assert text.startswith("a\n<!-- begin one -->\n`./dev bench one`, ")
    assert text.endswith("- a note\n<!-- end one -->\nb\n<!-- begin two -->\n<!-- end two -->\n")
    assert "old" not in text
    assert "1,000" not in text
    assert "| y |  2,000 |" in text
    assert "**no**" in text
    with pytest.raises(ValueError, match="begin three"):
        report.write(Section("three"), "")
