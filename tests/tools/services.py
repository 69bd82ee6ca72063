"""A service that tools call: a socket that answers as the test says."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager


class Service:
    """Accepts connections on 127.0.0.1, reads one request whole, and answers as the test says."""

    def __init__(self, answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.connections = 0
        #: The body that the thread which answers has read.
        self.mine = threading.local()
        self._answer, self._tls, self._open = answer, tls, True
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while self._open:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with closing(client):
            try:
                if self._tls is not None:
                    client = self._tls.wrap_socket(client, server_side=True)
                head, _, body = self._read(client)
                self.mine.body = body
                self.requests.append((head, body))
                self._answer(client)
            except OSError:
                return

    def _read(self, client: socket.socket) -> tuple[dict[str, str], str, bytes]:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(65536)
            if not piece:
                raise OSError("gone")
            data += piece
        text, _, body = data.partition(b"\r\n\r\n")
        lines = text.decode().split("\r\n")
        head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        while len(body) < int(head.get("content-length", 0)):
            body += client.recv(65536)
        return head, lines[0], body

    def close(self) -> None:
        self._open = False
        self._socket.close()


@contextmanager
def service(answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[Service]:
    made = Service(answer, tls)
    try:
        yield made
    finally:
        made.close()


def says(status: str, body: bytes = b"", *headers: str) -> Callable[[socket.socket], None]:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
    return lambda client: client.sendall(head.encode() + body)
