"""POST /v1/chat/completions. Fields: OpenAI API reference, "Chat"; those not named here are accepted and ignored."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
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
from llmops.simulator.delivery import Pace, Stream, before_answering, plain
from llmops.simulator.endpoints.stored_chats import store
from llmops.simulator.errors import wrong, wrong_shape
from llmops.simulator.exchange import EVENTS, JSON, Exchange
from llmops.simulator.generation import Answer, Ask, Choice, Delta, answer, seed_of
from llmops.simulator.ledger import Usage
from llmops.simulator.text import AS_JSON

_ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))
_DONE = b"data: [DONE]\n\n"
# Stand-ins that are replaced when an answer is used again; no answer made of the simulator's words contains them.
_ID, _AT = "chatcmpl-\u0001id\u0001", 0x51D51D51D51D
_ID_BYTES, _AT_BYTES = msgspec.json.encode(_ID)[1:-1], str(_AT).encode()
_KEPT_ANSWERS, _KEPT_BODY = 1_024, 4_096


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None


_decode = msgspec.json.Decoder(ChatRequest).decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Kept:
    """An instant answer, kept whole: the same request gets the same text, under a new id."""

    body: bytes
    model: str
    usage: Usage
    served_usage: dict[str, Any] | None
    stream: bool
    chunks: int


@dataclass(slots=True)
class KeptAnswers:
    found: dict[tuple[bytes, bytes], Kept] = field(default_factory=dict)

    def keep(self, exchange: Exchange, body: bytes, kept: Kept) -> None:
        if len(body) <= _KEPT_BODY:
            if len(self.found) >= _KEPT_ANSWERS:
                self.found.clear()
            self.found[body, exchange.headers.get(b"x-simulator", b"")] = kept


async def create(exchange: Exchange) -> None:
    body = await exchange.body()
    kept_answers: KeptAnswers = exchange.app.kept
    kept = kept_answers.found.get((body, exchange.headers.get(b"x-simulator", b"")))
    if kept is not None:
        return await _again(exchange, kept)
    try:
        request = _decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    exchange.model, exchange.stream = request.model, bool(request.stream)
    behaviour, profile = behaviour_of(exchange, request.model, "chat")
    _check(request)
    prompt = canonical(request.messages, request.tools, request.seed)
    counted = await exchange.app.prompts.count(prompt, request.messages, request.tools)
    limit = request.max_completion_tokens if request.max_tokens is None else request.max_tokens
    fits(
        profile,
        prompt,
        counted,
        limit,
        "max_completion_tokens" if request.max_tokens is None else "max_tokens",
    )
    tools = tools_of(request.tools)
    role, said = last_said(request.messages)
    ask = Ask(
        prompt=prompt,
        prompt_tokens=counted,
        last=said,
        last_role=role,
        tool_turns=sum(bool(one.get("tool_calls")) for one in request.messages if isinstance(one, dict)),
        tools=tools,
        tool_choice=tool_choice_of(request.tool_choice, tools),
        parallel=request.parallel_tool_calls is not False,
        schema=schema_of(request.response_format, "response_format"),
        max_tokens=min(limit or profile.max_output_tokens, profile.max_output_tokens),
        choices=request.n or 1,
        stop=tuple([request.stop] if isinstance(request.stop, str) else request.stop or ()),
    )
    pace = Pace.of(behaviour, profile, seed_of(ask, behaviour.base))
    if await before_answering(exchange, behaviour, pace):
        return
    made = answer(ask, behaviour, profile)
    asks_usage = bool(request.stream_options and request.stream_options.include_usage)
    dialect = ChatDialect(exchange.new_id("chatcmpl-"), int(time.time()), request.model, asks_usage)
    if request.store:
        store(exchange, dialect.whole(made, dialect.usage(made.usage())), request.messages, request.metadata)
    elif behaviour.instant and behaviour.repeatable and all(choice.plain for choice in made.choices):
        kept = _kept(ChatDialect(_ID, _AT, request.model, asks_usage), made, exchange.stream)
        kept_answers.keep(exchange, body, kept)
        return await _again(exchange, kept)
    if exchange.stream:
        await Stream(exchange, behaviour, pace, made, dialect).run()
    else:
        await plain(exchange, behaviour, pace, made, dialect)


def _check(request: ChatRequest) -> None:
    if not request.messages:
        raise wrong("Invalid 'messages': empty array.", "messages", "empty_array")
    for index, message in enumerate(request.messages):
        if message.get("role") not in _ROLES:
            raise wrong(
                f"Invalid 'messages[{index}].role': it is one of {', '.join(sorted(_ROLES))}.",
                f"messages[{index}].role",
                "invalid_value",
            )
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise wrong(
                f"Invalid 'messages[{index}].content': it is text or a list of parts.",
                f"messages[{index}].content",
                "invalid_type",
            )
    for name, low, high in (("n", 1, 128), ("temperature", 0, 2), ("top_p", 0, 1)):
        value = getattr(request, name)
        if value is not None and not low <= value <= high:
            raise wrong(f"Invalid '{name}': {value} is not between {low} and {high}.", name, "invalid_value")
    if request.stream_options is not None and not request.stream:
        raise wrong("The 'stream_options' parameter is only allowed with 'stream'.", "stream_options")


def _kept(dialect: ChatDialect, made: Answer, stream: bool) -> Kept:
    usage = made.usage()
    served = dialect.usage(usage)
    if not stream:
        return Kept(dialect.whole(made, served), dialect.model, usage, served, False, 1)
    stated = served if dialect.include_usage else None
    pieces = (dialect.piece(index, delta) for index, delta in made.order())
    body = b"".join((dialect.opening(made), *pieces, dialect.closing(made, stated)))
    return Kept(body, dialect.model, usage, stated, True, body.count(b"\n\n"))


async def _again(exchange: Exchange, kept: Kept) -> None:
    answer_id = exchange.new_id("chatcmpl-")
    body = kept.body.replace(_ID_BYTES, answer_id.encode()).replace(_AT_BYTES, b"%d" % exchange.started)
    exchange.model, exchange.stream = kept.model, kept.stream
    exchange.record(
        "completed",
        answer_id=answer_id,
        usage=kept.usage,
        served_usage=kept.served_usage,
        chunks=kept.chunks,
        size=len(body),
    )
    if kept.stream:
        await exchange.start(200, EVENTS, [], None)
    else:
        await exchange.start(200, JSON, [], len(body))
    await exchange.send({"type": "http.response.body", "body": body})


class ChatDialect:
    """chat.completion and chat.completion.chunk."""

    def __init__(self, answer_id: str, created: int, model: str, include_usage: bool) -> None:
        self.id, self.created, self.model, self.include_usage = answer_id, created, model, include_usage
        self._head = (
            b'data: {"id":"%s","object":"chat.completion.chunk","created":%d,"model":%s,'
            b'"service_tier":"default","system_fingerprint":"simulator","choices":['
            % (_encode(answer_id)[1:-1], created, _encode(model))
        )
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._after = b'},"logprobs":null,"finish_reason":null}' + self._tail

    def streams_usage(self) -> bool:
        return self.include_usage

    def usage(self, usage: Usage) -> dict[str, Any]:
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "prompt_tokens_details": {
                "cached_tokens": usage.cached,
                "cache_write_tokens": usage.cache_write,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {
                "reasoning_tokens": usage.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def whole(self, answer: Answer, usage: dict[str, Any] | None) -> bytes:
        made: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [_choice(index, choice) for index, choice in enumerate(answer.choices)],
            "service_tier": "default",
            "system_fingerprint": "simulator",
        }
        if usage is not None:
            made["usage"] = usage
        return _encode(made)

    def opening(self, answer: Answer) -> bytes:
        """Each choice's first chunk names the role and has no text, as the API has it."""
        first = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._chunk(index, first, None) for index in range(len(answer.choices)))

    def piece(self, index: int, delta: Delta) -> bytes:
        if delta.kind == "text":
            shown = AS_JSON.get(delta.text) or _encode(delta.text)
            return b'%s{"index":%d,"delta":{"content":%s%s' % (self._head, index, shown, self._after)
        if delta.kind == "refusal":
            return self._chunk(index, {"refusal": delta.text}, None)
        call: dict[str, Any] = {"index": delta.call, "function": {"arguments": delta.text}}
        if delta.kind == "call":
            call = {
                "index": delta.call,
                "id": delta.id,
                "type": "function",
                "function": {"name": delta.text, "arguments": ""},
            }
        return self._chunk(index, {"tool_calls": [call]}, None)

    def closing(self, answer: Answer, usage: dict[str, Any] | None) -> bytes:
        ends = b"".join(self._chunk(index, {}, choice.finish) for index, choice in enumerate(answer.choices))
        if not self.include_usage or usage is None:
            return ends + _DONE
        last = self._head + b'],"usage":' + _encode(usage) + b"}\n\n"
        return ends + last + _DONE

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._head + _encode(choice) + self._tail


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": choice.refusal}
    message["annotations"] = []
    if choice.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in choice.calls
        ]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish}
