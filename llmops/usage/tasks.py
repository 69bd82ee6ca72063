"""What workers do for usage and budgets; thin callers of services.

Leases are reaped from here and not from ``budgets``, because first somebody must try to read their journals.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from celery import shared_task
from django.conf import settings

from llmops.budgets.services import reap_leases as charge_expired_leases
from llmops.core.actors import job_actor
from llmops.usage import journal, partitions, services
from llmops.usage.ingest.loop import Ingester, only_ingester


@shared_task(name="usage.ingest_orphans")
def ingest_orphans() -> int:
    """Book the journals of this host when no ingester runs beside them."""
    with only_ingester(settings.JOURNAL_DIR) as ours:
        return Ingester(settings.JOURNAL_DIR).run_once() if ours else 0


@shared_task(name="budgets.reap_leases")
def reap_leases() -> int:
    """Charge expired leases whole, unless their journal is here and can be read: then it tells what was spent."""
    reaped = charge_expired_leases(spare=_Readable(settings.JOURNAL_DIR))
    services.mark_lost(reaped)
    return len(reaped)


@shared_task(name="usage.apply_retention")
def apply_retention() -> int:
    return services.apply_retention(job_actor("usage.apply_retention"), days=settings.CALL_RETENTION_DAYS)


@shared_task(name="usage.remove_kept_texts")
def remove_kept_texts() -> int:
    return services.remove_kept_texts()


@shared_task(name="usage.forget_minutes")
def forget_minutes() -> int:
    return services.forget_minutes(job_actor("usage.forget_minutes"), days=settings.MINUTE_ROLLUP_DAYS)


@shared_task(name="usage.renew_summaries")
def renew_summaries() -> int:
    return services.renew_summaries()


@shared_task(name="usage.recheck_summaries")
def recheck_summaries() -> int:
    return services.recheck_summaries()


@shared_task(name="usage.tell_of_drift")
def tell_of_drift(import_id: str) -> int:
    return services.tell_of_drift(int(import_id))


@shared_task(name="usage.fetch_statements")
def fetch_statements() -> int:
    return services.fetch_daily()


@shared_task(name="usage.make_days")
def make_days() -> int:
    return len(partitions.make_ahead())


@shared_task(name="usage.forget_objects")
def forget_objects() -> int:
    return services.forget_objects(days=settings.OBJECT_RETENTION_DAYS) + services.forget_outcomes()


@shared_task(name="usage.resume_jobs")
def resume_jobs() -> int:
    return len(services.resume_jobs())


@shared_task(name="usage.run_job")
def run_job(job_id: str) -> None:
    services.run_job(UUID(job_id))


@shared_task(name="usage.send_exports")
def send_exports() -> int:
    return services.send_exports()


class _Readable:
    """Whether a journal lies in ``directory`` and can be read; reads it to its present end to find out."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ingester: Ingester | None = None

    def __call__(self, journal_id: UUID) -> bool:
        if journal_id not in journal.found(self._directory):
            return False
        if self._ingester is None:
            self._ingester = Ingester(self._directory)
            self._ingester.run_once()
        return journal_id not in self._ingester.problems()
