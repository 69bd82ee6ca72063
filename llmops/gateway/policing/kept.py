"""Policies on answers that a provider keeps and a client reads again: what goes out is what the policies of today let pass.

The provider keeps what its model said. An answer that was redacted, or stopped, when it was made would otherwise come out
here as it was. What the model was told is not looked at: it left this place, redacted, when the call was made. Values that
were taken out reversibly were kept for that call only; here their placeholders stand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmops.core.errors import AnswerBlocked, UnprocessableEntity, UpstreamError
from llmops.core.verdicts import AFTER, ALLOW, BLOCK, RETRY
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import decode_any
from llmops.gateway.forwarding.errands import Fetched
from llmops.gateway.kept.background import RUNNING
from llmops.gateway.kept.owners import CHAT, Owner
from llmops.gateway.kept.places import Place
from llmops.gateway.policing.calls import changed, found_by, run
from llmops.gateway.policing.opinions import opinion
from llmops.gateway.policing.state import Policing
from llmops.gateway.policing.texts import Place as TextPlace
from llmops.gateway.policing.texts import answer_places, answers_of
from llmops.policies.checks.base import Answer
from llmops.policies.decisions import Decision
from llmops.policies.engine import Guard

#: Who speaks in what a model was told.
_TELLING = frozenset(("system", "developer", "user", "tool", "function"))
#: States of a response that says nothing which could be judged as a whole.
_NO_ANSWER = RUNNING | {"failed", "cancelled"}


async def check(call: Call, place: Place, owner: Owner, fetched: Fetched) -> None:
    """Check a kept answer, or a page of messages or items of one, and redact it. Raises ``AnswerBlocked``."""
    guard = _guard(call, owner)
    if guard is not None:
        fetched.body = await _checked(call, guard, fetched.body, "")


async def check_item(call: Call, place: Place, item: bytes, item_id: str) -> bytes | None:
    """The same for one answer of a list."""
    assert call.key is not None
    if not call.view.snapshot.policies:
        return None
    guard = _guard(call, await call.plane.objects.owner(CHAT, item_id, call.key.project_id))
    return await _checked(call, guard, item, item_id) if guard is not None else None


def check_stream(call: Call, owner: Owner) -> None:
    """Events may begin anywhere in an answer, so they cannot be judged. Raises ``UnprocessableEntity``."""
    guard = _guard(call, owner)
    if guard is not None and any(rule.check.action != ALLOW for rule in guard.after):
        raise UnprocessableEntity(
            "stream: policies check the answers here, and one that is told again cannot be checked. "
            "Retrieve the response without stream.",
            param="stream",
        )


def _guard(call: Call, owner: Owner) -> Guard | None:
    guard = call.view.guard_of_kept(owner.model)
    return guard if guard is not None and guard.after else None


async def _checked(call: Call, guard: Guard, body: bytes, listed: str) -> bytes:
    """The bytes for the client. ``listed``: the id of an answer in a list."""
    state = call.policing = call.policing or Policing(guard)

    def look() -> tuple[list[TextPlace], list[Answer], Decision]:
        value = decode_any(body)
        answer = value if isinstance(value, Mapping) else {}
        places = answer_places(_said(answer))
        decision = guard.check_texts([place.text for place in places], state.placeholders)
        answers = [] if answer.get("status") in _NO_ANSWER else answers_of(answer, None)
        if decision.action != BLOCK and answers:
            guard.check_answers(answers, 0, decision, last=True)
        return places, answers, decision

    try:
        places, answers, decision = await run(call, len(body), look)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamError("What the provider keeps cannot be read, so policies cannot check it.") from None
    texts = [answer.text for answer in answers if answer.text] or [place.text.text for place in places]
    for rule in guard.remote(AFTER):
        if decision.action in (BLOCK, RETRY):
            break
        if verdict := await opinion(call, rule, texts):
            decision.add(verdict)
    state.add(decision.verdicts)
    if decision.action in (BLOCK, RETRY):
        raise _blocked(decision, listed)
    if not decision.texts:
        return body
    return await run(call, len(body), lambda: changed(body, places, decision, guard))


def _said(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Of an answer or a page of one, what the model said, each text where it stands."""
    shown = {name: answer[name] for name in ("choices", "output") if name in answer}
    items = answer.get("data")
    if isinstance(items, list):
        shown["data"] = [one if _is_said(one) else None for one in items]
    return shown


def _is_said(item: Any) -> bool:
    if not isinstance(item, Mapping):
        return False
    return item.get("role") not in _TELLING and not str(item.get("type", "")).endswith("_output")


def _blocked(decision: Decision, listed: str) -> AnswerBlocked:
    verdict = decision.deciding
    what, then = "this answer, which the provider keeps,", "It can still be deleted."
    if listed:
        what = f"the answer {listed!r} of this list"
        then = f"Delete it, or list what follows it with after={listed}."
    return AnswerBlocked(
        f"The policy {verdict.policy!r} does not let {what} pass: {found_by(verdict)}. {then}",
        param=next((one.where for one in verdict.findings if one.where), None),
        data={"policy": verdict.policy, "version": verdict.version, "check": verdict.check},
    )
