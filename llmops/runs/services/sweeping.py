"""Runs that lie about: their message was lost, their worker died, or what they waited for has come. And texts whose time is over."""

from __future__ import annotations

import time
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q

from llmops.base.clock import database_now
from llmops.base.tasks import lost_after
from llmops.runs.models import Run, Step
from llmops.runs.selectors import with_open_actions
from llmops.runs.services.waking import begin_with, go_on

#: Handed out in one go.
MOST = 500
_FORGET_AT_ONCE, _FORGET_FOR_S = 500, 30.0


def hand_out(now: datetime | None = None) -> int:
    """Tell workers of every run that somebody could go on with and nobody does. How many."""
    now = now or database_now()
    told = Q(handed_at=None) | Q(handed_at__lte=now - lost_after())
    waits = Q(state=Run.QUEUED) & (Q(not_before=None) | Q(not_before__lte=now))
    followed = Q(state=Run.RUNNING, lease_until__lte=now)
    may_go_on = Q(state=Run.PARKED) & ~with_open_actions()
    found = list(
        Run.objects.filter(told, waits | followed | may_go_on)
        .order_by("id")
        .values_list("pk", "state", "fence")[:MOST]
    )
    for pk, state, fence in found:
        # Two of these at once tell twice; whoever comes second finds it taken.
        if Run.objects.filter(told, pk=pk).update(handed_at=now):
            (begin_with if (state, fence) == (Run.QUEUED, 0) else go_on)(pk)
    return len(found)


def forget_old(now: datetime | None = None) -> int:
    """Remove what was asked, said and answered in runs that ended long ago; what each step was, and its digest, stay."""
    if not settings.RUN_TEXT_DAYS:
        return 0
    before, forgotten, until = (now or database_now()), 0, time.monotonic() + _FORGET_FOR_S
    while (some := _forget(before - timedelta(days=settings.RUN_TEXT_DAYS))) and time.monotonic() < until:
        forgotten += some
    return forgotten + some


def _forget(before: datetime) -> int:
    old = list(
        Run.objects.filter(finished_at__lt=before)
        .exclude(sealed="")
        .values_list("pk", flat=True)[:_FORGET_AT_ONCE]
    )
    Step.objects.filter(run__in=old).exclude(sealed="").update(sealed="")
    Run.objects.filter(pk__in=old).update(sealed="", sealed_answer="", sealed_saying="")
    return len(old)
