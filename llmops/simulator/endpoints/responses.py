"""POST /v1/responses: plain, as events, in the background; and what follows once a response is kept. Fields: OpenAI API
reference, "Responses". Conversations are not kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from llmops.simulator.asking import (
    behaviour_of,
    canonical,
    fits,
    last_said,
    schema_of,
    tool_choice_of,
    tools_of,
)
from llmops.simulator.delivery import Pace, Stream, before_answering, falsified, in_one_piece, plain
from llmops.simulator.endpoints.kept_responses import KeptResponse
from llmops.simulator.errors import wrong, wrong_shape
from llmops.simulator.exchange import Exchange
from llmops.simulator.generation import Answer, Ask, Choice, Delta, answer, seed_of
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


_decode = msgspec.json.Decoder(ResponsesRequest).decode
_encode = msgspec.json.Encoder().encode
_FAILED = {"code": "server_error", "message": "Simulated error: the work failed."}


async def create(exchange: Exchange) -> None:
    body = await exchange.body()
    try:
        request = _decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    exchange.model, exchange.stream = request.model, bool(request.stream)
    behaviour, profile = behaviour_of(exchange, request.model, "chat")
    if request.conversation is not None:
        raise wrong("The simulator keeps no conversations.", "conversation", "conversation_not_found")
    if not request.input:
        raise wrong("Invalid 'input': it is empty.", "input", "invalid_value")
    store = request.store is not False
    if request.background and not store:
        raise wrong("Invalid 'background': it needs 'store'.", "background", "invalid_value")
    before = _before(exchange, request)
    messages = [*before, *_messages(request)]
    prompt = canonical(messages, request.tools)
    counted = await exchange.app.prompts.count(prompt, messages, request.tools)
    fits(profile, prompt, counted, request.max_output_tokens, "max_output_tokens")
    tools = tools_of(request.tools)
    role, said = last_said(messages)
    ask = Ask(
        prompt=prompt,
        prompt_tokens=counted,
        last=said,
        last_role=role,
        tools=tools,
        tool_choice=tool_choice_of(request.tool_choice, tools),
        parallel=request.parallel_tool_calls is not False,
        schema=schema_of((request.text or {}).get("format"), "text.format"),
        max_tokens=min(request.max_output_tokens or profile.max_output_tokens, profile.max_output_tokens),
    )
    pace = Pace.of(behaviour, profile, seed_of(ask, behaviour.base))
    if not request.background and await before_answering(exchange, behaviour, pace):
        return
    made = answer(ask, behaviour, profile)
    dialect = ResponsesDialect(exchange.new_id("resp_"), int(time.time()), request)
    kept = None
    if store:
        kept = KeptResponse(exchange, dialect, made, behaviour, pace, input_items(request), messages)
        exchange.app.responses.keep(kept)
    if kept is not None and request.background:
        await kept.in_the_background()
    elif exchange.stream:
        await Stream(exchange, behaviour, pace, made, dialect).run()
    else:
        await plain(exchange, behaviour, pace, made, dialect)


async def compact(exchange: Exchange) -> None:
    """The users' messages and one item that stands for the rest; 20 tokens are what it costs to make."""
    request, messages, counted = await _counted(exchange)
    behaviour, profile = behaviour_of(exchange, request.model, "chat")
    pace = Pace.of(behaviour, profile, counted)
    if await before_answering(exchange, behaviour, pace):
        return
    compaction_id = exchange.new_id("resp_")
    usage = Usage(prompt=counted, completion=20)
    served = falsified(usage_members(usage), behaviour.fault.wrong_usage)
    said = [one for one in messages if one.get("role") == "user"]
    body = _encode(
        {
            "id": compaction_id,
            "object": "response.compaction",
            "created_at": int(time.time()),
            "output": [
                *(
                    {"type": "message", "id": f"msg_{number}", "status": "completed", **one}
                    for number, one in enumerate(said)
                ),
                {"type": "compaction", "id": "cmp_simulated", "encrypted_content": "c2ltdWxhdGVk"},
            ],
            "usage": served,
        }
    )
    await in_one_piece(exchange, behaviour.fault, body, usage, served, compaction_id)


async def input_tokens(exchange: Exchange) -> None:
    request, _, counted = await _counted(exchange)
    behaviour, profile = behaviour_of(exchange, request.model, "chat")
    if await before_answering(exchange, behaviour, Pace.of(behaviour, profile, counted)):
        return
    body = _encode({"object": "response.input_tokens", "input_tokens": counted})
    await in_one_piece(exchange, behaviour.fault, body, Usage(), None)


async def _counted(exchange: Exchange) -> tuple[ResponsesRequest, list[dict[str, Any]], int]:
    try:
        request = _decode(await exchange.body())
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    exchange.model = request.model
    messages = [*_before(exchange, request), *_messages(request)]
    counted = await exchange.app.prompts.count(canonical(messages, request.tools), messages, request.tools)
    return request, messages, counted


def _before(exchange: Exchange, request: ResponsesRequest) -> list[dict[str, Any]]:
    """The conversation so far, without the instructions given on the way."""
    if request.previous_response_id is None:
        return []
    previous = exchange.app.responses.found.get(request.previous_response_id)
    if previous is None:
        raise wrong(
            f"Previous response with id '{request.previous_response_id}' not found.",
            "previous_response_id",
            "previous_response_not_found",
        )
    return [one for one in previous.messages if one.get("role") != "system"] + previous.said()


def input_items(request: ResponsesRequest) -> list[dict[str, Any]]:
    """The input as the items that the API lists."""
    given: list[dict[str, Any]] = (
        [{"role": "user", "content": request.input}] if isinstance(request.input, str) else request.input
    )
    items = []
    for number, item in enumerate(given):
        listed = {"type": "message", "id": f"msg_in_{number:02x}", "status": "completed"} | item
        if isinstance(listed.get("content"), str):
            listed["content"] = [{"type": "input_text", "text": listed["content"]}]
        items.append(listed)
    return items


def _messages(request: ResponsesRequest) -> list[dict[str, Any]]:
    """The input as chat messages, in which form it is counted."""
    messages: list[dict[str, Any]] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    for item in request.input:
        kind = item.get("type", "message")
        if kind == "message":
            messages.append({"role": item.get("role", "user"), "content": item.get("content")})
        elif kind == "function_call":
            call = {"function": {"name": item.get("name"), "arguments": item.get("arguments")}}
            messages.append({"role": "assistant", "tool_calls": [call]})
        elif kind == "function_call_output":
            messages.append({"role": "tool", "content": item.get("output")})
    return messages


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
