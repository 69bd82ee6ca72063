"""What workers do for readiness; thin callers."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from llmops.readiness import selectors, services


@shared_task(name="readiness.keep")
def keep() -> int:
    """Keep the day's score. Tenths of a point."""
    return services.keep(selectors.assess(), day=timezone.now().date()).tenths
