"""A provider key was rotated within half a year."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from llmops.providers.models import Rotation
from llmops.readiness.finding import TESTING, Check, Finding, lacking, met


def look() -> Finding:
    since = timezone.now() - timedelta(days=183)
    last = Rotation.objects.filter(finished_at__gt=since).order_by("-finished_at").first()
    return met(f"{last.provider.slug} on {last.finished_at:%Y-%m-%d}.") if last else lacking("None was.")


CHECK = Check(
    "rotation-rehearsed",
    TESTING,
    "A provider key was rotated within half a year",
    fix="Rotate a key, so that it is known to work when it has to be quick.",
    link="providers.rotation",
    look=look,
)
