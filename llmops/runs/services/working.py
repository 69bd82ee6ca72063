"""Working on a run: the next step follows from the steps that are there (``conversation.next_of``), until it is over or has to wait.

Every boundary may be the last moment of this process. What it had asked for is then asked for again by whoever follows, under
the same key: a turn of the model at the data plane (answered and paid for once), a call of a tool as an action (carried out once).
"""

from __future__ import annotations

import logging
import time
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.db.models import F

from llmops.access.selectors import powers_of_actor, why_not_in_force
from llmops.base.clock import database_now
from llmops.core.appearance import written_out
from llmops.core.errors import Conflict
from llmops.core.money import format_usd
from llmops.runs.asking import STOPPED, Reply, ask
from llmops.runs.conversation import AGAIN, REPAIR, TURN, Answered, Ask, Calls, body_of, next_of
from llmops.runs.costing import costs_by_turn, key_of, tokens_of, total
from llmops.runs.models import Run, Step
from llmops.runs.rules import MOST_CALLS, SPENT, TRIES, back_off, output_of, passes
from llmops.runs.selectors import actor_behind
from llmops.runs.services import ending
from llmops.runs.services.keys import key_in_use
from llmops.runs.services.leasing import BEATS, Held, LostLease, fenced, note, spent_ms, take
from llmops.runs.services.saying import Saying
from llmops.runs.services.tooling import carry_on
from llmops.runs.services.waking import go_on

log = logging.getLogger(__name__)

#: A turn of the model is waited for no longer, however much time the run has.
LONGEST_TURN_S = 600.0
#: A turn whose answer is lost at the data plane is asked for again, and paid for again, so often.
_MOST_AGAIN = 1
_HEARD_AGAIN_S = 0.5


def advance(run_id: UUID, *, for_s: float | None = None) -> str:
    """Work on the run if nobody else does, until it is over or waits; its state afterwards.

    After ``for_s`` seconds it is handed on to a worker, between two steps: whoever called has waited long enough.
    """
    held = take(run_id)
    if held is not None:
        if for_s is not None:
            held.hand_on_at = time.monotonic() + for_s
        with BEATS.watching(held):
            _work(held)
    return str(Run.objects.filter(pk=run_id).values_list("state", flat=True).first() or "gone")


def follow() -> None:
    """Go on with the run that a worker which died left first, if there is one.

    Workers do between two messages: what a worker had fetched dies with it, and a message that is sent in place of it comes after
    all others.
    """
    left = Run.objects.filter(state=Run.RUNNING, lease_until__lte=database_now()).order_by("lease_until")
    if (pk := left.values_list("pk", flat=True).first()) is not None:
        advance(pk)


def _work(held: Held) -> None:
    try:
        while _step(held):
            pass
    except LostLease:
        log.info("the run %s is somebody else's by now, or over", held.run.pk)
    except (DatabaseError, InterfaceError):
        # Nothing can be written down; once the lease has run out somebody goes on from the last step.
        log.exception("the run %s is let go of: the database failed", held.run.pk)
    except Exception:
        log.exception("working on the run %s failed", held.run.pk)
        with suppress(LostLease, DatabaseError, InterfaceError):
            ending.fail(held, "internal_error", "A fault in the console itself. Its log says more.")


def _step(held: Held) -> bool:
    """Whether to go on."""
    if held.cancelled.is_set():
        ending.cancelled(held)
        return False
    if held.lost.is_set():
        raise LostLease
    if held.hand_on_at is not None and time.monotonic() > held.hand_on_at:
        with fenced(
            held, state=Run.QUEUED, lease_until=None, began_at=None, left_ms=spent_ms(held), handed_at=None
        ):
            go_on(held.run.pk)
        return False
    following = next_of(held.steps)
    if isinstance(following, Answered):
        return _answered(held, following)
    if held.seconds_left <= 0:
        ending.fail(held, "out_of_time", f"It was not answered within {held.run.max_seconds} s of work.")
        return False
    if problem := _requester_problem(held.run):
        ending.fail(held, "requester_refused", problem)
        return False
    if isinstance(following, Calls):
        if len(following.left) > MOST_CALLS:
            message = (
                f"The model asked for {len(following.left)} calls at once; at most {MOST_CALLS} are made."
            )
            ending.fail(held, "too_many_calls", message, turn=following.turn)
            return False
        return carry_on(held, following)
    return _turn(held, following)


