"""What workers do for approvals."""

from __future__ import annotations

from celery import shared_task

from llmops.approvals import services, telling


@shared_task(name="approvals.expire")
def expire() -> int:
    """Close requests that nobody decided about in time."""
    return services.expire_requests()


@shared_task(name="approvals.tell")
def tell() -> int:
    """Tell those who may decide of what waits for them."""
    return telling.tell_of_what_waits()
