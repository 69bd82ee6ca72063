"""What a route answers when nothing else could: an earlier answer to the same request, or a fixed text. Marked as such.

Never in place of an error that is the caller's own, and never once an answer has begun. It costs nothing; the attempts that
failed are recorded with it. Shapes: OpenAI API reference, "Chat" and "Responses", and their streaming events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from llmops.gateway import settle
from llmops.gateway.cache import STALE
from llmops.gateway.call import Call
from llmops.providers.rules import CACHED_ANSWER, NO_LAST_RESORT, STATIC_ANSWER

STATIC, CACHED = b"static", b"cached"
STATIC_CODE, STALE_CODE = "static_answer", "stale_answer"
CHAT, RESPONSES = "chat.completions", "responses"

_encode = msgspec.json.Encoder().encode
_NO_CHAT_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


def has_one(call: Call) -> bool:
    """Whether the route of a call has a last resort at all."""
    return call.resolution is not None and call.resolution.route.last_resort != NO_LAST_RESORT


async def answered(call: Call, reason: str) -> bool:
    """Give the route's last resort, if it has one for this request; ``reason`` is why nothing else answered."""
    resolution = call.resolution
    if resolution is None or call.asked is None or call.begun or call.ended or call.plan is None:
        return False
    kind = resolution.route.last_resort
    if kind == CACHED_ANSWER:
        return await _stale(call, reason)
    if kind == STATIC_ANSWER:
        return await _static(call, resolution.route.static_answer, reason)
    return False


async def _stale(call: Call, reason: str) -> bool:
    kept = call.plane.cache.stale(call.cache_key) if call.cache_key is not None else None
    if kept is None:
        return False
    call.kept, call.cache_word = kept, STALE
    await _give(call, CACHED, STALE_CODE, reason, kept.body)
    return True


async def _static(call: Call, text: str, reason: str) -> bool:
    asked, resolution = call.asked, call.resolution
    assert asked is not None and resolution is not None
    created = call.started_ns // 1_000_000_000
    if call.endpoint.name == CHAT:
        make = chat_events if asked.stream else chat_completion
        body = make(
            text,
            call.id,
            resolution.name,
            created,
            choices=asked.choices,
            usage=asked.wants_usage or not asked.stream,
        )
    elif call.endpoint.name == RESPONSES:
        body = (response_events if asked.stream else response)(text, call.id, resolution.name, created)
    else:
        return False
    await _give(call, STATIC, STATIC_CODE, reason, body)
    return True


async def _give(call: Call, resort: bytes, code: str, reason: str, body: bytes) -> None:
    assert call.asked is not None
    call.resort = resort
    call.fallbacks += 1
    call.bytes_out = len(body)
    settle.resorted(call, code=code, reason=reason)
    call.bytes_out = 0
    if not call.asked.stream:
        await call.send_whole(200, body)
        return
    call.begun = True
    if not call.started_sending:
        await call.start_events()
    await call.send_piece(body, last=True)


# ---------------------------------------------------------------------- chat


def chat_completion(
    text: str, call: str, model: str, created: int, *, choices: int = 1, usage: bool = True
) -> bytes:
    said: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    return _encode(
        {
            "id": f"chatcmpl-{call}",
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [
                {"index": index, "message": said, "logprobs": None, "finish_reason": "stop"}
                for index in range(choices)
            ],
            "usage": _NO_CHAT_USAGE,
            "service_tier": "default",
            "system_fingerprint": None,
        }
    )


def chat_events(
    text: str, call: str, model: str, created: int, *, choices: int = 1, usage: bool = False
) -> bytes:
    def chunk(found: list[dict[str, Any]], **more: Any) -> bytes:
        return _data(
            {
                "id": f"chatcmpl-{call}",
                "object": "chat.completion.chunk",
                "created": created,
                "model": model,
                "choices": found,
            }
            | ({"usage": None} if usage else {})
            | more
        )

    def of(index: int, delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]

    events = []
    for index in range(choices):
        events.append(chunk(of(index, {"role": "assistant", "content": text, "refusal": None})))
        events.append(chunk(of(index, {}, "stop")))
    if usage:
        events.append(chunk([], usage=_NO_CHAT_USAGE))
    return b"".join(events) + b"data: [DONE]\n\n"


# ---------------------------------------------------------------------- responses


def response(text: str, call: str, model: str, created: int) -> bytes:
    return _encode(_response(call, model, created, "completed", [_message(call, text, "completed")]))


def response_events(text: str, call: str, model: str, created: int) -> bytes:
    """The events of a response in the order in which the provider would send them."""
    item, part = _message(call, text, "completed"), _part(text)
    where = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    begun = _response(call, model, created, "in_progress", [])

    def events() -> Iterator[tuple[str, dict[str, Any]]]:
        yield "response.created", {"response": begun}
        yield "response.in_progress", {"response": begun}
        yield (
            "response.output_item.added",
            {"output_index": 0, "item": item | {"status": "in_progress", "content": []}},
        )
        yield "response.content_part.added", where | {"part": _part("")}
        yield "response.output_text.delta", where | {"delta": text, "logprobs": []}
        yield "response.output_text.done", where | {"text": text, "logprobs": []}
        yield "response.content_part.done", where | {"part": part}
        yield "response.output_item.done", {"output_index": 0, "item": item}
        yield "response.completed", {"response": _response(call, model, created, "completed", [item])}

    return b"".join(
        b"event: " + name.encode() + b"\n" + _data({"type": name, "sequence_number": number} | members)
        for number, (name, members) in enumerate(events())
    )


def _response(
    call: str, model: str, created: int, status: str, output: list[dict[str, Any]]
) -> dict[str, Any]:
    done = status == "completed"
    return {
        "id": f"resp_{call.replace('-', '')}",
        "object": "response",
        "created_at": created,
        "status": status,
        "completed_at": int(time.time()) if done else None,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        # Nobody keeps it: it cannot be retrieved.
        "store": False,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": _NO_USAGE if done else None,
        "user": None,
        "metadata": {},
    }


def _message(call: str, text: str, status: str) -> dict[str, Any]:
    return {
        "id": f"msg_{call.replace('-', '')}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [_part(text)],
    }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _data(content: dict[str, Any]) -> bytes:
    return b"data: " + _encode(content) + b"\n\n"
