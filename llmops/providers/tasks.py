"""What workers do for providers; thin callers of services."""

from __future__ import annotations

from celery import shared_task

from llmops.providers import services


@shared_task(name="providers.forget_old_events")
def forget_old_events() -> int:
    return services.forget_old_events()
