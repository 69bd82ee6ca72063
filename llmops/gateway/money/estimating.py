"""What an answer is charged for when its usage is missing, or is plainly not true.

What was merely counted never costs more than the hold. Where a model may have thought in tokens that nobody shows, counting
what is shown would charge too little: then it is the hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmops.core.tokens import count_text
from llmops.gateway.endpoints.base import member
from llmops.gateway.money import charging
from llmops.gateway.policing.texts import asked_places

if TYPE_CHECKING:
    from llmops.gateway.attempts.trial import Trial
    from llmops.gateway.call import Call
    from llmops.gateway.endpoints.base import Endpoint, Members, Whole
    from llmops.gateway.streaming.events import Relay
    from llmops.usage.records import Tokens

#: No plain text has so many characters to a token; an answer with more of them is counted.
PLAIN = 16
#: What may stand in an answer beside text, in bytes, and characters too few to say anything.
SUSPICIOUS, FEW = 1_024, 64
#: By how much an exact count must be above the provider's own figure, which another tokenizer made.
TIMES, MORE = 2, 16
#: Members by which a request asks a model to think, and values that ask it not to.
_THINKING = ("reasoning_effort", "reasoning", "thinking", "enable_thinking")
_NOT = (None, False, "", "none", "disabled", 0)
#: Members whose texts are input, by endpoint, and what such texts are called within them.
_INPUT = {"chat.completions": ("messages",), "responses": ("instructions", "input"), "embeddings": ("input",)}
_COUNTED = frozenset(("input", "instructions", "content", "text", "output", "arguments"))


async def of_whole(call: Call, trial: Trial, endpoint: Endpoint, said: Whole, body: bytes) -> Tokens:
    """Tokens of an answer in one piece."""
    tokens = endpoint.usage(said.usage)
    if tokens is None:
        return await charging.count(call, trial, endpoint.text(body) if endpoint.has_output else "")
    if endpoint.has_output and len(body) > SUSPICIOUS + PLAIN * tokens.output:
        text = endpoint.text(body)
        await _check_output(call, trial, tokens, len(text), lambda: text)
    await _check_input(call, trial, tokens)
    return tokens


async def of_stream(call: Call, trial: Trial, relay: Relay) -> Tokens:
    """Tokens of what a stream has brought so far, which is all of it when it is done."""
    tokens = call.endpoint.usage(relay.usage)
    if tokens is None:
        return await charging.count(call, trial, relay.text())
    if call.endpoint.has_output:
        await _check_output(call, trial, tokens, sum(map(len, relay.parts)), relay.text)
    await _check_input(call, trial, tokens)
    return tokens


def understates(call: Call, tokens: Tokens) -> bool:
    """Whether a usage has so few input tokens that the request is looked at. Most are decided by their size."""
    asked = call.asked
    return asked is not None and asked.size > SUSPICIOUS + PLAIN * tokens.input


async def _check_input(call: Call, trial: Trial, tokens: Tokens) -> None:
    """The input as it is stated, unless the request plainly holds more: then what its texts come to."""
    asked, entry, names = call.asked, trial.step.target.entry, _INPUT.get(call.endpoint.name)
    if asked is None or not names or not understates(call, tokens) or trial.holding.prices is None:
        return
    members = {name: asked.members[name] for name in names if name in asked.members}
    try:
        # Whatever a model's window does not hold, a provider may have cut off.
        least = await call.plane.off_loop(
            lambda: least_input(members, entry.upstream_model, entry.context_window), size=asked.size
        )
    except RuntimeError:
        return
    if least <= MORE + TIMES * tokens.input:
        return
    _doubt(trial, tokens, charging.UNDERSTATED_INPUT)
    tokens.input = least


def least_input(members: Members, model: str, window: int) -> int:
    """Tokens that ``members`` have at the least: those of the texts that every provider counts, without images, sounds, or what
    the model once thought. One text to embed may come to ``window`` tokens, as all of a chat may."""
    texts: dict[str | int, list[str]] = {}
    for path, text in asked_places(members)[0]:
        if isinstance(path[-1], int) or path[-1] in _COUNTED:
            # Texts to embed are inputs of their own.
            texts.setdefault(path[1] if len(path) == 2 and isinstance(path[1], int) else "", []).append(
                text.text
            )
    return sum(min(count_text("\n".join(some), model), window) for some in texts.values())


def _doubt(trial: Trial, tokens: Tokens, why: str) -> None:
    if trial.stated is None:
        trial.stated = charging.cost_of(trial, tokens)
    trial.doubts.append(why)
    tokens.estimated = True


async def _check_output(
    call: Call, trial: Trial, tokens: Tokens, length: int, text: Callable[[], str]
) -> None:
    """The output as it is stated, unless the answer plainly holds more: then as it was counted."""
    if length <= FEW + PLAIN * tokens.output or trial.holding.prices is None:
        return
    model, said = trial.step.target.entry.upstream_model, text()
    try:
        counted = await call.plane.off_loop(lambda: count_text(said, model), size=length)
    except RuntimeError:
        return
    if counted <= MORE + TIMES * tokens.output:
        return
    _doubt(trial, tokens, charging.UNDERSTATED)
    tokens.output = counted


def hides(call: Call, trial: Trial, thought: bool) -> bool:
    """Whether the model may have thought in tokens that are billed and not shown.

    Its configuration or its name says so, an earlier answer did, this one shows a trace of it (``thought``), or the request
    asks for it.
    """
    target = trial.step.target
    if thought or target.reasons or target.slug in call.plane.thinking:
        return True
    return any(map(_asks, _wishes(call, target.entry.parameters)))


def _wishes(call: Call, defaults: Any) -> list[Any]:
    members = call.asked.members if call.asked is not None else {}
    return [
        member(members, name) if name in members else defaults[name]
        for name in _THINKING
        if name in members or name in defaults
    ]


def _asks(wish: Any) -> bool:
    if isinstance(wish, dict):
        return any(wish.get(name) not in _NOT for name in ("effort", "type", "max_tokens", "enabled"))
    return wish not in _NOT
