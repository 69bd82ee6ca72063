"""The control plane alone: ``granian --interface asgi console.asgi_console:application``."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
# Nobody waits longer for a page, and its query would go on all the same.
os.environ.setdefault("CONSOLE_DB_STATEMENT_SECONDS", "60")

from console.startup import set_up

set_up(data_plane=False)

from asgiref.sync import sync_to_async  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.db import DatabaseError, InterfaceError, connection  # noqa: E402

from console import warming  # noqa: E402
from console.bodies import bounded  # noqa: E402

_control_plane = bounded(ASGIHandler())


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http" and scope["path"] == "/healthz":
        await _answer(send, 200, b'{"status":"alive"}')
    elif scope["type"] == "http" and scope["path"] == "/readyz":
        ready = await sync_to_async(_database_answers)()
        await _answer(send, *((200, b'{"status":"ready"}') if ready else (503, b'{"status":"database"}')))
    else:
        await _control_plane(scope, receive, send)


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return True
    except (DatabaseError, InterfaceError):
        return False
    finally:
        connection.close()


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        kind = message["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{kind}.complete"})
        if kind == "startup":
            warming.begin()
        if kind == "shutdown":
            return
