"""An answer of the data plane that comes in events, put together again: the message that one in one piece would have been."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any

#: Of one event, and of all of them: each token has an event around it.
_MOST_LINE, _MOST_BYTES = 1024 * 1024, 64 * 1024 * 1024
_MOST_CALLS = 256
#: A comment of the data plane: what the answer cost.
_COST = b": x-llmops-cost-nano "


class Broken(HTTPException):
    """It ended before it was whole."""


class Refused(Exception):
    """An error that came in the middle, as the data plane tells it."""

    def __init__(self, error: Mapping[str, Any], cost: int | None = None) -> None:
        super().__init__("refused")
        self.error = error
        self.cost = cost


@dataclass(slots=True)
class Heard:
    """What a stream brought. ``cost`` is in nanodollars; None where the stream did not say."""

    message: dict[str, Any] = field(default_factory=dict)
    finish: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    cost: int | None = None


def read_stream(response: HTTPResponse, heard: Callable[[str], None], *, until: float) -> Heard:
    """The whole of it; ``heard`` gets the text as it comes. ``until`` is monotonic.

    Raises ``Refused``, ``Broken`` and what reading raises; ``ValueError`` and the like for what is not in the words of the API.
    """
    content: list[str] = []
    refusal: list[str] = []
    calls: dict[int, dict[str, str]] = {}
    found = Heard()
    for event in _events(response, until, found):
        if isinstance(error := event.get("error"), Mapping):
            raise Refused(error, found.cost)
        if isinstance(event.get("usage"), dict):
            found.usage = event["usage"]
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if isinstance(piece := delta.get("content"), str) and piece:
                content.append(piece)
                heard(piece)
            if isinstance(piece := delta.get("refusal"), str):
                refusal.append(piece)
            for call in delta.get("tool_calls") or ():
                _add(calls, call)
            found.finish = str(choice.get("finish_reason") or found.finish)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(content) if content else None}
    if refusal:
        message["refusal"] = "".join(refusal)
    if calls:
        message["tool_calls"] = [
            {
                "id": one["id"],
                "type": "function",
                "function": {"name": one["name"], "arguments": one["arguments"]},
            }
            for _, one in sorted(calls.items())
        ]
    found.message = message
    return found


def _add(calls: dict[int, dict[str, str]], call: Mapping[str, Any]) -> None:
    place = call.get("index", 0)
    if not isinstance(place, int) or (place not in calls and len(calls) >= _MOST_CALLS):
        raise ValueError("calls that cannot be told apart")
    known = calls.setdefault(place, {"id": "", "name": "", "arguments": ""})
    function = call.get("function") or {}
    known["id"] = call.get("id") or known["id"]
    known["name"] += function.get("name") or ""
    known["arguments"] += function.get("arguments") or ""


def _events(response: HTTPResponse, until: float, found: Heard) -> Iterator[Mapping[str, Any]]:
    size = 0
    while line := response.readline(_MOST_LINE + 1):
        size += len(line)
        if len(line) > _MOST_LINE or size > _MOST_BYTES:
            raise ValueError("more than anybody answers")
        if time.monotonic() > until:
            raise TimeoutError("it did not end in time")
        if not line.startswith(b"data:"):
            if line.startswith(_COST) and (nano := line[len(_COST) :].strip()).isdigit():
                found.cost = int(nano)
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if not isinstance(event, Mapping):
            raise ValueError("an event that is no object")
        yield event
    raise Broken("it ended in the middle")
