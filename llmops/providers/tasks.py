"""What workers do for providers; thin callers of services."""

from __future__ import annotations

from celery import shared_task

from llmops.core.actors import job_actor
from llmops.providers import services


@shared_task(name="providers.forget_old_events")
def forget_old_events() -> int:
    return services.forget_old_events()


@shared_task(name="providers.tend_rotations")
def tend_rotations() -> int:
    """Take back rotations whose new key is refused, finish those whose old key is drained or whose time is over."""
    return services.tend_rotations(job_actor("providers.tend_rotations"))


@shared_task(name="providers.remind_of_keys")
def remind_of_keys() -> int:
    return services.remind_of_keys()
