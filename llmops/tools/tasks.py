"""What workers do for actions; thin callers of services."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from llmops.tools import services


@shared_task(name="tools.execute")
def execute(action_id: str) -> str:
    """Carry an approved action out. Nothing sends this any more (``lane``); what was sent by an earlier version still comes."""
    return services.execute(UUID(action_id))


@shared_task(name="tools.look_after")
def look_after() -> int:
    """Close claims whose worker died, and what nobody began in time."""
    return services.settle_crashed() + services.expire_unbegun()
