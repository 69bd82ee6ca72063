"""What the simulator answers, before any wire format: choices made of small pieces, and true counts of their tokens."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from llmops.simulator import text
from llmops.simulator.behaviour import Behaviour
from llmops.simulator.catalogue import Profile
from llmops.simulator.counting import counted, truncated
from llmops.simulator.ledger import Usage
from llmops.simulator.schema import minimal

_SLICE = 6
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Tool(NamedTuple):
    name: str
    parameters: Any


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A question in no dialect. ``prompt`` is everything that decides the answer, as bytes.

    ``tool_choice``: ``none``, ``auto``, ``required`` or the name of a tool. ``schema``: a JSON Schema, ``{}`` for any
    JSON object, ``None`` for text. ``max_tokens`` is for each choice, as OpenAI has it.
    """

    prompt: bytes
    prompt_tokens: int
    last: str
    last_role: str
    #: turns of the conversation in which tools were called
    tool_turns: int = 0
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    choices: int = 1
    stop: tuple[str, ...] = ()


class Delta(NamedTuple):
    """A piece of a choice: ``text``, ``refusal``, ``call`` (a tool call begins; the text is its name), ``arguments``."""

    kind: str
    text: str
    call: int = 0
    id: str = ""


class Prose(Sequence[Delta]):
    """The pieces of a text, made into deltas when they are looked at: an answer in one piece never looks."""

    __slots__ = ("_kind", "_pieces")

    def __init__(self, kind: str, pieces: list[str]) -> None:
        self._kind = kind
        self._pieces = pieces

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Prose(self._kind, self._pieces[index])
        return Delta(self._kind, self._pieces[index])


class ToolCall(NamedTuple):
    id: str
    name: str
    arguments: str


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """``finish`` in chat's words: stop, length, tool_calls, content_filter. ``plain``: one token a piece."""

    deltas: Sequence[Delta]
    finish: str
    plain: bool
    text: str | None = None
    refusal: str | None = None
    calls: tuple[ToolCall, ...] = ()

    def tokens(self, pieces: int) -> int:
        """The tokens of the first ``pieces`` pieces, counted the way the whole is."""
        if self.plain:
            return min(pieces, len(self.deltas))
        shown: dict[tuple[bool, int], str] = {}
        for delta in self.deltas[:pieces]:
            key = (delta.kind == "call", delta.call)
            shown[key] = shown.get(key, "") + delta.text
        return sum(counted(part) for part in shown.values())


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    choices: list[Choice]
    prompt_tokens: int
    cached: int
    cache_write: int
    reasoning: int

    @property
    def pieces(self) -> int:
        return sum(len(choice.deltas) for choice in self.choices)

    def order(self) -> list[tuple[int, Delta]]:
        """All pieces with the number of their choice, the choices taking turns as they do in a stream."""
        if len(self.choices) == 1:
            return [(0, delta) for delta in self.choices[0].deltas]
        longest = max(len(choice.deltas) for choice in self.choices)
        return [
            (index, choice.deltas[turn])
            for turn in range(longest)
            for index, choice in enumerate(self.choices)
            if turn < len(choice.deltas)
        ]

    def usage(self, pieces: int | None = None) -> Usage:
        """What was used by the time ``pieces`` pieces were out (default: all); nothing is thought before the first."""
        if pieces is None:
            pieces = self.pieces
            done = [len(choice.deltas) for choice in self.choices]
            thought = self.reasoning * len(self.choices)
        else:
            done = [0] * len(self.choices)
            for index, _ in self.order()[:pieces]:
                done[index] += 1
            thought = self.reasoning * len(self.choices) if pieces else 0
        completion = sum(choice.tokens(count) for choice, count in zip(self.choices, done, strict=True))
        return Usage(
            prompt=self.prompt_tokens,
            completion=completion + thought,
            cached=self.cached,
            cache_write=self.cache_write,
            reasoning=thought,
        )


def seed_of(ask: Ask, base: str) -> int:
    return int.from_bytes(blake2b(ask.prompt + base.encode(), digest_size=8).digest(), "big")


def answer(ask: Ask, behaviour: Behaviour, profile: Profile) -> Answer:
    """Deterministic: the same prompt, tools, seed and model name without modifiers give the same answer."""
    seed = seed_of(ask, behaviour.base)
    reasoning = profile.reasoning if behaviour.reasoning is None else behaviour.reasoning
    left = ask.max_tokens
    if left is not None:
        reasoning = min(reasoning, left)
        left -= reasoning
    return Answer(
        choices=[_choice(ask, behaviour, seed + index, left) for index in range(ask.choices)],
        prompt_tokens=ask.prompt_tokens,
        cached=min(behaviour.cached, ask.prompt_tokens),
        cache_write=min(behaviour.cache_write, ask.prompt_tokens),
        reasoning=reasoning,
    )


