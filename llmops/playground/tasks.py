"""What workers do for the playground; thin callers of services."""

from __future__ import annotations

from celery import shared_task

from llmops.playground import services


@shared_task(name="playground.forget_old")
def forget_old() -> int:
    return services.forget_old()
