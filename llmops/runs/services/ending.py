"""The end of a run, by whichever way; and cancelling one."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F

from llmops.access.selectors import powers_of_actor
from llmops.audit.services import record_about
from llmops.base.clock import database_now
from llmops.base.tasks import send
from llmops.core.actors import Actor, job_actor
from llmops.core.appearance import written_out
from llmops.core.digests import digest
from llmops.core.errors import Conflict, PermissionDenied
from llmops.runs.conversation import CALL
from llmops.runs.costing import cost_of
from llmops.runs.models import Run, Step
from llmops.runs.sealed import answer_identity, seal
from llmops.runs.selectors import plain, waited_for
from llmops.runs.services.leasing import BEATS, Held, fenced, note, write_step
from llmops.tools.models import Action
from llmops.tools.services import call_off

TELL = "runs.tell"
_WORKER = job_actor("runs.advance")


def succeed(held: Held, *, text: str, output: Any, finish: str) -> None:
    answer = seal(
        plain({"text": text, "output": output, "finish": finish}), identity=answer_identity(held.run.pk)
    )
    _end(held, Run.SUCCEEDED, sealed_answer=answer)


def fail(held: Held, code: str, message: str, *, param: str = "", turn: int = 0) -> None:
    # Providers and models have a say in these, and a database keeps no characters of any kind.
    code, message, param = written_out(code), written_out(message), written_out(param)
    step = note("failed", message[:1000], turn=turn, outcome=code[:60])
    _end(
        held,
        Run.FAILED,
        step,
        error_code=code[:60],
        error_message=message[:1000],
        error_param=param[:200],
    )


def cancelled(held: Held) -> None:
    _end(held, Run.CANCELLED, note("cancelled", "It was cancelled."))


def _end(held: Held, state: str, *steps: dict[str, Any], **change: Any) -> None:
    now = database_now()
    with fenced(held, **_over(held.run, state, now), **change) as written:
        written += steps
        _take_back(held.run)
        _on_record(_WORKER, held.run, state, change.get("error_code", ""))


def _over(run: Run, state: str, now: datetime) -> dict[str, Any]:
    told: dict[str, Any] = {
        "state": state,
        "finished_at": now,
        "lease_until": None,
        "began_at": None,
        "sealed_saying": "",
    }
    if run.webhook_url:
        told |= {"webhook_state": Run.DUE, "webhook_at": now}
    return told


def _take_back(run: Run) -> None:
    """What the run asked for and nobody began with: nobody waits for it any more, and nobody should agree to it."""
    for action in (*waited_for(run), *_put_in_place(run)):
        if action.state in (Action.WAITING, Action.APPROVED):
            try:
                with transaction.atomic():
                    call_off(_WORKER, action=action, reason="The run is over.")
            except Conflict:
                continue


def _put_in_place(run: Run) -> list[Action]:
    """What reviewers proposed instead and no worker has looked at yet."""
    found = []
    for action in Action.objects.filter(steps__run=run, steps__kind=CALL, state=Action.SUPERSEDED):
        while action.state == Action.SUPERSEDED:
            action = action.superseded_by
        found.append(action)
    return list({one.pk: one for one in found}.values())


def _on_record(actor: Actor, run: Run, state: str, code: str) -> None:
    """With the digest of its story, so that the trail proves every step. Steps of this very transaction come after it."""
    record_about(
        actor,
        run,
        action=f"run.{state}",
        after={"state": state, **_proof(run), **({"error": code} if code else {})},
    )
    if run.webhook_url:
        send(TELL, str(run.pk))


def _proof(run: Run) -> dict[str, Any]:
    digests = list(Step.objects.filter(run=run).order_by("n").values_list("digest", flat=True))
    return {"turns": run.turns, "cost_nano": cost_of(run), "steps": len(digests), "story": digest(digests)}


def cancel_run(actor: Actor, *, run: Run, reason: str = "") -> Run:
    """End it at once where nobody works on it; whoever does sees it within a moment. What a tool has begun with is not undone.

    Raises ``Conflict`` when it is over, or being cancelled already.
    """
    if not powers_of_actor(actor).allow("run.start", run.project_id):
        raise PermissionDenied("You may not cancel runs in this project.")
    with transaction.atomic():
        now = database_now()
        asleep = Run.objects.filter(pk=run.pk, state__in=(Run.QUEUED, Run.PARKED), cancel_asked_at=None)
        change = {"cancel_asked_at": now, "updated_at": now}
        if asleep.update(fence=F("fence") + 1, **change, **_over(run, Run.CANCELLED, now)):
            run.refresh_from_db()
            last = Step.objects.filter(run=run).order_by("-n").values_list("n", flat=True).first() or 0
            text = f"Cancelled by {actor.name}." + (f" {written_out(reason)}" if reason else "")
            write_step(run, last + 1, now, note("cancelled", text))
            _take_back(run)
            if run.webhook_url:
                send(TELL, str(run.pk))
        elif Run.objects.filter(pk=run.pk, state=Run.RUNNING, cancel_asked_at=None).update(**change):
            run.refresh_from_db()
            transaction.on_commit(partial(BEATS.cancel, run.pk))
        else:
            raise Conflict("This run is over, or is being cancelled already.")
        # One that is over by now has no event of its own for its end.
        proof = _proof(run) if run.over else {}
        record_about(
            actor, run, action="run.cancel_asked", after={"state": run.state, **proof}, reason=reason
        )
    return run
