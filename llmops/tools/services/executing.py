"""Carrying out what is approved: claimed once, called at most once, and what came of it on record.

1. ``claim``: one conditional UPDATE from ``approved`` to ``claimed``, with a deadline, in a transaction of its own. The database
   refuses to set ``claimed_at`` again, whoever tries.
2. The executor's call, outside of any transaction.
3. ``finish``: what came of it, again by conditional UPDATE, bound to the claim.

A worker that dies between 1 and 3 leaves ``claimed``; after the deadline ``settle_crashed`` makes that ``unknown``, since nobody
can know, and a person finds out. What only reads has nothing to find out: it failed.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction

from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor, job_actor
from llmops.tools import rules
from llmops.tools.executors import Executor, Job, Outcome, executor_named
from llmops.tools.models import Action, Tool
from llmops.tools.sealed import webhook_secret
from llmops.tools.services.approving import tell_its_run
from llmops.tools.services.binding import approval_problem, asker_problem
from llmops.tools.services.proposing import audit

log = logging.getLogger(__name__)

#: What was approved and not begun for so long is not what anybody expects any more.
START_WITHIN = timedelta(hours=24)
#: Beyond a tool's time-out, for the worker to write down what came of it.
MARGIN = timedelta(seconds=15)
#: Between claiming and calling nothing takes long. A worker that was suspended in between does not call late.
_FRESH_S = 10.0
_WORKER = job_actor("tools.execute")


@dataclass(frozen=True, slots=True)
class Claimed:
    action: Action
    claim_id: UUID
    job: Job
    executor: Executor
    at: float


def execute(action_id: UUID) -> str:
    """Carry the action out if it may be and nobody else does; its state afterwards."""
    claimed = claim(action_id)
    if claimed is None:
        return str(Action.objects.filter(pk=action_id).values_list("state", flat=True).first() or "gone")
    return carry_out(claimed)


def carry_out(claimed: Claimed) -> str:
    """What was claimed, at once; the action's state afterwards."""
    if not _stands(claimed):
        outcome = Outcome("failed", message="Nothing was sent: the worker was suspended after it had begun.")
    else:
        try:
            outcome = claimed.executor.run(claimed.job)
        except Exception:
            log.exception("The executor of %s failed", claimed.job.tool)
            outcome = Outcome("unknown", message="The console failed while it carried this out.")
    return finish(claimed.action, claimed.claim_id, outcome)


def _stands(claimed: Claimed) -> bool:
    """Whether there is still time to call, right before the call. The database is asked as well: where a whole machine was suspended, its
    own clock stood still, and by now a person may have found out that it did not happen, and somebody has asked for it anew."""
    if time.monotonic() - claimed.at > _FRESH_S:
        return False
    until = database_now() + timedelta(seconds=claimed.job.timeout_s)
    mine = Action.objects.filter(pk=claimed.action.pk, state=Action.CLAIMED, claim_id=claimed.claim_id)
    return mine.filter(deadline_at__gt=until).exists()


def claim(action_id: UUID) -> Claimed | None:
    """Take the action, or None where it is not to be carried out now, or somebody else has it."""
    at = time.monotonic()
    with transaction.atomic():
        known = Action.objects.filter(pk=action_id).values("tool_id", "state").first()
        if known is None or known["state"] != Action.APPROVED:
            return None
        # Held to the end: whoever claims counts what runs, and a pause is felt by the next.
        tool = Tool.objects.select_for_update(of=("self",)).get(pk=known["tool_id"])
        action = Action.objects.select_related("version__tool", "request", "tool").get(pk=action_id)
        definition = rules.read_definition(action.version.definition)
        now = database_now()
        if action.state != Action.APPROVED or definition.execution != rules.CONSOLE:
            return None
        if refused_before_start(_WORKER, action, now) or tool.paused_at is not None:
            return None
        under_way = Action.objects.filter(tool=tool, state=Action.CLAIMED, deadline_at__gt=now).count()
        if under_way >= definition.concurrency:
            return None
        executor = executor_named(definition.executor)
        claim_id = take(action, now, definition.timeout_s, by=f"{socket.gethostname()}:{os.getpid()}")
        if claim_id is None:
            return None
        job = _job(action, definition, now, webhook_secret(tool) if executor.signs and tool.sealed else "")
        audit(_WORKER, action, "started", after={"version": action.version.number, "tool": tool.slug})
    return Claimed(action, claim_id, job, executor, at)


