"""What workers do for access; thin callers of services."""

from __future__ import annotations

from celery import shared_task

from llmops.access import services


@shared_task(name="access.remind_of_graces")
def remind_of_graces() -> int:
    """Tell owners whose services still send a secret that ends soon."""
    return services.remind_of_graces()
