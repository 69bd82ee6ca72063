"""What workers do for access; thin callers of services."""

from __future__ import annotations

from celery import shared_task

from llmops.access import services
from llmops.core.actors import job_actor


@shared_task(name="access.remind_of_graces")
def remind_of_graces() -> int:
    """Tell owners whose services still send a secret that ends soon."""
    return services.remind_of_graces()


@shared_task(name="access.reseal")
def reseal(run_id: str) -> str:
    """Seal everything anew under the active master key, or what is left of it."""
    return str(services.reseal(job_actor("access.reseal"), run_id=run_id).state)


@shared_task(name="access.resume_resealings")
def resume_resealings() -> int:
    """Go on with runs whose worker died."""
    return services.resume_resealings()
