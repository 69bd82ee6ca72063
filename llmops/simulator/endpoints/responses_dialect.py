"""A response as /v1/responses writes it: its request, its object, its events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from llmops.simulator.generation import Answer, Choice, Delta
from llmops.simulator.ledger import Usage


class ResponsesRequest(msgspec.Struct):
    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    store: bool | None = None
    background: bool | None = None


_encode = msgspec.json.Encoder().encode
_FAILED = {"code": "server_error", "message": "Simulated error: the work failed."}


class ResponsesDialect:
    """response and its events, numbered as they go."""

    def __init__(self, answer_id: str, created: int, request: ResponsesRequest) -> None:
        self.id, self.created, self.request = answer_id, created, request
        self._sequence = 0
        self._item: tuple[int, Delta] | None = None
        self._shown = ""

    def again(self) -> ResponsesDialect:
        """The same from the beginning."""
        return ResponsesDialect(self.id, self.created, self.request)

    def failed(self) -> bytes:
        """The end of a response that brought nothing."""
        return self._event("response.failed", response=self._response("failed", None, None))

    def streams_usage(self) -> bool:
        return True

    def usage(self, usage: Usage) -> dict[str, Any]:
        return usage_members(usage)

    def whole(self, answer: Answer, usage: dict[str, Any] | None) -> bytes:
        return _encode(self._response(status_of(answer), answer, usage))

    def state(self, status: str, answer: Answer | None, usage: dict[str, Any] | None) -> bytes:
        """The response as it is while it goes on, or as it ended."""
        return _encode(self._response(status, answer, usage))

    def opening(self, answer: Answer) -> bytes:
        started = self._response("in_progress", None, None)
        return self._event("response.created", response=started) + self._event(
            "response.in_progress", response=started
        )

    def piece(self, index: int, delta: Delta) -> bytes:
        """The piece's delta, after the events that open its item and close the one before."""
        opened = b""
        starts_call = delta.kind == "call"
        if self._item is None or starts_call:
            opened = self._close() + self._open(delta)
        self._shown += "" if starts_call else delta.text
        if starts_call:
            return opened
        assert self._item is not None
        number, first = self._item
        where = {"item_id": self._item_id(number, first.kind), "output_index": number}
        if delta.kind == "arguments":
            return opened + self._event("response.function_call_arguments.delta", **where, delta=delta.text)
        more = {"content_index": 0, "delta": delta.text} | ({"logprobs": []} if delta.kind == "text" else {})
        kind = "response.output_text.delta" if delta.kind == "text" else "response.refusal.delta"
        return opened + self._event(kind, **where, **more)

    def closing(self, answer: Answer, usage: dict[str, Any] | None) -> bytes:
        status = status_of(answer)
        closed = self._close("incomplete" if status == "incomplete" else "completed")
        return closed + self._event(f"response.{status}", response=self._response(status, answer, usage))

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), _encode(event))

    def _item_id(self, number: int, kind: str) -> str:
        return f"{'fc' if kind == 'call' else 'msg'}_{self.id.removeprefix('resp_')}{number:02x}"

    def _open(self, delta: Delta) -> bytes:
        number = 0 if self._item is None else self._item[0] + 1
        self._item, self._shown = (number, delta), ""
        if delta.kind == "call":
            item = self._call(number, delta.id, delta.text, "", "in_progress")
            return self._event("response.output_item.added", output_index=number, item=item)
        item = self._message(number, [], "in_progress")
        return self._event("response.output_item.added", output_index=number, item=item) + self._event(
            "response.content_part.added",
            item_id=item["id"],
            output_index=number,
            content_index=0,
            part=_part(delta.kind, ""),
        )

    def _close(self, status: str = "completed") -> bytes:
        if self._item is None:
            return b""
        number, first = self._item
        where = {"item_id": self._item_id(number, first.kind), "output_index": number}
        if first.kind == "call":
            item = self._call(number, first.id, first.text, self._shown, status)
            done = self._event(
                "response.function_call_arguments.done", **where, name=first.text, arguments=self._shown
            )
            return done + self._event("response.output_item.done", output_index=number, item=item)
        part = _part(first.kind, self._shown)
        if first.kind == "text":
            done = self._event(
                "response.output_text.done", **where, content_index=0, text=self._shown, logprobs=[]
            )
        else:
            done = self._event("response.refusal.done", **where, content_index=0, refusal=self._shown)
        done += self._event("response.content_part.done", **where, content_index=0, part=part)
        item = self._message(number, [part], status)
        return done + self._event("response.output_item.done", output_index=number, item=item)

    def _message(self, number: int, content: list[dict[str, Any]], status: str) -> dict[str, Any]:
        return {
            "id": self._item_id(number, "text"),
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _call(self, number: int, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
        return {
            "id": self._item_id(number, "call"),
            "type": "function_call",
            "call_id": call_id,
            "name": name,
            "arguments": arguments,
            "status": status,
        }

    def _response(self, status: str, answer: Answer | None, usage: dict[str, Any] | None) -> dict[str, Any]:
        request = self.request
        reason = None
        if answer is not None and status == "incomplete":
            cut = answer.choices[0].finish == "length"
            reason = {"reason": "max_output_tokens" if cut else "content_filter"}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": bool(request.background),
            "error": _FAILED if status == "failed" else None,
            "incomplete_details": reason,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "model": request.model,
            "output": self._output(answer.choices[0], status) if answer is not None else [],
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "store": request.store is not False,
            "temperature": 1.0 if request.temperature is None else request.temperature,
            "text": request.text or {"format": {"type": "text"}},
            "tool_choice": "auto" if request.tool_choice is None else request.tool_choice,
            "tools": request.tools or [],
            "top_p": 1.0 if request.top_p is None else request.top_p,
            "truncation": "disabled",
            "usage": usage,
            "metadata": _labelled(request.metadata),
        }

    def _output(self, choice: Choice, status: str) -> list[dict[str, Any]]:
        if choice.calls:
            return [
                self._call(number, call.id, call.name, call.arguments, "completed")
                for number, call in enumerate(choice.calls)
            ]
        kind, shown = ("text", choice.text) if choice.refusal is None else ("refusal", choice.refusal)
        if not shown:
            return []
        return [self._message(0, [_part(kind, shown)], status)]


def _labelled(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Responses have no ``system_fingerprint``; the label that says "simulator" goes here."""
    return {**(metadata or {}), "system_fingerprint": "simulator"}


def _part(kind: str, shown: str) -> dict[str, Any]:
    if kind == "text":
        return {"type": "output_text", "text": shown, "annotations": [], "logprobs": []}
    return {"type": "refusal", "refusal": shown}


def status_of(answer: Answer) -> str:
    return "incomplete" if answer.choices[0].finish in ("length", "content_filter") else "completed"


def usage_members(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }
