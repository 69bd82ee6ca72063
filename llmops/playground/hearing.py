"""What a stream of ``/v1/chat/completions`` says, as the events that the playground keeps and shows. Pure.

head      the answer begins: call, model, attempts, fallback, cache, cap, as the data plane's headers have them
text      more of the answer; refusal, thought: more of those
tool      more of a call that the model would make: ``i``, and ``id``, ``name``, ``args`` as far as they are new
first     milliseconds until the first of these
end       finish reason, usage, milliseconds in all
error     why there is no answer, or no more of it: code, message, param, HTTP status
cancelled who stopped it: person, unwatched, long, large
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Event = dict[str, Any]
#: Texts of ours about a data plane, not of a model.
UNREACHABLE, CUT, ODD = "gateway_unreachable", "gateway_cut", "gateway_odd"
_GROWING = {"text": "v", "refusal": "v", "thought": "v"}
_LONGEST_MESSAGE = 2_000


def head_of(status: int, headers: Mapping[str, str]) -> Event:
    """``headers`` by their names in lower case."""
    found: Event = {"t": "head", "status": status}
    for name, member in (
        ("x-llmops-call-id", "call"),
        ("x-llmops-model", "model"),
        ("x-llmops-cache", "cache"),
        ("x-llmops-fallback", "fallback"),
        ("x-llmops-context", "context"),
        ("x-llmops-budget-route", "cheaper"),
        ("x-llmops-prompt", "prompt"),
    ):
        if value := headers.get(name):
            found[member] = value[:200]
    for name, member in (("x-llmops-attempts", "attempts"), ("x-llmops-output-cap", "cap")):
        if (value := headers.get(name, "")).isdecimal():
            found[member] = int(value)
    return found


def error_of(status: int, body: bytes | Mapping[str, Any]) -> Event:
    """An error body of the data plane, or whatever else came in its place."""
    told: Any = body
    if isinstance(body, bytes):
        try:
            told = json.loads(body)
        except ValueError:
            told = None
    error = told.get("error") if isinstance(told, Mapping) else None
    if not isinstance(error, Mapping):
        return {
            "t": "error",
            "code": ODD,
            "status": status,
            "message": f"The data plane answered with HTTP {status}, and not in its own words. Does CONSOLE_GATEWAY_URL lead to it?",
        }
    return {
        "t": "error",
        "code": str(error.get("code") or "")[:60],
        "status": status,
        "message": str(error.get("message") or "")[:_LONGEST_MESSAGE],
        "param": str(error.get("param") or "")[:120],
    }


class Hearing:
    """Lines of a stream in, events out. ``ended``: the answer is whole, or told that it will never be."""

    def __init__(self) -> None:
        self.ended = False
        self.began = False
        self._finish = ""
        self._usage: Mapping[str, Any] | None = None

    def line(self, raw: bytes) -> list[Event]:
        if not raw.startswith(b"data:"):
            return []
        data = raw[5:].strip()
        if data == b"[DONE]":
            self.ended = True
            return [{"t": "end", "finish": self._finish, "usage": _usage(self._usage)}]
        try:
            chunk = json.loads(data)
        except ValueError:
            return []
        if not isinstance(chunk, dict):
            return []
        if isinstance(chunk.get("error"), dict):
            self.ended = True
            return [error_of(200, chunk)]
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        found: list[Event] = []
        for choice in _objects(chunk.get("choices")):
            if choice.get("index", 0) == 0:
                self._finish = str(choice.get("finish_reason") or self._finish)[:60]
                found += _of_delta(_object(choice.get("delta")))
        self.began = self.began or bool(found)
        return found


def _of_delta(delta: Mapping[str, Any]) -> list[Event]:
    found: list[Event] = []
    for name, member in (("thought", "reasoning_content"), ("text", "content"), ("refusal", "refusal")):
        if isinstance(value := delta.get(member), str) and value:
            found.append({"t": name, "v": value})
    for tool in _objects(delta.get("tool_calls")):
        function = _object(tool.get("function") or tool.get("custom"))
        index = tool.get("index", 0)
        event: Event = {"t": "tool", "i": index if isinstance(index, int) else 0}
        for name, value in (
            ("id", tool.get("id")),
            ("name", function.get("name")),
            ("args", function.get("arguments") or function.get("input")),
        ):
            if isinstance(value, str) and value:
                event[name] = value
        found.append(event)
    return found


def _usage(usage: Mapping[str, Any] | None) -> dict[str, int]:
    """Tokens by class; empty where the provider told none."""
    if usage is None:
        return {}
    inside = _object(usage.get("prompt_tokens_details"))
    outside = _object(usage.get("completion_tokens_details"))
    told = {
        "input": usage.get("prompt_tokens"),
        "cached": inside.get("cached_tokens"),
        "output": usage.get("completion_tokens"),
        "reasoning": outside.get("reasoning_tokens"),
    }
    return {name: value for name, value in told.items() if isinstance(value, int)}


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def joined(events: list[Event]) -> list[Event]:
    """The same with neighbours that only say more of the same in one."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        member = _GROWING.get(event["t"])
        if member and last is not None and last["t"] == event["t"]:
            last[member] += event[member]
        elif event["t"] == "tool" and last is not None and last["t"] == "tool" and last["i"] == event["i"]:
            for name, value in event.items():
                last[name] = last.get(name, "") + value if name == "args" else value
        else:
            found.append(dict(event))
    return found
