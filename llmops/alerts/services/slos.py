"""Changes to objectives: each is one transaction with one audit event."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.alerts.models import Slo
from llmops.audit.services import record_about
from llmops.base import drafts
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest

CHANGEABLE = ("objective", "target_ppm", "threshold", "window_days", "project", "route", "feature")
_TOLD = ("slug", *CHANGEABLE)
_MEASURED = (Slo.LATENCY, Slo.TTFT, Slo.COST)


def create_slo(actor: Actor, *, slug: str, **given: Any) -> Slo:
    """Raises ``InvalidRequest`` naming what does not fit, ``Conflict`` for a taken name."""
    with transaction.atomic():
        slo = Slo(slug=slug)
        drafts.assign(slo, given, allowed=CHANGEABLE)
        _checked(slo)
        drafts.inserted(slo)
        record_about(actor, slo, action="slo.created", after=drafts.values(slo, _TOLD))
    return slo


def update_slo(actor: Actor, *, slo: Slo, **changes: Any) -> Slo:
    with transaction.atomic():
        stored = drafts.locked(slo)
        if stored.archived_at is not None:
            raise Conflict(f"{stored.slug} is archived. Restore it first.")
        before = drafts.values(stored, _TOLD)
        drafts.assign(stored, changes, allowed=CHANGEABLE)
        _checked(stored)
        stored.save()
        record_about(actor, stored, action="slo.changed", before=before, after=drafts.values(stored, _TOLD))
    return stored


def archive_slo(actor: Actor, *, slo: Slo) -> Slo:
    """Nothing counts for it any more; incidents of it end by themselves."""
    with transaction.atomic():
        stored = drafts.locked(slo)
        if not compare_and_set(stored, expect={"archived_at": None}, change={"archived_at": timezone.now()}):
            raise Conflict(f"{stored.slug} is archived already.")
        record_about(
            actor, stored, action="slo.archived", before={"archived": False}, after={"archived": True}
        )
    return stored


def restore_slo(actor: Actor, *, slo: Slo) -> Slo:
    with transaction.atomic():
        stored = drafts.locked(slo)
        if not compare_and_set(stored, expect={"archived_at__isnull": False}, change={"archived_at": None}):
            raise Conflict(f"{stored.slug} is not archived.")
        record_about(
            actor, stored, action="slo.restored", before={"archived": True}, after={"archived": False}
        )
    return stored


def _checked(slo: Slo) -> None:
    if slo.target_ppm is None or not 0 < slo.target_ppm < 1_000_000:
        raise InvalidRequest(
            "target_ppm: more than 0 and less than a million; at a million there is no budget.",
            param="target_ppm",
        )
    if slo.objective in _MEASURED and not slo.threshold > 0:
        raise InvalidRequest("threshold: how long, or how much, at most?", param="threshold")
    if slo.objective not in _MEASURED:
        slo.threshold = 0
    if slo.feature and slo.objective in (Slo.LATENCY, Slo.TTFT):
        raise InvalidRequest(
            "feature: how long calls take is kept by route and project, not by feature. Narrow by these.",
            param="feature",
        )
    drafts.checked(slo)
