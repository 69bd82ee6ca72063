"""Telling workers of a run: of a new one after everything else, of one that goes on before those that have not begun."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from llmops.base.tasks import send
from llmops.runs.models import Run

ADVANCE = "runs.advance"


def begin_with(run_id: UUID) -> None:
    """A worker begins with it when those before it have begun."""
    send(ADVANCE, str(run_id), behind=True)


def go_on(run_id: UUID) -> None:
    send(ADVANCE, str(run_id))


def action_ended(run: str) -> None:
    """Have the run of this id go on if it waits. ``settings.ACTION_ENDED`` points here.

    Looked at once the end is committed. A run that is worked on sees the end by itself: at the latest when it has begun to wait, which
    it looks at again then.
    """
    try:
        run_id = UUID(run)
    except ValueError:
        # Actions may name runs that are not of this console.
        return

    def wake() -> None:
        if Run.objects.filter(pk=run_id, state=Run.PARKED).exists():
            go_on(run_id)

    # Whatever goes wrong here, the action has ended; a schedule looks as well.
    transaction.on_commit(wake, robust=True)