def _requester_problem(run: Run) -> str:
    """A key that is revoked, paused or too old starts nothing, and nothing goes on in its name either."""
    actor = actor_behind(run)
    if not powers_of_actor(actor).allow("run.start", run.project_id):
        return f"{actor.name}, who asked for this run, may not run anything in this project any more."
    if why := why_not_in_force(actor):
        return why
    if run.project.archived_at is not None:
        return f"The project {run.project.slug} is archived."
    return ""


# A turn of the model --------------------------------------------------------------------------------------------------


def _turn(held: Held, following: Ask) -> bool:
    run = held.run
    if following.turn > run.max_turns:
        ending.fail(
            held, "out_of_turns", f"It was not answered within {run.max_turns} turns.", turn=run.max_turns
        )
        return False
    left = _left(run)
    if left is not None and left <= 0:
        ending.fail(held, "out_of_money", _too_dear(run, left), turn=following.turn)
        return False
    try:
        _, secret = key_in_use(run.project)
    except Conflict as refused:
        ending.fail(held, refused.code, refused.message)
        return False
    # A turn that is asked again after its worker died is the same to the byte, and so is its key.
    key = key_of(run.pk, following.turn, following.again)
    question = held.question
    with closing(Saying(held, following.turn)) as saying:
        reply = ask(
            settings.GATEWAY_URL,
            body_of(question.asked, question.offered, run.model, run.prompt_version, held.steps),
            secret=secret,
            headers=_headers(run, question.asked, key, left),
            timeout_s=max(0.1, min(LONGEST_TURN_S, held.seconds_left)),
            line=held.line,
            heard=saying.heard,
        )
    if reply.code == STOPPED or held.lost.is_set():
        # Whoever it was that stopped this is looked for at the next step.
        return True
    if reply.message is None:
        _paid_in_vain(held, following, reply)
        return _refused(held, following, reply)
    tokens = tokens_of(reply.usage)
    step: dict[str, Any] = {
        "kind": TURN,
        "turn": following.turn,
        "what": reply.model,
        "outcome": written_out(reply.finish)[:40],
        "call_id": _uuid(reply.call),
        "input_tokens": tokens.input,
        "output_tokens": tokens.output,
        "cost_nano": reply.cost,
        "took_us": reply.took_us,
        "content": {"message": reply.message, "finish": reply.finish, "replayed": reply.replayed},
    }
    cost = reply.cost or 0
    change = {"turns": following.turn, "tries": 0, "cost_nano": F("cost_nano") + cost, "sealed_saying": ""}
    with fenced(held, **change) as steps:
        steps.append(step)
    run.cost_nano += cost
    return True


def _left(run: Run) -> int | None:
    """What the next turn may cost, in nanodollars; None: as much as it does. By the ledger as well as by what answers said: it knows
    what was paid for an answer that a worker died over, and what policies asked before a call was refused."""
    if run.max_cost_nano is None:
        return None
    return run.max_cost_nano - total(costs_by_turn([run])[run.pk].values())


def _paid_in_vain(held: Held, following: Ask, reply: Reply) -> None:
    """What brought no answer may have cost something: attempts that failed, and what policies asked. The same failure again does not."""
    call = _uuid(reply.call)
    if not reply.cost or call is None or Step.objects.filter(run=held.run, call_id=call).exists():
        return
    text = f"It brought no answer, and cost ${format_usd(reply.cost)}."
    with fenced(held, cost_nano=F("cost_nano") + reply.cost) as steps:
        told = {"call_id": call, "cost_nano": reply.cost}
        steps.append(note("paid", text, turn=following.turn, outcome=written_out(reply.code)[:60], **told))
    held.run.cost_nano += reply.cost


def _headers(run: Run, asked: Any, key: str, left: int | None) -> dict[str, str]:
    headers = {
        "x-llmops-feature": asked.feature or "runs",
        "x-llmops-session": str(run.pk),
        "x-request-id": key,
        "idempotency-key": key,
    }
    if asked.user:
        headers["x-llmops-user"] = asked.user
    if run.requested_by_kind == "service_key":
        # Its limits and budgets hold for what is done for it, and the call is recorded as its own.
        headers["x-llmops-for-key"] = run.requested_by_id
    if left is not None:
        headers["x-llmops-max-cost-nano"] = str(left)
    return {name: value.encode().decode("latin-1") for name, value in headers.items()}


