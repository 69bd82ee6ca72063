"""What workers do for actions; thin callers of services."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from llmops.tools import services


@shared_task(name="tools.execute")
def execute(action_id: str) -> str:
    """Carry an approved action out. Delivered twice, it is carried out once: whoever comes second finds it claimed."""
    return services.execute(UUID(action_id))


@shared_task(name="tools.look_after")
def look_after() -> int:
    """Close claims whose worker died, and hand out again what nobody began."""
    return services.settle_crashed() + services.hand_out()
