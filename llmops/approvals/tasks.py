"""What workers do for approvals."""

from __future__ import annotations

from celery import shared_task

from llmops.approvals import services


@shared_task(name="approvals.expire")
def expire() -> int:
    """Close requests that nobody decided about in time."""
    return services.expire_requests()
