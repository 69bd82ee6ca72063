"""What a run has come to, read off its steps: what is next, and what the model is told. Pure.

A run goes on from its steps and from nothing else, so that whoever takes it over asks the very same thing again: the body of a
turn, and with it its ``Idempotency-Key`` at the data plane, follow from the steps before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmops.core.digests import canonical_json
from llmops.runs.rules import MOST_SHOWN_BYTES, STREAM, Asked

TURN, CALL, RESULT, NOTE = "turn", "call", "result", "note"
#: Notes that the model is told of.
REPAIR = "repair"
#: A note that the next request of the same turn goes under another key.
AGAIN = "again"


@dataclass(frozen=True, slots=True)
class Told:
    """A step, opened. ``place`` is that of a call among those of its turn, ``what`` the tool's name or the note's."""

    kind: str
    turn: int
    place: int = -1
    what: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    action: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that the model proposes. ``arguments`` is text, as models write it."""

    place: int
    id: str
    tool: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Ask:
    """The next turn of the model. ``again``: how many keys of this turn are spent."""

    turn: int
    again: int


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of ``turn`` that have no result yet."""

    turn: int
    left: Sequence[Wanted]


@dataclass(frozen=True, slots=True)
class Answered:
    turn: int
    message: Mapping[str, Any]
    finish: str


def next_of(steps: Sequence[Told]) -> Ask | Calls | Answered:
    last = next((step for step in reversed(steps) if step.kind == TURN), None)
    if last is None:
        return Ask(1, _spent(steps, 1))
    wanted = wanted_by(last.content["message"])
    done = {step.place for step in steps if step.kind == RESULT and step.turn == last.turn}
    if left := [one for one in wanted if one.place not in done]:
        return Calls(last.turn, left)
    repaired = any(step.kind == NOTE and step.what == REPAIR and step.turn == last.turn for step in steps)
    if wanted or repaired:
        return Ask(last.turn + 1, _spent(steps, last.turn + 1))
    return Answered(last.turn, last.content["message"], str(last.content.get("finish", "")))


def _spent(steps: Iterable[Told], turn: int) -> int:
    return sum(step.kind == NOTE and step.what == AGAIN and step.turn == turn for step in steps)


def wanted_by(message: Mapping[str, Any]) -> list[Wanted]:
    return [
        Wanted(place, call["id"], call["function"]["name"], call["function"]["arguments"])
        for place, call in enumerate(message.get("tool_calls") or ())
    ]


def kept_message(message: Any) -> dict[str, Any]:
    """What a model said, without what nobody reads again. Raises ``ValueError`` for what is no message.

    Ids of calls are the model's own; where one is missing or comes twice, results could not be matched, so it gets another.
    """
    if not isinstance(message, Mapping):
        raise ValueError("no message")
    content = message.get("content")
    kept: dict[str, Any] = {"role": "assistant", "content": _text(content, None)}
    if refusal := _text(message.get("refusal")):
        kept["refusal"] = refusal
    calls, seen = [], set[str]()
    given = message.get("tool_calls")
    for place, call in enumerate(given if isinstance(given, list) else ()):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise ValueError("a call that names no function")
        call_id = _text(call.get("id"))
        if not call_id or call_id in seen:
            call_id = f"call_{place}_{len(seen)}"
        seen.add(call_id)
        function = {"name": _text(function.get("name")), "arguments": _text(function.get("arguments"))}
        calls.append({"id": call_id, "type": "function", "function": function})
    if calls:
        kept["tool_calls"] = calls
    return kept


def _text(value: Any, otherwise: Any = "") -> Any:
    return whole(value) if isinstance(value, str) else otherwise


def whole(text: str) -> str:
    """``text`` without halves of characters (lone surrogates), which JSON can name and nothing can write down."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def body_of(
    asked: Asked, offered: Sequence[Mapping[str, Any]], model: str, version: int | None, steps: Sequence[Told]
) -> dict[str, Any]:
    """The request of the next turn, as ``/v1/chat/completions`` takes it."""
    messages: list[dict[str, Any]] = [{"role": one.role, "content": one.content} for one in asked.messages]
    for step in steps:
        if step.kind == TURN:
            message = {name: value for name, value in step.content["message"].items() if name != "refusal"}
            messages.append(message)
            messages += _results(step, steps)
            messages += [
                {"role": "user", "content": one.content["text"]}
                for one in steps
                if one.kind == NOTE and one.what == REPAIR and one.turn == step.turn
            ]
    body: dict[str, Any] = {"messages": messages}
    if model:
        body["model"] = model
    if asked.prompt is not None:
        body["prompt"] = {"id": asked.prompt.id, "version": version, "variables": asked.prompt.variables}
    if offered:
        body["tools"] = list(offered)
    if asked.mode == STREAM:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if asked.output is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": asked.output},
        }
    return body | msgspec.to_builtins(asked.parameters)


def _results(turn: Told, steps: Sequence[Told]) -> list[dict[str, Any]]:
    """In the order in which the model asked, whatever came first."""
    found = sorted(
        (step for step in steps if step.kind == RESULT and step.turn == turn.turn), key=lambda one: one.place
    )
    return [
        {"role": "tool", "tool_call_id": one.content["id"], "content": one.content["content"]}
        for one in found
    ]


def shown(value: Any) -> str:
    """A tool's result as the model is shown it: JSON, cut where it is too long, and told that it is."""
    text = value if isinstance(value, str) else canonical_json(value).decode()
    raw = text.encode()
    if len(raw) <= MOST_SHOWN_BYTES:
        return text
    return f"{raw[:MOST_SHOWN_BYTES].decode(errors='ignore')}\n[cut: {len(raw)} bytes in all]"


def problem_shown(code: str, message: str) -> str:
    """Why a call has no result, as the model is told."""
    return canonical_json({"error": {"code": code, "message": message}}).decode()