def refused_before_start(actor: Actor, action: Action, now: datetime) -> bool:
    """Close what may not begin any more: it lay too long, is not what was approved, or who asked for it may not any more."""
    assert action.approved_at is not None
    if action.approved_at + START_WITHIN <= now:
        return _closed(actor, action, Action.EXPIRED, "expired", "Nobody began with it in time.", now)
    if problem := approval_problem(action) or asker_problem(action):
        return _closed(actor, action, Action.FAILED, "refused", f"Nothing was run. {problem}", now)
    return False


def take(action: Action, now: datetime, timeout_s: float, *, by: str) -> UUID | None:
    """The one conditional UPDATE by which an action is claimed; None: somebody else was first."""
    claim_id = uuid4()
    won = compare_and_set(
        action,
        expect={"state": Action.APPROVED, "claimed_at": None, "digest": action.digest},
        change={
            "state": Action.CLAIMED,
            "claimed_at": now,
            "claim_id": claim_id,
            "claimed_by": by[:200],
            "deadline_at": now + timedelta(seconds=timeout_s) + MARGIN,
            "updated_at": now,
        },
    )
    return claim_id if won else None


def finish(action: Action, claim_id: UUID, outcome: Outcome, actor: Actor = _WORKER) -> str:
    """Put what came of it on record, if this claim still stands or was given up for dead and nobody has decided since."""
    state, message = outcome.state, outcome.message
    if state == "unknown" and action.risk == rules.READ:
        state, message = "failed", f"{message} It only reads, so it can be asked for again."
    with transaction.atomic():
        now = database_now()
        won = compare_and_set(
            action,
            expect={"state": (Action.CLAIMED, Action.UNKNOWN), "claim_id": claim_id, "resolution": ""},
            change={
                "state": state,
                "finished_at": now,
                "result": outcome.result,
                "message": message[:1000],
                "updated_at": now,
            },
        )
        if won:
            audit(actor, action, _HAPPENED[state], after={"state": state, "message": message[:300]})
            tell_its_run(action)
    if not won:
        log.warning("What came of the action %s is not taken: somebody decided about it meanwhile", action.pk)
        return str(Action.objects.filter(pk=action.pk).values_list("state", flat=True).get())
    return state


_HAPPENED = {"succeeded": "succeeded", "failed": "failed", "unknown": "interrupted"}


def settle_crashed(now: datetime | None = None) -> int:
    """Close claims whose worker died: nobody knows what it had done. How many."""
    now = now or database_now()
    settled = 0
    late = Action.objects.filter(state=Action.CLAIMED, deadline_at__lte=now).order_by("deadline_at")
    for action in late.select_related("tool", "version")[:200]:
        reads = action.risk == rules.READ
        message = "Whoever carried this out never said what came of it."
        with transaction.atomic():
            if compare_and_set(
                action,
                expect={"state": Action.CLAIMED, "claim_id": action.claim_id},
                change={
                    "state": Action.FAILED if reads else Action.UNKNOWN,
                    "finished_at": now,
                    "message": message + (" It only reads, so it can be asked for again." if reads else ""),
                    "updated_at": now,
                },
            ):
                audit(
                    job_actor("tools.look_after"),
                    action,
                    "failed" if reads else "interrupted",
                    after={"state": action.state, "message": message},
                )
                tell_its_run(action)
                settled += 1
    return settled


def expire_unbegun(now: datetime | None = None) -> int:
    """Close what was approved and lay too long, or is not what was approved; how many."""
    now, closed = now or database_now(), 0
    old = Action.objects.filter(state=Action.APPROVED, approved_at__lte=now - START_WITHIN)
    for action in old.select_related("tool", "version", "request")[:200]:
        with transaction.atomic():
            closed += refused_before_start(job_actor("tools.look_after"), action, now)
    return closed


def _closed(actor: Actor, action: Action, state: str, happened: str, message: str, now: datetime) -> bool:
    if compare_and_set(
        action,
        expect={"state": Action.APPROVED},
        change={"state": state, "finished_at": now, "message": message[:1000], "updated_at": now},
    ):
        audit(actor, action, happened, after={"state": state, "message": message})
        tell_its_run(action)
    return True


def _job(action: Action, definition: rules.Definition, now: datetime, secret: str) -> Job:
    people: tuple[str, ...] = ()
    if action.request is not None:
        given: Any = action.request.decisions.filter(approves=True)
        people = tuple(given.values_list("decided_by_name", flat=True))
    return Job(
        key=str(action.pk),
        tool=action.tool.slug,
        version=action.version.number,
        arguments=action.given,
        digest=action.digest,
        timeout_s=definition.timeout_s,
        settings=definition.settings,
        at=int(now.timestamp()),
        secret=secret,
        run=action.run,
        risk=action.risk,
        proposed_by=action.requested_by_name,
        approved_by=people,
    )
