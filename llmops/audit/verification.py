"""Walking the whole trail in the background: asked for by a person, done in steps, taken over when the worker dies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError, transaction

from llmops.audit import chain, selectors
from llmops.audit.models import Event, Verification
from llmops.audit.services import as_exported, record
from llmops.base.clock import database_now
from llmops.base.locks import lock
from llmops.base.tasks import send
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict

log = logging.getLogger(__name__)

#: Events a step; one takes a fraction of a second.
STEP = 5_000
#: A run whose worker has been silent for so long is gone on with by another.
SILENT_AFTER = timedelta(seconds=60)
_LOCK = "audit.verification"


@transaction.atomic
def start_verification(actor: Actor, *, background: bool = True) -> Verification:
    """Begin to check every event up to now. ``background``: a worker does it. ``Conflict`` while one is under way."""
    lock(_LOCK)
    if Verification.objects.filter(state=Verification.RUNNING).exists():
        raise Conflict("The trail is being verified already. Watch that run.")
    now = database_now()
    run = Verification.objects.create(
        hash=chain.GENESIS, started_by=actor.name[:200], started_at=now, heartbeat_at=now
    )
    event = record(
        actor,
        action="audit.verification_started",
        object_type="audit.verification",
        object_id=run.pk,
        object_name="verification of the trail",
    )
    # The event that says so is the last one that is looked at.
    run.total, run.head_hash = event.sequence, event.hash
    run.save(update_fields=["total", "head_hash"])
    if background:
        send("audit.verify", str(run.pk))
    return run


def resume_verifications() -> int:
    """Hand out runs whose worker has died; how many."""
    silent = Verification.objects.filter(
        state=Verification.RUNNING, heartbeat_at__lt=database_now() - SILENT_AFTER
    )
    for run in silent:
        send("audit.verify", str(run.pk))
    return len(silent)


def verify(
    actor: Actor,
    *,
    run_id: Any,
    step: int = STEP,
    after_each: Callable[[Verification], None] = lambda run: None,
) -> Verification:
    """Work on a run to its end. Two workers that have the same run are no harm: only one moves it on at each step.

    What is found wrong is a result and not a failure: the run is then ``broken`` and says why. A database that goes
    away raises, and the run is handed out again.
    """
    run = Verification.objects.get(pk=run_id)
    try:
        while run.state == Verification.RUNNING:
            verdict = _look(run, step)
            problems = [*run.problems, *verdict.problems][:20]
            over = verdict.count == 0 or verdict.sequence >= run.total or len(problems) >= 20
            if over:
                return _end(actor, run, _with_the_end(run, verdict, problems))
            moved = compare_and_set(
                run,
                expect={"state": Verification.RUNNING, "sequence": run.sequence},
                change={
                    "sequence": verdict.sequence,
                    "hash": verdict.hash,
                    "problems": problems,
                    "heartbeat_at": database_now(),
                },
            )
            if not moved:
                return Verification.objects.get(pk=run_id)
            after_each(run)
    except (DatabaseError, InterfaceError):
        raise
    except Exception as fault:
        log.exception("The verification %s failed", run_id)
        return _end(actor, run, [f"It could not be finished: {type(fault).__name__}."], Verification.FAILED)
    return run


def _look(run: Verification, step: int) -> chain.Verdict:
    rows = Event.objects.filter(sequence__gt=run.sequence, sequence__lte=run.total).order_by("sequence")[
        :step
    ]
    return chain.verify((as_exported(event) for event in rows), after=(run.sequence, run.hash))


def _with_the_end(run: Verification, verdict: chain.Verdict, problems: list[str]) -> list[str]:
    """``problems``, and whether the trail still ends, or goes on, as it did when the run began."""
    run.sequence, run.hash = verdict.sequence, verdict.hash
    if not problems and (verdict.sequence, verdict.hash) != (run.total, run.head_hash):
        problems = [
            f"the trail ended with event {run.total}; event {verdict.sequence} is the last one of it left"
        ]
    sequence, hashed = selectors.head()
    if not problems and (sequence < run.total or (sequence == run.total and hashed != run.head_hash)):
        problems = [f"the chain head speaks of event {sequence}: it was set back"]
    return problems


@transaction.atomic
def _end(actor: Actor, run: Verification, problems: list[str], state: str = "") -> Verification:
    state = state or (Verification.BROKEN if problems else Verification.INTACT)
    ended = compare_and_set(
        run,
        expect={"state": Verification.RUNNING},
        change={
            "state": state,
            "sequence": run.sequence,
            "hash": run.hash,
            "problems": problems,
            "finished_at": database_now(),
        },
    )
    if not ended:
        run.refresh_from_db()
        return run
    record(
        actor,
        action="audit.verified" if state != Verification.FAILED else "audit.verification_failed",
        object_type="audit.verification",
        object_id=run.pk,
        object_name="verification of the trail",
        after={"intact": state == Verification.INTACT, "events": run.sequence, "digest": run.hash}
        | ({"problems": problems} if problems else {}),
    )
    return run
