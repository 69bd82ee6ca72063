"""What workers do for alerts."""

from __future__ import annotations

from celery import shared_task

from llmops.alerts import services


@shared_task(name="alerts.evaluate")
def evaluate() -> int:
    """Look at the rules."""
    return services.evaluate()


@shared_task(name="alerts.deliver")
def deliver() -> int:
    """Send what waits in the outbox."""
    return services.deliver()
