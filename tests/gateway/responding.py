"""Responses as a provider writes them: whole, and as events."""

from __future__ import annotations

import json
from typing import Any

from tests.gateway.rig import Answer, Asked, Reply, Rig, Script

PATH = "/v1/responses"
ID = "resp_1"
IN, OUT = 1_000, 10_000  # nanodollars a token, as a_model has it


def used(asked: int = 10, answered: int = 5, **details: int) -> dict[str, Any]:
    return {
        "input_tokens": asked,
        "input_tokens_details": {
            "cached_tokens": details.get("cached", 0),
            "cache_write_tokens": details.get("written", 0),
        },
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": details.get("reasoning", 0)},
        "total_tokens": asked + answered,
    }


def message(text: str = "Hello") -> dict[str, Any]:
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


#: The usage that a provider would state.
STATED: Any = object()


def a_response(text: str = "Hello", usage: Any = STATED, **changes: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "sim-small-2024",
        "output": [message(text)],
        "usage": used() if usage is STATED else usage,
    } | changes


def responds(text: str = "Hello", usage: Any = STATED, **changes: Any) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(a_response(text, usage, **changes))

    return script


def event(kind: str, number: int = 0, *, named: bool = True, **members: Any) -> bytes:
    data = json.dumps(
        {"type": kind, "sequence_number": number, **members}, separators=(",", ":"), ensure_ascii=False
    )
    name = f"event: {kind}\n" if named else ""
    return f"{name}data: {data}\n\n".encode()


def delta(text: str, number: int = 0, **members: Any) -> bytes:
    return event(
        "response.output_text.delta",
        number,
        **{"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": text} | members,
    )


def created(number: int = 0, **changes: Any) -> bytes:
    going = {"status": "in_progress", "output": [], "usage": None} | changes
    return event("response.created", number, response=a_response(**going))


def ended(status: str = "completed", number: int = 9, **changes: Any) -> bytes:
    return event(f"response.{status}", number, response=a_response(**{"status": status} | changes))


def a_stream(*texts: str, **changes: Any) -> list[bytes]:
    """A whole stream, one event a piece."""
    pieces = [created()]
    pieces += [delta(text, number) for number, text in enumerate(texts, 1)]
    return [*pieces, ended(number=len(texts) + 1, **changes)]


def ask(given: Any = "Say hello", model: str = "small", **members: Any) -> dict[str, Any]:
    return {"model": model, "input": given} | members


async def respond(
    rig: Rig, given: Any = "Say hello", *, how: dict[str, Any] | None = None, **members: Any
) -> Answer:
    return await rig.call(ask(given, **members), **({"path": PATH} | (how or {})))


def last_event(answer: Answer) -> dict[str, Any]:
    name, _, data = answer.body.rstrip(b"\n").rpartition(b"\n\n")[2].partition(b"\n")
    found: dict[str, Any] = json.loads(data.removeprefix(b"data: "))
    assert name == f"event: {found['type']}".encode()
    return found
