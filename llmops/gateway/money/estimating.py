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

if TYPE_CHECKING:
    from llmops.gateway.attempts.trial import Trial
    from llmops.gateway.call import Call
    from llmops.gateway.endpoints.base import Endpoint, Whole
    from llmops.gateway.streaming.events import Relay
    from llmops.usage.records import Tokens

#: No plain text has so many characters to a token; an answer with more of them is counted.
PLAIN = 16
#: What may stand in an answer beside text, in bytes, and characters too few to say anything.
SUSPICIOUS, _FEW = 1_024, 64
#: By how much an exact count must be above the provider's own figure, which another tokenizer made.
_TIMES, _MORE = 2, 16
#: Members by which a request asks a model to think, and values that ask it not to.
_THINKING = ("reasoning_effort", "reasoning", "thinking", "enable_thinking")
_NOT = (None, False, "", "none", "disabled", 0)


async def of_whole(call: Call, trial: Trial, endpoint: Endpoint, said: Whole, body: bytes) -> Tokens:
    """Tokens of an answer in one piece."""
    tokens = endpoint.usage(said.usage)
    if tokens is None:
        return await charging.count(call, trial, endpoint.text(body) if endpoint.has_output else "")
    if endpoint.has_output and len(body) > SUSPICIOUS + PLAIN * tokens.output:
        text = endpoint.text(body)
        return await _checked(call, trial, tokens, len(text), lambda: text)
    return tokens


async def of_stream(call: Call, trial: Trial, relay: Relay) -> Tokens:
    """Tokens of what a stream has brought so far, which is all of it when it is done."""
    tokens = call.endpoint.usage(relay.usage)
    if tokens is None:
        return await charging.count(call, trial, relay.text())
    if call.endpoint.has_output:
        return await _checked(call, trial, tokens, sum(map(len, relay.parts)), relay.text)
    return tokens


async def _checked(call: Call, trial: Trial, tokens: Tokens, length: int, text: Callable[[], str]) -> Tokens:
    """The usage as it is stated, unless the answer plainly holds more: then its output as it was counted."""
    if length <= _FEW + PLAIN * tokens.output or trial.holding.prices is None:
        return tokens
    model, said = trial.step.target.entry.upstream_model, text()
    try:
        counted = await call.plane.off_loop(lambda: count_text(said, model), size=length)
    except RuntimeError:
        return tokens
    if counted <= _MORE + _TIMES * tokens.output:
        return tokens
    trial.stated = charging.cost_of(trial, tokens)
    tokens.output, tokens.estimated = counted, True
    return tokens


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
