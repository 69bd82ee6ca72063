"""Policies on the way of a call: before it goes anywhere, and before anything of its answer goes out.

The pipeline calls ``before``, relaying ``whole``, ``watch`` and ``end_of_stream``; nothing else meets policies. A call whose
route has none never comes here. No text is ever kept: not in verdicts, errors or logs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from llmops.core.errors import AnswerBlocked, ApprovalRequired, ConsoleError, InvalidRequest, PolicyBlocked
from llmops.core.verdicts import (
    AFTER,
    BEFORE,
    BLOCK,
    REDACT,
    REQUIRE_APPROVAL,
    RETRY,
    Verdict,
)
from llmops.gateway.attempts.failures import MALFORMED, POLICY, Failure
from llmops.gateway.endpoints.base import Asked, Raw, decode_any, encode, member
from llmops.gateway.endpoints.making import AskedMedia, reworded
from llmops.gateway.policing.opinions import opinion
from llmops.gateway.policing.plain import plain_answers, plain_asked, spoken
from llmops.gateway.policing.state import Policing
from llmops.gateway.policing.texts import (
    Path,
    Place,
    answer_places,
    answers_of,
    asked_places,
    form_places,
    log_probabilities,
    refuse_twice,
    rewrite_members,
    rewritten,
    says_no_log_probabilities,
    schema_asked,
)
from llmops.gateway.policing.watching import watcher_of
from llmops.policies.checks import describe
from llmops.policies.checks.base import Answer, Text
from llmops.policies.checks.base import Asked as Texts
from llmops.policies.decisions import Decision, Placeholders
from llmops.policies.engine import Guard
from llmops.providers.pricing import AUDIO_OUT

if TYPE_CHECKING:
    from llmops.gateway.call import Call
    from llmops.gateway.routing import Resolution
    from llmops.gateway.streaming.events import Relay

Result = TypeVar("Result")

#: Larger texts are looked at beside the loop.
OFF_LOOP_BYTES = 16 * 1024
#: These show texts to a model that judges them; what it judges must not be judged before.
_EXEMPT = frozenset(("moderations",))
_MAX_NAMES = 3
#: Where the texts of answers stand; the rest of an answer is about it, not of it.
_ANSWERING = ("choices", "output", "text", "data", "segments")
#: Parts of a transcript with their times.
_TIMED = ("segments", "words")
_LOG_PROBABILITIES = ("logprobs", "top_logprobs")


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
    form = asked.form if isinstance(asked, AskedMedia) else None
    if guard.redacts or (guard.stops and asked.stream):
        _refuse_log_probabilities(asked, resolution)
        _refuse_sounds(asked, resolution)
    if asked.background and guard.after:
        raise InvalidRequest(
            "background: policies check the answers here, and an answer in the background would go past them. "
            "Ask without background.",
            param="background",
        )
    if guard.before:
        size = asked.size

        def work() -> tuple[list[Place], Decision]:
            plain = plain_asked(members) if form is None else None
            if plain is not None and guard.finds_nothing(*plain, state.placeholders):
                return [], Decision()
            if form is None:
                refuse_twice(members)
            places, messages = asked_places(members) if form is None else form_places(form)
            texts = [place.text for place in places]
            return places, guard.check_before(Texts(texts, messages), state.placeholders)

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
        refuse(decision)
        if decision.texts:
            changes = {
                place.path: decision.texts[place.text.where]
                for place in places
                if place.text.where in decision.texts
            }
            if isinstance(asked, AskedMedia):
                await run(call, size, lambda: reworded(call.endpoint, asked, changes))
            else:
                asked.size += await run(call, size, lambda: rewrite_members(members, changes))
    if guard.after:
        state.schema = schema_asked(members)


def _refuse_sounds(asked: Asked, resolution: Resolution) -> None:
    """An answer that is said aloud says what is taken out of its transcript. Raises ``InvalidRequest``."""
    if asked.units is not None:
        # Speech says what it was given, which was looked at.
        return
    asks = "audio" if asked.uses & AUDIO_OUT else ""
    if not asks and any("audio" in target.entry.parameters for target in resolution.everything()):
        asks = "model"
    if asks:
        raise InvalidRequest(
            f"{asks}: policies check the answers here, and a sound would tell what they take out. "
            f"{'Name a model without audio as a default.' if asks == 'model' else 'Ask for text alone.'}",
            param=asks,
        )


def _refuse_log_probabilities(asked: Asked, resolution: Resolution) -> None:
    """They tell each token of an answer, also those that a policy takes out. Raises ``InvalidRequest``."""
    asks = next((name for name in _LOG_PROBABILITIES if member(asked.members, name)), "")
    if not asks and isinstance(included := member(asked.members, "include"), list):
        asks = "include" if any("logprobs" in str(one) for one in included) else ""
    if not asks and isinstance(asked, AskedMedia) and asked.form is not None:
        fields = [part for part in asked.form.parts if part.name.startswith("include")]
        asks = next((part.name for part in fields if b"logprobs" in (part.value or b"logprobs")), "")
    if not asks and any("logprobs" in str(target.entry.parameters) for target in resolution.everything()):
        asks = "model"
    if asks:
        raise InvalidRequest(
            f"{asks}: policies check the answers here, and log probabilities would tell what they take out. "
            f"{'Name a model without them as a default.' if asks == 'model' else 'Ask without them.'}",
            param=asks,
        )


async def run(call: Call, size: int, work: Callable[[], Result]) -> Result:
    return work() if size <= OFF_LOOP_BYTES else await call.plane.off_loop(work, size=size)


def refuse(decision: Decision) -> None:
    """Raises ``PolicyBlocked`` or ``ApprovalRequired`` where one is decided."""
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


async def whole(call: Call, body: bytes, *, plain: bool = False) -> tuple[bytes, Failure | None]:
    """Check an answer in one piece: JSON, or ``plain`` text. Returns the bytes for the client, or a failure that asks for
    another attempt.

    When ``call.policing.error`` is set, nothing of the answer may go out.
    """
    state = call.policing
    assert state is not None
    if not state.looks_at_answers:
        return body, None
    guard = state.guard

    def texts() -> tuple[list[Place], list[Answer], Decision, bool]:
        usual = None if plain else plain_answers(body, state.schema)
        if usual is not None and guard.changes_nothing(
            "\n".join([one.text for one in usual]), state.placeholders
        ):
            return [], usual, Decision(), False
        value = {"text": body.decode()} if plain else decode_any(body)
        answer = value if isinstance(value, dict) else {}
        shown = {name: answer[name] for name in _ANSWERING if name in answer}
        places = answer_places(shown)
        decision = guard.check_texts([place.text for place in places], state.placeholders)
        timed = any(map(answer.get, _TIMED))
        if plain and (said := spoken(answer["text"])) is not None:
            across = guard.check_texts([Text("assistant", said, "text")], Placeholders())
            if _counted(across) > _counted(decision):
                # Something goes over two captions, and cannot be taken out of either.
                decision, timed = across, True
        return places, answers_of(answer, state.schema), decision, timed

    try:
        places, answers, decision, timed = await run(call, len(body), texts)
    except UnicodeDecodeError:
        return b"", Failure(MALFORMED, "the answer is not UTF-8 text", billed=None)
    if timed and "text" in decision.texts:
        state.add(decision.verdicts)
        state.error = _told_twice(decision)
        return b"", None
    if not guard.judges and not decision.verdicts and not decision.texts:
        return body, None
    await _judge(call, answers, decision, len(body))
    if (failure := await _settle_on(call, answers, decision)) is not None or state.error is not None:
        return b"", failure
    if decision.texts:
        if plain:
            return decision.texts["text"].encode(), None
        body = await run(call, len(body), lambda: changed(body, places, decision, guard))
    return body, None


def changed(body: bytes, places: Sequence[Place], decision: Decision, guard: Guard) -> bytes:
    """An answer with the texts that a decision put in the places of others; nothing else tells those."""
    changes: dict[Path, Any] = {
        place.path: decision.texts[place.text.where] for place in places if place.text.where in decision.texts
    }
    if guard.redacts and not says_no_log_probabilities(body):
        changes |= log_probabilities(decode_any(body))
    return rewritten(body, changes)


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


def _counted(decision: Decision) -> int:
    return sum(one.count for verdict in decision.verdicts for one in verdict.findings)


def _told_twice(decision: Decision) -> AnswerBlocked:
    """A transcript whose parts stand beside the whole, so that what is taken out of the one still stands in the other."""
    changed = next((one for one in decision.verdicts if one.action == REDACT), decision.verdicts[0])
    return AnswerBlocked(
        f"The policy {changed.policy!r} takes something out of this transcript ({found_by(changed)}), which its parts "
        "would still tell. The attempt was charged. Ask for the response_format json or text.",
        param="response_format",
        data={"policy": changed.policy, "version": changed.version, "check": changed.check},
    )


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
