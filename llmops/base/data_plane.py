"""One request of the console to its data plane, over a plain socket.

No SDK: it is 50 MB in a process that serves pages or works on tasks, and a blocking read is ended at once by shutting its socket.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

CONNECT_S = 10


def post(
    url: str,
    path: str,
    body: Mapping[str, Any],
    *,
    secret: str,
    headers: Mapping[str, str],
    timeout_s: float,
    opened: Callable[[socket.socket], None],
) -> HTTPResponse:
    """POST ``body`` to ``path`` below ``url`` (``settings.GATEWAY_URL``); the answer, whose body is still to be read.

    ``opened`` gets the socket before anything is sent, and may raise to send nothing. ``timeout_s`` is for each read. Raises
    ``OSError`` and ``HTTPException``.
    """
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=CONNECT_S)
    connection.connect()
    opened(connection.sock)
    connection.sock.settimeout(timeout_s)
    connection.request(
        "POST",
        f"{parts.path.rstrip('/')}{path}",
        body=json.dumps(body).encode(),
        headers={
            **headers,
            "authorization": f"Bearer {secret}",
            "content-type": "application/json",
            "connection": "close",
        },
    )
    return connection.getresponse()
