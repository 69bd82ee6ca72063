"""Calls of tools: proposed as actions, carried out at once where nobody need agree, waited for where somebody must.

The model proposes and the application decides. Arguments are read as text, checked against the schema of the tool and classified by
its rules (``llmops.tools``); an action is bound to this run and to whoever asked for it, and carried out once. A proposal and the
step that tells of it are one transaction, so whoever follows a worker that died finds both or neither.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from django.db import connections

from llmops.core.appearance import written_out
from llmops.core.errors import ConsoleError, InvalidRequest
from llmops.runs.conversation import CALL, RESULT, Calls, Wanted, problem_shown, shown
from llmops.runs.models import Run
from llmops.runs.selectors import GOING_ON, actor_behind, with_open_actions
from llmops.runs.services import ending
from llmops.runs.services.leasing import Held, fenced, note, spent_ms
from llmops.runs.services.waking import go_on
from llmops.tools.models import Action
from llmops.tools.rules import CONSOLE
from llmops.tools.services import execute, propose

#: So many are carried out at once by one run; each tool bounds itself as well.
AT_ONCE = 8
#: What another worker carries out is looked at so often, for so long, before the run waits without a worker.
_LOOK_S, _PATIENCE_S = 0.05, 1.0
_REPAIR = "Call it once more, with arguments that follow its schema."


def carry_on(held: Held, calls: Calls) -> bool:
    """Whether to go on at once: every call of the turn has its result, or the run was ended."""
    proposed = {
        step.place: step.action for step in held.steps if step.kind == CALL and step.turn == calls.turn
    }
    for wanted in calls.left:
        if held.cancelled.is_set():
            return True
        if wanted.place not in proposed and not _propose(held, calls.turn, wanted):
            return False
    return _results(held, calls)


# Proposing ------------------------------------------------------------------------------------------------------------


def _propose(held: Held, turn: int, wanted: Wanted) -> bool:
    """Make an action of it, or tell the model why not. False: the run was ended."""
    run = held.run
    content: dict[str, Any] = {"id": wanted.id, "arguments": wanted.arguments}
    try:
        with fenced(held) as steps:
            if wanted.tool not in run.tools:
                raise _NoSuchTool
            action = propose(
                actor_behind(run),
                project=run.project,
                tool=wanted.tool,
                arguments=_read(wanted.arguments),
                reason=f"A model asked for this in turn {turn} of a run.",
                run=str(run.pk),
                behalf_of=run.behalf_of,
                idempotency_key=f"run-{run.pk}-{turn}-{wanted.place}",
                carries_out=True,
            )
            content |= {"says": action.says, "risk": action.risk, "because": action.risk_rule}
            steps.append(_call(turn, wanted, content, action=action, outcome=action.risk))
    except _NoSuchTool:
        message = "There is no such tool in this run."
        _told_why_not(held, turn, wanted, content, "no_such_tool", message)
    except InvalidRequest as refused:
        if any(
            step.kind == RESULT
            and step.what == wanted.tool
            and step.content.get("code") == "invalid_arguments"
            for step in held.steps
            if step.turn < turn
        ):
            ending.fail(
                held,
                "arguments_invalid",
                f"The arguments of {wanted.tool} do not follow its schema, also not after the model was told so: {refused.message}",
                param=refused.param or "",
                turn=turn,
            )
            return False
        _told_why_not(held, turn, wanted, content, "invalid_arguments", f"{refused.message} {_REPAIR}")
    except ConsoleError as refused:
        _told_why_not(held, turn, wanted, content, refused.code, refused.message)
    return True


class _NoSuchTool(Exception):
    pass


def _call(turn: int, wanted: Wanted, content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "kind": CALL, "turn": turn, "place": wanted.place, "what": written_out(wanted.tool)[:200], "content": content, **more,
    }  # fmt: skip


def _told_why_not(
    held: Held, turn: int, wanted: Wanted, content: dict[str, Any], code: str, message: str
) -> None:
    told = {"id": wanted.id, "content": problem_shown(code, message), "code": code}
    with fenced(held) as steps:
        steps.append(_call(turn, wanted, content, outcome=code[:60]))
        steps.append(_result(turn, wanted, told, outcome=code[:60]))


def _read(text: str) -> Any:
    """What a model wrote: JSON, in which nothing is said twice. Nothing at all is no arguments."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a member is given twice")
        return found

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(text or "{}", object_pairs_hook=once, parse_constant=constant)
    except (ValueError, RecursionError) as wrong:
        raise InvalidRequest(f"arguments: this is not JSON: {str(wrong)[:200]}.", param="arguments") from None


# What comes of it -----------------------------------------------------------------------------------------------------


def _results(held: Held, calls: Calls) -> bool:
    actions = _actions_of(held, calls)
    _carry_out(held, [one for one in actions.values() if _runs_here(one)])
    until = time.monotonic() + _PATIENCE_S
    while True:
        actions = _actions_of(held, calls)
        _write_down(held, calls, actions)
        left = [one for one in _actions_of(held, calls).values() if one.state in GOING_ON]
        if not left or held.cancelled.is_set():
            return True
        under_way = all(one.state != Action.WAITING and _runs_here(one, begun=True) for one in left)
        if not under_way or time.monotonic() > until or held.seconds_left <= 0:
            park(held, calls.turn, left)
            return False
        time.sleep(_LOOK_S)


