"""Policies on the way of a call: before it goes anywhere, and before anything of its answer goes out.

The pipeline calls ``before``, relaying ``whole``, ``watch`` and ``end_of_stream``; nothing else meets policies. A call whose
route has none never comes here. No text is ever kept: not in verdicts, errors or logs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from llmops.core.errors import AnswerBlocked, ApprovalRequired, ConsoleError, InvalidRequest, PolicyBlocked
from llmops.core.verdicts import (
    AFTER,
    ALLOW,
    BEFORE,
    BLOCK,
    MAX_VERDICTS,
    REQUIRE_APPROVAL,
    RETRY,
    Finding,
    Verdict,
)
from llmops.gateway.endpoints.base import Raw, decode_any, encode
from llmops.gateway.failures import POLICY, Failure
from llmops.gateway.policing_streams import Watcher, watcher_of
from llmops.gateway.texts import (
    Place,
    answer_places,
    answers_of,
    asked_places,
    rewrite_members,
    rewritten,
    schema_asked,
)
from llmops.policies.checks import describe
from llmops.policies.checks.base import Answer, Asked, Remote
from llmops.policies.engine import Decision, Guard, Placeholders, Rule

if TYPE_CHECKING:
    from llmops.gateway.call import Call, Message
    from llmops.gateway.streaming import Relay

Result = TypeVar("Result")

#: Larger texts are looked at beside the loop.
OFF_LOOP_BYTES = 16 * 1024
#: In the scope of a call that the console itself makes for a policy: no policy looks at that one.
INNER = "llmops.inner"
#: These show texts to a model that judges them; what it judges must not be judged before.
_EXEMPT = frozenset(("moderations",))
_MAX_NAMES = 3
_MODERATIONS = "/v1/moderations"


class Policing:
    """What policies know about one call; in memory for as long as the call lasts."""

    __slots__ = ("error", "guard", "placeholders", "retries", "schema", "verdicts", "watcher")

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.placeholders = Placeholders()
        self.verdicts: list[Verdict] = []
        #: attempts that were made again because of a policy
        self.retries = 0
        #: why the answer may not go out
        self.error: ConsoleError | None = None
        self.schema: Any = None
        self.watcher: Watcher | None = None

    @property
    def looks_at_answers(self) -> bool:
        return bool(self.guard.after) or bool(self.placeholders.values)

    def add(self, verdicts: Sequence[Verdict]) -> None:
        self.verdicts += verdicts
        if len(self.verdicts) > MAX_VERDICTS:
            # The last ones decided.
            del self.verdicts[:-MAX_VERDICTS]

    def told(self) -> list[Verdict]:
        """All verdicts, those about a stream that is not over included."""
        if self.watcher is not None:
            self.add(self.watcher.decision().verdicts)
            self.watcher = None
        return self.verdicts


# ---------------------------------------------------------------------- before


async def before(call: Call) -> None:
    """Check what is asked, and redact it. Raises ``PolicyBlocked`` or ``ApprovalRequired``."""
    asked, resolution = call.asked, call.resolution
    assert asked is not None and resolution is not None and resolution.guard is not None
    if call.endpoint.name in _EXEMPT:
        return
    guard = resolution.guard
    state = call.policing = Policing(guard)
    members = asked.members
    if asked.background and guard.after:
        raise InvalidRequest(
            "background: policies check the answers here, and an answer in the background would go past them. "
            "Ask without background.",
            param="background",
        )
    if guard.before:
        size = asked.size

        def work() -> tuple[list[Place], Decision]:
            places, messages = asked_places(members)
            texts = [place.text for place in places]
            return places, guard.check_before(Asked(texts, messages), state.placeholders)

        try:
            places, decision = await run(call, size, work)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidRequest(
                "The texts of the request cannot be read: not valid JSON, or nested too deeply."
            ) from None
        if decision.action != BLOCK:
            for rule in guard.remote(BEFORE):
                texts = [
                    decision.texts.get(place.text.where, place.text.text)
                    for place in places
                    if place.text.role in rule.check.settings.roles
                ]
                if verdict := await opinion(call, rule, texts):
                    decision.add(verdict)
        state.add(decision.verdicts)
        _refuse(decision)
        if decision.texts:
            changes = {
                place.path: decision.texts[place.text.where]
                for place in places
                if place.text.where in decision.texts
            }
            asked.size += await run(call, size, lambda: rewrite_members(members, changes))
    if guard.after:
        state.schema = schema_asked(members)


async def run(call: Call, size: int, work: Callable[[], Result]) -> Result:
    return work() if size <= OFF_LOOP_BYTES else await call.plane.off_loop(work)


def _refuse(decision: Decision) -> None:
    if decision.action not in (REQUIRE_APPROVAL, BLOCK):
        return
    verdict = decision.deciding
    found = found_by(verdict)
    param = next((one.where for one in verdict.findings if one.where), None)
    if decision.action == BLOCK:
        raise PolicyBlocked(
            f"The policy {verdict.policy!r} does not let this request pass: {found}. Take that out and send it again.",
            param=param,
            data={"policy": verdict.policy, "version": verdict.version, "check": verdict.check},
        )
    raise ApprovalRequired(
        f"The policy {verdict.policy!r} asks that a person approves this request first: {found}. "
        "Ask whoever operates this console.",
        param=param,
        data={"policy": verdict.policy, "version": verdict.version, "check": verdict.check},
    )


def found_by(verdict: Verdict) -> str:
    """What a verdict is about, by the names of its rules."""
    names = list(dict.fromkeys(one.name.replace("_", " ") for one in verdict.findings))
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    what = f" ({', '.join(names[:_MAX_NAMES])}{more})" if names else ""
    return f"{describe(verdict.check).title.lower()}{what}"


# ---------------------------------------------------------------------- after


async def whole(call: Call, body: bytes) -> tuple[bytes, Failure | None]:
    """Check an answer in one piece. Returns the bytes for the client, or a failure that asks for another attempt.

    When ``call.policing.error`` is set, nothing of the answer may go out.
    """
    state = call.policing
    assert state is not None
    if not state.looks_at_answers:
        return body, None
    guard = state.guard

    def texts() -> tuple[list[Place], list[Answer], Decision]:
        value = decode_any(body)
        answer = value if isinstance(value, dict) else {}
        # Where the texts of answers stand; the rest of an answer is about it, not of it.
        shown = {name: answer[name] for name in ("choices", "output", "text", "data") if name in answer}
        places = answer_places(shown)
        decision = guard.check_texts([place.text for place in places], state.placeholders)
        return places, answers_of(answer, state.schema), decision

    places, answers, decision = await run(call, len(body), texts)
    await _judge(call, answers, decision, len(body))
    if (failure := await _settle_on(call, answers, decision)) is not None or state.error is not None:
        return b"", failure
    if decision.texts:
        changes = {
            place.path: decision.texts[place.text.where]
            for place in places
            if place.text.where in decision.texts
        }
        body = await run(call, len(body), lambda: rewritten(body, changes))
    return body, None


async def _judge(call: Call, answers: Sequence[Answer], decision: Decision, size: int) -> None:
    """Whole answers: what each check says, and what moderation models say."""
    state, plan = call.policing, call.plan
    assert state is not None and plan is not None
    # Where no attempt is left, what would be tried again is decided now.
    last = not plan.room(time.monotonic())
    if decision.action == BLOCK:
        return
    await run(call, size, lambda: state.guard.check_answers(answers, state.retries, decision, last=last))
    for rule in state.guard.remote(AFTER):
        if decision.action in (BLOCK, RETRY):
            return
        texts = [answer.text for answer in answers if answer.text]
        if verdict := await opinion(call, rule, texts):
            decision.add(verdict)


async def _settle_on(call: Call, answers: Sequence[Answer], decision: Decision) -> Failure | None:
    """Keep the verdicts and act on them."""
    state = call.policing
    assert state is not None
    state.add(decision.verdicts)
    if decision.action == RETRY:
        verdict = decision.deciding
        state.retries += 1
        if decision.advice and answers:
            advise(call, answers[0].text, decision.advice)
        return Failure(POLICY, f"the policy {verdict.policy!r} refused the answer", status=200)
    if decision.action == BLOCK:
        state.error = blocked(decision.deciding)
    return None


def blocked(verdict: Verdict) -> AnswerBlocked:
    return AnswerBlocked(
        f"The policy {verdict.policy!r} does not let the answer pass: {found_by(verdict)}. The attempt was charged.",
        data={"policy": verdict.policy, "version": verdict.version, "check": verdict.check},
    )


def advise(call: Call, answer: str, advice: str) -> None:
    """Show the model its own answer and what is wrong with it, at the end of what it is asked next."""
    asked = call.asked
    assert asked is not None
    for name in ("messages", "input"):
        raw = asked.members.get(name)
        if raw is None:
            continue
        value = decode_any(raw)
        if isinstance(value, str):
            before: list[Any] = [{"role": "user", "content": value}]
            kept = [Raw(encode(one)) for one in before]
        else:
            kept = msgspec.json.decode(raw, type=list[Raw])
        said = [{"role": "assistant", "content": answer}, {"role": "user", "content": advice}]
        after = encode([*kept, *said])
        asked.size += len(after) - len(bytes(raw))
        # The request as it came may be shared with whoever took its digest.
        asked.members = {**asked.members, name: Raw(after)}
        return


# ---------------------------------------------------------------------- streams


def watch(call: Call, relay: Relay) -> None:
    """Look at every event of a stream before it goes out."""
    state = call.policing
    assert state is not None
    state.error = None
    state.watcher = None
    if state.looks_at_answers:
        state.watcher = relay.guard = watcher_of(call.endpoint.name, state.guard, state.placeholders)


async def end_of_stream(call: Call) -> Failure | None:
    """The provider's stream is whole: judge it before its last event goes out. A failure asks for another attempt; when
    ``call.policing.error`` is set, the last event must not go out."""
    state = call.policing
    assert state is not None
    if state.watcher is None:
        return None
    decision = state.watcher.decision()
    answers = state.watcher.answers(state.schema)
    state.watcher = None
    size = sum(len(one.text) for one in answers)
    await _judge(call, answers, decision, size)
    return await _settle_on(call, answers, decision)


def stopped(call: Call) -> ConsoleError | None:
    """Why a stream broke off because of a policy; None when it did not."""
    state = call.policing
    assert state is not None
    if state.watcher is not None and state.watcher.blocked:
        decision = state.watcher.decision()
        state.add(decision.verdicts)
        state.watcher = None
        state.error = blocked(decision.deciding)
    return state.error


# ---------------------------------------------------------------------- another model's opinion


async def opinion(call: Call, rule: Rule, texts: Sequence[str]) -> Verdict | None:
    """Ask a moderation model, as the same service key: that call has a budget, a price and a record of its own."""
    check = rule.check
    assert isinstance(check, Remote)
    texts = [one for one in texts if one.strip()]
    if not texts:
        return None
    settings = check.settings
    try:
        async with asyncio.timeout(settings.timeout_s):
            said = await _ask(call, {"model": settings.model, "input": texts})
        findings = check.judge_opinion(said)
    except (TimeoutError, ValueError):
        unknown = [Finding("no opinion")]
        if settings.on_failure == "open":
            return rule.verdict(ALLOW, unknown, f"{settings.model} did not answer: let through")
        return rule.verdict(check.action, unknown, f"{settings.model} did not answer")
    return rule.verdict(check.action, findings) if findings else None


_PASSED_ON = (b"authorization", b"x-llmops-feature", b"x-llmops-user", b"x-llmops-session", b"x-llmops-tags")


async def _ask(call: Call, asked: dict[str, Any]) -> Any:
    """The data plane's own road, from inside. Raises ``ValueError`` for any answer but a good one."""
    # The road leads through here: who knows all addresses imports this file.
    from llmops.gateway.app import ORDINARY
    from llmops.gateway.pipeline import serve

    endpoint = ORDINARY.get(_MODERATIONS)
    if endpoint is None:
        raise ValueError("there is no such endpoint")
    body = encode(asked)
    inbox = [{"type": "http.request", "body": body, "more_body": False}]
    told: list[Message] = []
    headers = [(name, call.headers[name]) for name in _PASSED_ON if name in call.headers]
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    async def receive() -> Message:
        if inbox:
            return inbox.pop()
        # Nobody hangs up; whoever has waited long enough cancels.
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        told.append(message)

    scope = {"type": "http", "method": "POST", "path": _MODERATIONS, "headers": headers, INNER: call.id}
    # A task of its own: who hangs up is noticed by the task.
    await asyncio.create_task(serve(call.plane, endpoint, scope, receive, send))
    if not told or told[0].get("status") != 200:
        raise ValueError("no good answer")
    return decode_any(b"".join(message.get("body", b"") for message in told[1:]))
