"""Forgetting what people tried, as configured."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from llmops.playground.models import Run, Setup


def forget_old() -> int:
    """Remove runs with all that was heard of them, and shared setups, once they are old enough; how many of both."""
    now = timezone.now()
    runs = Run.objects.filter(started_at__lt=now - timedelta(hours=settings.PLAYGROUND_RUN_HOURS))
    # A run that is under way is younger than any retention, unless nobody ever closed it.
    number = runs.count()
    runs.delete()
    setups = Setup.objects.filter(made_at__lt=now - timedelta(days=settings.PLAYGROUND_SETUP_DAYS))
    number += setups.count()
    setups.delete()
    return number