def _actions_of(held: Held, calls: Calls) -> dict[int, Action]:
    """The action of each call of the turn that has no result; where it was replaced, the one that stands in its place."""
    done = {step.place for step in held.steps if step.kind == RESULT and step.turn == calls.turn}
    ids = {
        step.place: UUID(step.action)
        for step in held.steps
        if step.kind == CALL and step.turn == calls.turn and step.action and step.place not in done
    }
    rows = Action.objects.select_related("version", "tool", "superseded_by").in_bulk(list(ids.values()))
    return {place: rows[pk] for place, pk in ids.items()}


def _runs_here(action: Action, *, begun: bool = False) -> bool:
    """Whether the console carries it out, and nobody need agree any more."""
    states = (Action.APPROVED, Action.CLAIMED) if begun else (Action.APPROVED,)
    return (
        action.state in states
        and action.version.definition["execution"] == CONSOLE
        and action.tool.paused_at is None
    )


def _carry_out(held: Held, actions: Sequence[Action]) -> None:
    """At once, and no longer than the run has time: what goes on then is waited for without a worker."""
    quick = all(one.version.definition["timeout_s"] < held.seconds_left for one in actions)
    if quick and min(AT_ONCE, len(actions)) <= 1:
        for action in actions:
            execute(action.pk)
        return
    left = list(reversed(actions))
    lock = threading.Lock()

    def work() -> None:
        try:
            while True:
                with lock:
                    if not left or held.cancelled.is_set() or held.lost.is_set():
                        return
                    action = left.pop()
                execute(action.pk)
        finally:
            connections.close_all()

    threads = [
        threading.Thread(target=work, name=f"run {held.run.pk}", daemon=True)
        for _ in range(min(AT_ONCE, len(actions)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and held.seconds_left > 0 and not held.cancelled.is_set():
            thread.join(min(0.2, max(0.01, held.seconds_left)))


def _write_down(held: Held, calls: Calls, actions: dict[int, Action]) -> None:
    wanted = {one.place: one for one in calls.left}
    for place, action in sorted(actions.items()):
        if action.state == Action.SUPERSEDED:
            _replaced(held, calls.turn, wanted[place], action)
        elif action.state not in GOING_ON:
            took = (
                action.finished_at - action.claimed_at if action.finished_at and action.claimed_at else None
            )
            told = {"id": wanted[place].id, "content": _told_to_the_model(action)}
            with fenced(held) as steps:
                steps.append(
                    _result(
                        calls.turn,
                        wanted[place],
                        told,
                        action=action,
                        outcome=action.state,
                        took_us=int(took.total_seconds() * 1_000_000) if took else None,
                    )
                )


def _replaced(held: Held, turn: int, wanted: Wanted, action: Action) -> None:
    """Somebody proposed other arguments in its place: the run waits for those."""
    later = action.superseded_by
    content = {
        "id": wanted.id,
        "arguments": later.arguments,
        "says": later.says,
        "risk": later.risk,
        "because": later.risk_rule,
        "replaces": str(action.pk),
    }
    with fenced(held) as steps:
        steps.append(_call(turn, wanted, content, action=later, outcome=later.risk))


def _result(turn: int, wanted: Wanted, told: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "kind": RESULT, "turn": turn, "place": wanted.place, "what": written_out(wanted.tool)[:200], "content": told, **more,
    }  # fmt: skip


def _told_to_the_model(action: Action) -> str:
    if action.state == Action.SUCCEEDED:
        edited = action.supersedes_id is not None
        told = action.result if action.result is not None else {"done": True, "message": action.message}
        if not edited:
            return shown(told)
        return shown({"result": told, "note": "A person changed the arguments.", "arguments": action.given})
    words = {
        Action.FAILED: "It failed.",
        Action.UNKNOWN: "Nobody knows whether it happened. A person will find out. Do not ask for it again.",
        Action.REJECTED: "A person rejected it. It was not done. Do not ask for it again.",
        Action.EXPIRED: "Nobody agreed to it in time. It was not done.",
        Action.CANCELLED: "It was taken back. It was not done.",
    }[action.state]
    why = action.message or _reason_of(action)
    return problem_shown(action.state, f"{words} {why}".strip()[:2000])


def _reason_of(action: Action) -> str:
    if action.state != Action.REJECTED or action.request is None:
        return ""
    said = action.request.decisions.filter(approves=False).values_list("reason", flat=True).first()
    return f"The reason: {said}" if said else ""


def park(held: Held, turn: int, actions: Iterable[Action]) -> None:
    """Wait without a worker. Whoever ends one of these actions, or looks after what lies about, has the run go on."""
    names = ", ".join(dict.fromkeys(one.tool.slug for one in actions))
    run = held.run
    with fenced(
        held, state=Run.PARKED, lease_until=None, began_at=None, left_ms=spent_ms(held), handed_at=None
    ) as steps:
        steps.append(note("parked", f"It waits for {names}.", turn=turn))
    # What ended between the look and the waiting told nobody.
    if not Run.objects.filter(with_open_actions(), pk=run.pk).exists():
        go_on(run.pk)
