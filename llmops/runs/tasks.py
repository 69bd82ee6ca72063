"""What workers do for runs; thin callers of services."""

from __future__ import annotations

from uuid import UUID

from celery import shared_task

from llmops.runs import services


@shared_task(name="runs.advance")
def advance(run_id: str) -> str:
    """Work on a run, and then on one whose worker died. Delivered twice, it is worked on once: whoever comes second finds it taken."""
    try:
        state = services.advance(UUID(run_id))
    except ValueError:
        # Actions may name runs that are not of this console.
        return "none of ours"
    services.follow()
    return state


@shared_task(name="runs.look_after")
def look_after() -> int:
    """Hand out runs that somebody could go on with and nobody does, and what is due to be told."""
    return services.hand_out() + services.tell_due()


@shared_task(name="runs.tell")
def tell(run_id: str) -> str:
    return services.tell(UUID(run_id))


@shared_task(name="runs.forget_old")
def forget_old() -> int:
    return services.forget_old()
