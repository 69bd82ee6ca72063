"""``/api/v1/runs`` and ``/api/v1/summarize``."""

from __future__ import annotations

from rest_framework.routers import BaseRouter

from llmops.runs.api.runs import Runs
from llmops.runs.api.summarize import Summaries


def register(router: BaseRouter) -> None:
    router.register("runs", Runs)
    router.register("summarize", Summaries, basename="summarize")
