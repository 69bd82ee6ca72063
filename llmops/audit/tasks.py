"""What workers do for the trail; thin callers of ``verification``."""

from __future__ import annotations

from celery import shared_task

from llmops.audit import verification
from llmops.core.actors import job_actor


@shared_task(name="audit.verify")
def verify(run_id: str) -> str:
    """Check the whole trail, or what is left of it to check."""
    return str(verification.verify(job_actor("audit.verify"), run_id=run_id).state)


@shared_task(name="audit.resume_verifications")
def resume_verifications() -> int:
    """Go on with runs whose worker died."""
    return verification.resume_verifications()
