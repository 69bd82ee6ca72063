"""What workers do for budgets; thin callers of services. Leases are reaped from ``usage.tasks``, which reads journals."""

from __future__ import annotations

from celery import shared_task

from llmops.budgets import services


@shared_task(name="budgets.carry_over")
def carry_over() -> int:
    """Hand on what ended periods left over, as their leases come back."""
    return services.carry_over_all()


@shared_task(name="budgets.send_notices")
def send_notices() -> int:
    """E-mail those who are to know of thresholds that were crossed."""
    return services.send_notices()


@shared_task(name="budgets.end_raises")
def end_raises() -> int:
    """Bring limits down whose raise is over."""
    return services.end_raises()