def _choice(ask: Ask, behaviour: Behaviour, seed: int, limit: int | None) -> Choice:
    if behaviour.fault.refusal:
        return _prose(list(text.REFUSAL), "refusal", limit, ())
    called = _called(ask, behaviour)
    if called:
        return _calls(called, seed, limit)
    if ask.schema is not None:
        return _json(ask.schema, seed, limit)
    pieces = text.words(seed, behaviour.tokens)
    if behaviour.fault.content_filter:
        return _prose(pieces[: len(pieces) // 2], "text", limit, ask.stop, finish="content_filter")
    return _prose(pieces, "text", limit, ask.stop)


def _called(ask: Ask, behaviour: Behaviour) -> list[Tool]:
    """Which tools are called: by the model's name, by ``tool_choice``, or because the last message names one."""
    if not ask.tools or ask.tool_choice == "none":
        return []
    by_name = {tool.name: tool for tool in ask.tools}
    if behaviour.toolturns is not None:
        if ask.tool_turns >= behaviour.toolturns:
            return []
        number = behaviour.toolcall if isinstance(behaviour.toolcall, int) else 1
        if not isinstance(behaviour.toolcall, str):
            return [ask.tools[turn % len(ask.tools)] for turn in range(number)]
    if isinstance(behaviour.toolcall, str):
        return [by_name.get(behaviour.toolcall, ask.tools[0])]
    if ask.tool_choice in by_name:
        return [by_name[ask.tool_choice]]
    # After a tool has answered the loop must end, unless a call is asked for again in so many words.
    answered = ask.last_role in ("tool", "function")
    if behaviour.toolcall is not None and not answered:
        return [ask.tools[turn % len(ask.tools)] for turn in range(behaviour.toolcall)]
    if ask.tool_choice == "required":
        return [ask.tools[0]]
    if answered:
        return []
    said = ask.last.lower()
    named = [tool for tool in ask.tools if tool.name.lower() in said]
    return named if ask.parallel else named[:1]


def _prose(
    pieces: list[str], kind: str, limit: int | None, stop: tuple[str, ...], finish: str = "stop"
) -> Choice:
    whole = "".join(pieces)
    ends = [at for mark in stop if (at := whole.find(mark)) >= 0]
    if ends:
        # The cut may fall inside a word, so what is left is counted again.
        return _measured(whole[: min(ends)], limit, finish)
    if limit is not None and limit < len(pieces):
        pieces, finish = pieces[:limit], "length"
        whole = "".join(pieces)
    return Choice(
        deltas=Prose(kind, pieces),
        finish=finish,
        plain=True,
        text=whole if kind == "text" else None,
        refusal=whole if kind == "refusal" else None,
    )


def _measured(shown: str, limit: int | None, finish: str) -> Choice:
    if limit is not None and counted(shown) > limit:
        shown, finish = truncated(shown, limit), "length"
    return Choice(deltas=Prose("text", _slices(shown)), finish=finish, plain=False, text=shown)


def _json(schema: Mapping[str, Any], seed: int, limit: int | None) -> Choice:
    instance = minimal(schema) if schema else {"simulated": True, "answer": "".join(text.words(seed))}
    return _measured(msgspec.json.encode(instance).decode(), limit, "stop")


def _calls(tools: list[Tool], seed: int, limit: int | None) -> Choice:
    letters = random.Random(seed)
    deltas: list[Delta] = []
    calls: list[ToolCall] = []
    finish = "tool_calls"
    for index, tool in enumerate(tools):
        arguments = msgspec.json.encode(
            minimal(tool.parameters or {"type": "object"})
            if isinstance(tool.parameters, Mapping | None)
            else {}
        ).decode()
        if limit is not None:
            limit -= counted(tool.name)
            if limit < counted(arguments):
                arguments, finish = truncated(arguments, max(limit, 0)), "length"
            limit -= counted(arguments)
            if limit < 0:
                break
        call_id = "call_" + "".join(letters.choices(_LETTERS, k=24))
        calls.append(ToolCall(call_id, tool.name, arguments))
        deltas.append(Delta("call", tool.name, index, call_id))
        deltas += [Delta("arguments", part, index) for part in _slices(arguments)]
        if finish == "length":
            break
    return Choice(deltas=deltas, finish=finish, plain=False, calls=tuple(calls))


def _slices(shown: str) -> list[str]:
    return [shown[start : start + _SLICE] for start in range(0, len(shown), _SLICE)]
