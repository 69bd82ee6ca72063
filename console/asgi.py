"""Both planes in one process: ``granian --interface asgi console.asgi:application``."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
# Nobody waits longer for a page, and its query would go on all the same.
os.environ.setdefault("CONSOLE_DB_STATEMENT_SECONDS", "60")

from console.startup import set_up

set_up(data_plane=True)

from django.core.handlers.asgi import ASGIHandler  # noqa: E402

from console import warming  # noqa: E402
from console.bodies import bounded  # noqa: E402
from llmops.gateway.boot import gateway  # noqa: E402

_data_plane = gateway()
_control_plane = bounded(ASGIHandler())


async def application(scope: Any, receive: Any, send: Any) -> None:
    """``/v1`` and health are the data plane's, everything else is Django's."""
    if scope["type"] == "lifespan":
        warming.begin()
    if scope["type"] != "http" or _data_plane.owns(scope["path"]):
        await _data_plane(scope, receive, send)
    else:
        await _control_plane(scope, receive, send)
