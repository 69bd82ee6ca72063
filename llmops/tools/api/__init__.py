"""``/api/v1/tools`` and ``/api/v1/actions``."""

from __future__ import annotations

from rest_framework.routers import BaseRouter

from llmops.tools.api.actions import Actions
from llmops.tools.api.tools import Tools


def register(router: BaseRouter) -> None:
    router.register("tools", Tools)
    router.register("actions", Actions)