def _refused(held: Held, following: Ask, reply: Reply) -> bool:
    run = held.run
    # A failure that may have been billed is given again under its key, however often one asks.
    spent = reply.code in SPENT or (reply.replayed and passes(reply.status, reply.code))
    if spent and following.again < _MOST_AGAIN:
        if reply.code in SPENT and not _known_by_the_ledger(run, following.turn):
            return _until_it_is_known(held, following, reply)
        with fenced(held) as steps:
            text = f"{reply.problem} It is asked again, under another key."
            steps.append(note(AGAIN, text, turn=following.turn, outcome=written_out(reply.code)[:60]))
        return True
    if reply.code == "cost_bound_exceeded":
        ending.fail(held, "out_of_money", _too_dear(run, _left(run) or 0), turn=following.turn)
        return False
    tries = run.tries + 1
    # A key that was made a moment ago may be unknown to a data plane; a refused key costs nothing.
    unknown = reply.status == 401 and tries <= TRIES
    if (unknown or passes(reply.status, reply.code)) and tries <= TRIES and not spent:
        wait = _HEARD_AGAIN_S * tries if unknown else back_off(tries, reply.retry_after)
        if wait < held.seconds_left:
            _later(held, following, reply, tries, wait)
            return wait <= 2.0 and not held.line.stopped.wait(wait)
    ending.fail(
        held,
        reply.code or "refused",
        reply.problem or f"The data plane answered {reply.status}.",
        param=_param(reply.param),
        turn=following.turn,
    )
    return False


def _known_by_the_ledger(run: Run, turn: int) -> bool:
    """Whether a turn whose answer is lost may be asked for again, which costs once more: within a bound, once the first cost is known."""
    return run.max_cost_nano is None or costs_by_turn([run])[run.pk][turn].untold


def _until_it_is_known(held: Held, following: Ask, reply: Reply) -> bool:
    tries = held.run.tries + 1
    wait = back_off(tries, reply.retry_after)
    if tries <= TRIES and wait < held.seconds_left:
        why = "Its answer is lost, and what it cost is not known yet."
        _later(held, following, replace(reply, problem=why), tries, wait)
        return wait <= 2.0 and not held.line.stopped.wait(wait)
    message = (
        f"The answer of turn {following.turn} is lost, and what it cost is not known, so nothing more can be asked within the run's "
        "bound. Whoever is on call finds out what keeps that data plane's journal from being read; then start the run again."
    )
    ending.fail(held, "cost_not_known", message, turn=following.turn)
    return False


def _too_dear(run: Run, left: int) -> str:
    left = max(0, left)
    return (
        f"The next turn may cost more than what is left of the bound: ${format_usd(left)} of ${format_usd(run.max_cost_nano or 0)}. "
        "Start it with a higher bounds.cost_nano, or a lower parameters.max_completion_tokens."
    )


def _later(held: Held, following: Ask, reply: Reply, tries: int, wait: float) -> None:
    """A short while is waited here; for a longer one no worker is held."""
    problem = reply.problem
    if reply.status == 401:
        problem = "A key that was made a moment ago is not known to the data plane yet."
    text = f"{problem} It is tried again in {wait:.1f} s."
    step = note("later", text, turn=following.turn, outcome=written_out(reply.code)[:60])
    if wait <= 2.0:
        with fenced(held, tries=tries) as steps:
            steps.append(step)
        return
    now = database_now()
    with fenced(
        held,
        tries=tries,
        state=Run.QUEUED,
        lease_until=None,
        began_at=None,
        left_ms=spent_ms(held),
        not_before=now + timedelta(seconds=wait),
        handed_at=None,
    ) as steps:
        steps.append(step)


def _param(name: str) -> str:
    """The data plane's name of a member, as the run's request has it."""
    return "output" if name.startswith("response_format") else name


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


# Its answer -----------------------------------------------------------------------------------------------------------


def _answered(held: Held, following: Answered) -> bool:
    asked, message = held.question.asked, following.message
    if refusal := message.get("refusal"):
        ending.fail(held, "refused", f"The model refused: {refusal}"[:1000], turn=following.turn)
        return False
    text, output = message.get("content") or "", None
    if asked.output is not None:
        output, problem = output_of(asked.output, text)
        if problem:
            if any(step.what == REPAIR for step in held.steps):
                message_ = f"The answer does not follow the output contract, also not after it was told so: {problem}"
                ending.fail(held, "output_invalid", message_, turn=following.turn)
                return False
            words = f"Your answer does not follow the required JSON Schema: {problem} Answer again, with nothing but JSON that follows it."
            with fenced(held) as steps:
                steps.append(note(REPAIR, words, turn=following.turn))
            return True
    ending.succeed(held, text=text, output=output, finish=following.finish)
    return False
