"""POST /v1/responses: plain, as events, in the background; and what follows once a response is kept. Fields: OpenAI API
reference, "Responses". Conversations are not kept."""

from __future__ import annotations

import time
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
from llmops.simulator.endpoints.responses_dialect import ResponsesDialect, ResponsesRequest, usage_members
from llmops.simulator.errors import wrong, wrong_shape
from llmops.simulator.exchange import Exchange
from llmops.simulator.generation import Ask, answer, seed_of
from llmops.simulator.ledger import Usage

_decode = msgspec.json.Decoder(ResponsesRequest).decode
_encode = msgspec.json.Encoder().encode


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
