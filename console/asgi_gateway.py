"""The data plane alone: ``granian --interface asgi console.asgi_gateway:application``."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
os.environ.setdefault("CONSOLE_BACKGROUND", "1")

from console.startup import set_up

set_up(data_plane=True)

from llmops.gateway.boot import gateway  # noqa: E402

application = gateway(ready_to_count=True)
