"""The official SDK, sync and async, against a running simulator: answers, streams, tools, usage true to the text."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import openai
import pytest
import tiktoken
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llmops.core import tokens
from tests.simulator.running import RunningSimulator

ASK: list[Any] = [
    {"role": "system", "content": "You are terse. ¿Qué? 你好 <|endoftext|>"},
    {"role": "user", "content": "How much did support spend in May?"},
]
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather somewhere",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
            },
        },
    },
    {
        "type": "function",
        "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}},
    },
]


@pytest.fixture(scope="module")
def count() -> Any:
    """tiktoken itself, not the code under test."""
    # Loading it through the package tells tiktoken where the unpacked ranks lie.
    tokens.count_text("", "gpt-4o")
    encoding = tiktoken.get_encoding("o200k_base")
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def prompt_tokens(count: Any, messages: list[Any]) -> int:
    return 3 + sum(3 + count(message["role"]) + count(message["content"]) for message in messages)


def chat(client: openai.OpenAI, model: str = "sim-small+instant", **more: Any) -> ChatCompletion:
    return client.chat.completions.create(**{"model": model, "messages": ASK, **more})


def streamed(
    client: openai.OpenAI, model: str = "sim-small+instant", **more: Any
) -> list[ChatCompletionChunk]:
    return list(client.chat.completions.create(**{"model": model, "messages": ASK, "stream": True, **more}))


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    return "".join(
        choice.delta.content or "" for chunk in chunks for choice in chunk.choices if choice.index == index
    )


@pytest.mark.parametrize(
    "model", ["sim-small+instant", "sim-small+latency=1", "sim-small+latency=1+tps=5000"]
)
def test_chat_is_labelled_and_its_usage_is_true(client: openai.OpenAI, count: Any, model: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model=model, messages=ASK)
    answer = raw.parse()
    said = answer.choices[0].message.content
    assert said is not None
    assert said.startswith("Simulated answer: ")
    assert answer.system_fingerprint == "simulator"
    assert answer.model == model
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == prompt_tokens(count, ASK)
    assert answer.usage.completion_tokens == count(said)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert raw.headers["x-simulator"] == "true"
    assert raw.headers["x-request-id"] == answer._request_id
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert int(raw.headers["x-ratelimit-remaining-requests"]) < int(raw.headers["x-ratelimit-limit-requests"])


def test_same_question_same_answer_under_another_id(client: openai.OpenAI) -> None:
    answers = [
        chat(client, model) for model in ("sim-small+instant", "sim-small+instant", "sim-small+latency=0")
    ]
    assert len({answer.id for answer in answers}) == 3
    assert len({answer.choices[0].message.content for answer in answers}) == 1
    assert chat(client, seed=2).choices[0].message.content != chat(client, seed=3).choices[0].message.content


@pytest.mark.parametrize("model", ["sim-small+instant", "sim-small+latency=0+tps=2000"])
def test_stream_says_what_the_plain_answer_says(client: openai.OpenAI, count: Any, model: str) -> None:
    plain = chat(client)
    chunks = streamed(client, model, stream_options={"include_usage": True})
    said = text_of(chunks)
    assert said == plain.choices[0].message.content
    assert len([chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]) == count(said)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        "stop"
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_states_no_usage_unless_asked(client: openai.OpenAI, simulator: RunningSimulator) -> None:
    assert all(chunk.usage is None for chunk in streamed(client))
    [record] = simulator.records()
    assert record["served_usage"] is None
    assert record["usage"]["completion"] > 0


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 11, 23])
def test_limit_is_kept_to_the_token(client: openai.OpenAI, count: Any, field: str, limit: int) -> None:
    answer = chat(client, **{field: limit})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == limit == count(answer.choices[0].message.content)
    assert text_of(streamed(client, **{field: limit})) == answer.choices[0].message.content


def test_asked_length_and_no_length(client: openai.OpenAI, count: Any) -> None:
    answer = chat(client, "sim-small+instant+tokens=500")
    assert count(answer.choices[0].message.content) == 500
    assert answer.choices[0].finish_reason == "stop"
    empty = chat(client, "sim-small+instant+tokens=0")
    assert (empty.choices[0].message.content, empty.choices[0].finish_reason) == ("", "stop")
    assert empty.usage is not None
    assert empty.usage.completion_tokens == 0


def test_several_choices_differ_and_are_all_counted(client: openai.OpenAI, count: Any) -> None:
    plain = chat(client, n=3)
    said = [choice.message.content for choice in plain.choices]
    assert len(set(said)) == 3
    assert plain.usage is not None
    assert plain.usage.completion_tokens == sum(map(count, said))
    chunks = streamed(client, n=3, stream_options={"include_usage": True})
    assert [text_of(chunks, index) for index in range(3)] == said
    assert chunks[-1].usage == plain.usage


def test_stop_cuts_before_the_words(client: openai.OpenAI, count: Any) -> None:
    whole = chat(client).choices[0].message.content
    assert whole is not None
    mark = whole[30:34]
    cut = chat(client, stop=[mark, "never said"])
    assert cut.choices[0].message.content == whole[: whole.index(mark)]
    assert cut.usage is not None
    assert cut.usage.completion_tokens == count(cut.choices[0].message.content)


def test_cached_and_reasoning_tokens_are_stated(client: openai.OpenAI, count: Any) -> None:
    answer = chat(client, "sim-small+instant+cached=7+cache_write=2+reasoning=40")
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 7
    assert usage.prompt_tokens_details.cache_write_tokens == 2
    assert usage.completion_tokens_details.reasoning_tokens == 40
    assert usage.completion_tokens == 40 + count(answer.choices[0].message.content)
    thought = chat(client, "sim-reasoner+instant", max_completion_tokens=10)
    assert (thought.choices[0].message.content, thought.choices[0].finish_reason) == ("", "length")
    assert thought.usage is not None
    assert thought.usage.completion_tokens == 10


def assembled(chunks: list[ChatCompletionChunk]) -> list[tuple[str, str, str]]:
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                assert call.function is not None
                if call.id is not None:
                    calls[call.index] = [call.id, call.function.name or "", ""]
                calls[call.index][2] += call.function.arguments or ""
    return [(call[0], call[1], call[2]) for _, call in sorted(calls.items())]


@pytest.mark.parametrize(
    ("model", "more", "called"),
    [
        ("sim-small+instant", {"tool_choice": "required"}, ["get_weather"]),
        (
            "sim-small+instant",
            {"tool_choice": {"type": "function", "function": {"name": "get_time"}}},
            ["get_time"],
        ),
        ("sim-small+instant+toolcall", {}, ["get_weather"]),
        ("sim-small+instant+toolcall=2", {}, ["get_weather", "get_time"]),
        ("sim-small+instant+toolcall=get_time", {}, ["get_time"]),
        (
            "sim-small+instant",
            {"messages": [{"role": "user", "content": "Please use get_weather and get_time."}]},
            ["get_weather", "get_time"],
        ),
        (
            "sim-small+instant",
            {
                "messages": [{"role": "user", "content": "Please use get_weather and get_time."}],
                "parallel_tool_calls": False,
            },
            ["get_weather"],
        ),
        ("sim-small+latency=0+tps=5000+toolcall=2", {}, ["get_weather", "get_time"]),
    ],
)
def test_tools_are_called_when_asked(
    client: openai.OpenAI, count: Any, model: str, more: dict[str, Any], called: list[str]
) -> None:
    plain = chat(client, model, tools=WEATHER, **more)
    [choice] = plain.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    calls = choice.message.tool_calls or []
    assert [call.function.name for call in calls] == called  # type: ignore[union-attr]
    for call in calls:
        schema = next(
            t["function"]["parameters"] for t in WEATHER if t["function"]["name"] == call.function.name
        )  # type: ignore[union-attr]
        jsonschema.validate(json.loads(call.function.arguments), schema)  # type: ignore[union-attr]
    assert plain.usage is not None
    assert plain.usage.completion_tokens == sum(
        count(call.function.name) + count(call.function.arguments)  # type: ignore[union-attr]
        for call in calls
    )
    chunks = streamed(client, model, tools=WEATHER, stream_options={"include_usage": True}, **more)
    assert assembled(chunks) == [(call.id, call.function.name, call.function.arguments) for call in calls]  # type: ignore[union-attr]
    assert chunks[-1].usage == plain.usage


@pytest.mark.parametrize(
    ("model", "turns"),
    [
        ("toolturns=0", []),
        ("toolturns=1", [["get_weather"]]),
        ("toolturns=3", [["get_weather"]] * 3),
        ("toolturns=2+toolcall=2", [["get_weather", "get_time"]] * 2),
        ("toolturns=2+toolcall=get_time", [["get_time"]] * 2),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_tools_are_called_in_so_many_turns_and_then_it_answers(
    client: openai.OpenAI, model: str, turns: list[list[str]], whole: bool
) -> None:
    name, messages = f"sim-small+instant+{model}", list(ASK)
    for called in turns:
        if whole:
            made = [
                (one.id, one.function.name)  # type: ignore[union-attr]
                for one in chat(client, name, tools=WEATHER, messages=messages).choices[0].message.tool_calls
                or []
            ]
        else:
            chunks = streamed(client, name, tools=WEATHER, messages=messages)
            made = [(call_id, tool) for call_id, tool, _ in assembled(chunks)]
        assert [tool for _, tool in made] == called
        calls = [
            {"id": call_id, "type": "function", "function": {"name": tool, "arguments": "{}"}}
            for call_id, tool in made
        ]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call_id, "content": "rain"} for call_id, _ in made]
    answer = chat(client, name, tools=WEATHER, messages=messages).choices[0]
    assert answer.finish_reason == "stop" and answer.message.content and not answer.message.tool_calls
    assert chat(client, name, tools=WEATHER, tool_choice="none").choices[0].finish_reason == "stop"
    assert chat(client, name).choices[0].finish_reason == "stop"


def test_tools_are_not_called_unasked_and_a_loop_ends(client: openai.OpenAI) -> None:
    assert chat(client, tools=WEATHER).choices[0].finish_reason == "stop"
    never = chat(client, "sim-small+instant+toolcall", tools=WEATHER, tool_choice="none")
    assert never.choices[0].finish_reason == "stop"
    without = chat(client, "sim-small+instant+toolcall")
    assert without.choices[0].finish_reason == "stop"
    first = chat(client, "sim-small+instant+toolcall", tools=WEATHER)
    messages = [
        *ASK,
        first.choices[0].message.to_dict(),
        {"role": "tool", "tool_call_id": first.choices[0].message.tool_calls[0].id, "content": "rain"},  # type: ignore[index]
    ]
    second = chat(client, "sim-small+instant+toolcall", tools=WEATHER, messages=messages)
    assert second.choices[0].finish_reason == "stop"


def test_tools_count_as_prompt(client: openai.OpenAI) -> None:
    plain, with_tools = chat(client).usage, chat(client, tools=WEATHER).usage
    assert plain is not None
    assert with_tools is not None
    assert with_tools.prompt_tokens == tokens.count_chat(ASK, "gpt-4o", WEATHER) > plain.prompt_tokens


def test_schema_is_kept(client: openai.OpenAI, count: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["bug", "idea"]}, "score": {"type": "integer", "minimum": 4}},
        "required": ["label", "score"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "triage", "strict": True, "schema": schema}}
    answer = chat(client, response_format=wanted)
    said = answer.choices[0].message.content
    assert json.loads(said or "") == {"label": "bug", "score": 4}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == count(said)
    assert text_of(streamed(client, response_format=wanted)) == said
    cut = chat(client, response_format=wanted, max_tokens=3)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion_tokens == count(cut.choices[0].message.content) <= 3
    free = chat(client, response_format={"type": "json_object"})
    assert json.loads(free.choices[0].message.content or "")["simulated"] is True


def test_refusal_and_content_filter(client: openai.OpenAI, count: Any) -> None:
    refused = chat(client, "sim-small+instant+refusal")
    message = refused.choices[0].message
    assert message.content is None
    assert (message.refusal or "").startswith("Simulated refusal")
    assert refused.usage is not None
    assert refused.usage.completion_tokens == count(message.refusal)
    chunks = streamed(client, "sim-small+instant+refusal")
    assert "".join(c.choices[0].delta.refusal or "" for c in chunks if c.choices) == message.refusal
    filtered = chat(client, "sim-small+instant+content_filter")
    assert filtered.choices[0].finish_reason == "content_filter"
    whole = chat(client).choices[0].message.content or ""
    assert whole.startswith(filtered.choices[0].message.content or "?")


def test_images_and_parts_are_counted(client: openai.OpenAI) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    ]
    messages = [{"role": "user", "content": parts}]
    usage = chat(client, messages=messages).usage
    assert usage is not None
    assert usage.prompt_tokens == tokens.count_chat(messages, "sim-small")


async def test_async_client_and_many_at_once(simulator: RunningSimulator, count: Any) -> None:
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key="sk-bob", max_retries=0) as client:

        async def plain(number: int) -> int:
            messages: list[Any] = [{"role": "user", "content": f"Question {number}"}]
            answer = await client.chat.completions.create(model="sim-small+latency=5", messages=messages)
            assert answer.usage is not None
            assert answer.usage.completion_tokens == count(answer.choices[0].message.content)
            return answer.usage.total_tokens

        async def stream(number: int) -> int:
            messages: list[Any] = [{"role": "user", "content": f"Question {number}"}]
            chunks = await client.chat.completions.create(
                model="sim-small+latency=5+tps=2000",
                messages=messages,
                stream=True,
                stream_options={"include_usage": True},
            )
            received = [chunk async for chunk in chunks]
            assert received[-1].usage is not None
            assert received[-1].usage.completion_tokens == count(text_of(received))
            return received[-1].usage.total_tokens

        async with asyncio.timeout(60):
            totals = await asyncio.gather(*(plain(n) for n in range(100)), *(stream(n) for n in range(100)))
    records = simulator.records()
    assert len(records) == len({record["id"] for record in records}) == 200
    assert {record["outcome"] for record in records} == {"completed"}
    assert sum(r["usage"]["prompt"] + r["usage"]["completion"] for r in records) == sum(totals)
