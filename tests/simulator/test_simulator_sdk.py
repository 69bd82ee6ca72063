"""The official SDK, sync and async, against a running simulator: answers, streams, tools, usage true to the text."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
import time
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


def test_embeddings_are_the_same_in_both_formats(client: openai.OpenAI, count: Any) -> None:
    texts = ["The invoice is overdue.", "Ein zweiter Satz 你好"]
    model = "sim-embed-small+instant"
    floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
    packed = client.embeddings.with_raw_response.create(model=model, input=texts, encoding_format="base64")
    for one, other in zip(floats.data, json.loads(packed.text)["data"], strict=True):
        assert len(one.embedding) == 1536
        assert math.isclose(math.fsum(value * value for value in one.embedding), 1, abs_tol=1e-5)
        unpacked = struct.unpack("<1536f", base64.b64decode(other["embedding"]))
        assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(one.embedding, unpacked, strict=True))
    assert floats.usage.prompt_tokens == floats.usage.total_tokens == sum(map(count, texts))
    assert [one.index for one in floats.data] == [0, 1]
    # The SDK asks for base64 by itself and unpacks it.
    assert len(client.embeddings.create(model=model, input=texts[0], dimensions=256).data[0].embedding) == 256
    assert len(client.embeddings.create(model="sim-embed-large+instant", input="a").data[0].embedding) == 3072


def test_texts_that_share_words_are_near_each_other(client: openai.OpenAI) -> None:
    texts = ["the invoice is overdue", "which invoice is overdue today", "penguins swim in cold water"]
    made = client.embeddings.create(model="sim-embed-small+instant", input=texts).data
    first, second, third = (one.embedding for one in made)
    assert (
        math.sumprod(first, second) > 0.4 > 0.2 > math.sumprod(first, third)
        if hasattr(math, "sumprod")
        else (sum(map(float.__mul__, first, second)) > 0.4 > 0.2 > sum(map(float.__mul__, first, third)))
    )


def test_embeddings_of_token_numbers(client: openai.OpenAI) -> None:
    model = "sim-embed-small+instant"
    assert client.embeddings.create(model=model, input=[1, 2, 3]).usage.prompt_tokens == 3
    several = client.embeddings.create(model=model, input=[[1, 2, 3], [4]])
    assert (len(several.data), several.usage.prompt_tokens) == (2, 4)


def test_moderation(client: openai.OpenAI) -> None:
    made = client.moderations.create(model="sim-moderation+instant", input=["Hello.", "I will kill it."])
    assert [result.flagged for result in made.results] == [False, True]
    assert made.results[1].categories.violence
    assert not made.results[1].categories.hate
    assert client.moderations.create(model="sim-moderation+instant+flag", input="Hello.").results[0].flagged


def test_models(client: openai.OpenAI, simulator: RunningSimulator) -> None:
    listed = client.models.list().data
    assert {model.owned_by for model in listed} == {"simulator"}
    suggested = simulator.own("/simulator/models")["data"]
    assert [model.id for model in listed] == [model["id"] for model in suggested]
    chat = [model for model in suggested if model["kind"] == "chat"]
    assert all(set(model["prices"]) == {"input", "cached_input", "output"} for model in chat)
    assert all(model["prices"] for model in suggested)
    assert client.models.retrieve("sim-gpt-4o-2024-08-06").id == "sim-gpt-4o-2024-08-06"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")


def test_responses(client: openai.OpenAI, count: Any) -> None:
    plain = client.responses.create(model="sim-small+instant", input="How much?", instructions="Be terse.")
    assert plain.output_text.startswith("Simulated answer: ")
    assert plain.status == "completed"
    assert plain.usage is not None
    assert plain.usage.output_tokens == count(plain.output_text)
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "How much?"}]
    assert plain.usage.input_tokens == prompt_tokens(count, messages)
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "How much?"}]}]
    again = client.responses.create(model="sim-small+instant", input=parts, instructions="Be terse.")  # type: ignore[arg-type]
    assert again.usage is not None
    assert again.usage.input_tokens == plain.usage.input_tokens
    cut = client.responses.create(model="sim-small+instant", input="How much?", max_output_tokens=5)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert count(cut.output_text) == 5


@pytest.mark.parametrize("model", ["sim-small+instant", "sim-small+latency=0+tps=3000"])
def test_responses_streamed(client: openai.OpenAI, model: str) -> None:
    plain = client.responses.create(model=model, input="How much?")
    with client.responses.stream(model=model, input="How much?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert final.output_text == plain.output_text
    assert final.usage == plain.usage


def test_responses_call_functions(client: openai.OpenAI) -> None:
    tools: list[Any] = [{"type": "function", "strict": False, **tool["function"]} for tool in WEATHER]
    asked: dict[str, Any] = {"model": "sim-small+instant+toolcall=2", "input": "Go.", "tools": tools}
    plain = client.responses.create(**asked)
    calls = [item for item in plain.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["get_weather", "get_time"]
    with client.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert [(i.name, i.arguments) for i in final.output if i.type == "function_call"] == [
        (call.name, call.arguments) for call in calls
    ]
    history = [
        {"role": "user", "content": "Go."},
        *(call.to_dict() for call in calls),
        {"type": "function_call_output", "call_id": calls[0].call_id, "output": "rain"},
    ]
    assert client.responses.create(**{**asked, "input": history}).output_text.startswith("Simulated answer")
    schema = {
        "type": "object",
        "properties": {"a": {"const": 1}},
        "required": ["a"],
        "additionalProperties": False,
    }
    kept = client.responses.create(
        model="sim-small+instant",
        input="Go.",
        text={"format": {"type": "json_schema", "name": "x", "schema": schema}},
    )
    assert json.loads(kept.output_text) == {"a": 1}


def test_kept_responses_are_told_again_from_where_one_likes(client: openai.OpenAI) -> None:
    first = list(client.responses.create(model="sim-small+instant", input="How much?", stream=True))
    response_id = first[0].response.id  # type: ignore[union-attr]
    again = list(client.responses.retrieve(response_id, stream=True))
    assert [one.model_dump() for one in again] == [one.model_dump() for one in first]
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=4))
    assert [one.sequence_number for one in rest] == [one.sequence_number for one in first[5:]]
    assert client.responses.delete(response_id) is None
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response_id)


def test_a_response_goes_on_in_the_background(client: openai.OpenAI) -> None:
    made = client.responses.create(model="sim-small+latency=60000", input="How much?", background=True)
    assert (made.status, made.usage, made.background) == ("queued", None, True)
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert cancelled.usage is not None and cancelled.usage.output_tokens == 0
    failed = client.responses.create(model="sim-small+instant+error=500", input="x", background=True)
    deadline = time.monotonic() + 10
    while (failed := client.responses.retrieve(failed.id)).status != "failed":
        assert time.monotonic() < deadline
    assert failed.error is not None and failed.error.code == "server_error"


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


def test_documents_come_in_the_order_of_how_near_they_are(client: openai.OpenAI, count: Any) -> None:
    documents = ["Reset my password", {"text": "Where is my parcel?"}, "The parcel is late"]
    body = {"model": "sim-rerank+instant", "query": "my parcel", "documents": documents, "top_n": 2}
    made: Any = client.post("/rerank", body=body, cast_to=object)
    first, second = made["results"]
    assert first["document"] == {"text": "Where is my parcel?"}
    assert first["relevance_score"] > second["relevance_score"]
    assert made["usage"]["prompt_tokens"] == 3 * count("my parcel") + sum(
        count(one if isinstance(one, str) else one["text"]) for one in documents
    )
    bare: Any = client.post("/rerank", body=body | {"return_documents": False}, cast_to=object)
    assert set(bare["results"][0]) == {"index", "relevance_score"}
    with pytest.raises(openai.BadRequestError):
        client.post("/rerank", body=body | {"documents": []}, cast_to=object)
