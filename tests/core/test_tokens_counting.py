"""Counts agree with tiktoken and with figures that OpenAI's API returned; the bound is never below a count."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st

from llmops.core import tokens
from tests.trying import tries

MODELS = ("gpt-4o-2024-08-06", "gpt-4-0613")
ENCODINGS = {"gpt-4o-2024-08-06": "o200k_base", "gpt-4-0613": "cl100k_base"}


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    tokens.use_cache_dir(tmp_path_factory.mktemp("ranks"))
    yield
    tokens.use_cache_dir(None)


# Every code point, lone surrogates too: they reach us through JSON escapes.
any_text = st.text(st.characters(exclude_categories=()), max_size=400)


@given(text=any_text, model=st.sampled_from(MODELS))
@example(text="<|endoftext|>" * 3, model=MODELS[0])
@example(text="\ud83d", model=MODELS[0])
@example(text="\ud83d\ude00", model=MODELS[1])
@tries(400)
def test_bound_is_never_below_the_count(text: str, model: str) -> None:
    assert tokens.upper_bound(text) >= tokens.count_text(text, model)


@given(text=any_text, model=st.sampled_from(MODELS))
@tries(200)
def test_count_is_tiktokens_own(text: str, model: str) -> None:
    counted = tokens.count_text(text, model)
    reference = tiktoken.get_encoding(ENCODINGS[model])
    assert counted == len(reference.encode(text, disallowed_special=()))


def test_bytes_and_text_have_the_same_bound() -> None:
    assert tokens.upper_bound("é€😀") == tokens.upper_bound("é€😀".encode()) == 9
    assert tokens.upper_bound("") == 0


def test_special_tokens_count_as_the_text_they_are() -> None:
    assert tokens.count_text("<|endoftext|>", "gpt-4o") > 1


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over the lazy dog. It's 12 o'clock\n\n  and all is well! " * 4_000,
        "word " * 60_000,
        "a b" * 50_000,
    ],
)
def test_long_text_is_counted_in_pieces_without_a_difference(model: str, text: str) -> None:
    counted = tokens.count_text(text, model)
    assert counted == len(tiktoken.get_encoding(ENCODINGS[model]).encode_ordinary(text))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("filler", [" ", "\n", "a", "^", "你", "\u0301", "\t ", "1"])
def test_a_run_that_overflows_tiktokens_splitter_is_counted(model: str, filler: str) -> None:
    text = (filler * 1_200_000)[:1_200_000]
    assert 0 < tokens.count_text(text, model) <= tokens.upper_bound(text)


@pytest.mark.parametrize(
    ("model", "name", "exact"),
    [
        ("gpt-4o", "o200k_base", True),
        ("gpt-4o-mini-2024-07-18", "o200k_base", True),
        ("gpt-4.1-nano", "o200k_base", True),
        ("gpt-5", "o200k_base", True),
        ("gpt-5.1-codex", "o200k_base", True),
        ("o1", "o200k_base", True),
        ("o3-mini-2025-01-31", "o200k_base", True),
        ("o4-mini", "o200k_base", True),
        ("chatgpt-4o-latest", "o200k_base", True),
        ("openai/gpt-4o", "o200k_base", True),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc", "o200k_base", True),
        ("sim-gpt-4o+latency=50", "o200k_base", True),
        ("gpt-4", "cl100k_base", True),
        ("gpt-4-turbo-2024-04-09", "cl100k_base", True),
        ("GPT-4-0613", "cl100k_base", True),
        ("gpt-35-turbo", "cl100k_base", True),
        ("gpt-3.5-turbo-0125", "cl100k_base", True),
        ("ft:gpt-3.5-turbo:acme::abc", "cl100k_base", True),
        ("text-embedding-3-small", "cl100k_base", True),
        ("text-embedding-ada-002", "cl100k_base", True),
        ("gpt-4.7", "o200k_base", False),
        ("gpt-6", "o200k_base", False),
        ("o10", "o200k_base", False),
        ("claude-opus", "o200k_base", False),
        ("text-davinci-003", "o200k_base", False),
        ("", "o200k_base", False),
    ],
)
def test_encoding_of_a_model(model: str, name: str, exact: bool) -> None:
    assert tokens.encoding_for(model) == tokens.EncodingChoice(name, exact)


# The conversations and figures of the OpenAI cookbook ("How to count tokens with tiktoken"), which were compared there
# with what the API billed.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
WEATHER = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_current_weather",
            "description": "Get the current weather in a given location",
            "parameters": {
                "type": "object",
                "properties": {
                    "location": {
                        "type": "string",
                        "description": "The city and state, e.g. San Francisco, CA",
                    },
                    "unit": {
                        "type": "string",
                        "description": "The unit of temperature to return",
                        "enum": ["celsius", "fahrenheit"],
                    },
                },
                "required": ["location"],
            },
        },
    }
]


@pytest.mark.parametrize(("model", "billed"), [("gpt-4o", 124), ("gpt-4o-mini", 124), ("gpt-4-0613", 129)])
def test_chat_is_counted_as_the_api_bills_it(model: str, billed: int) -> None:
    assert tokens.count_chat(JARGON, model) == billed


@pytest.mark.parametrize(("model", "billed"), [("gpt-4o", 101), ("gpt-4", 105), ("gpt-3.5-turbo", 105)])
def test_tools_are_counted_as_the_api_bills_them(model: str, billed: int) -> None:
    assert tokens.count_chat(WEATHER, model, WEATHER_TOOLS) == billed


def test_parts_count_like_the_same_text_and_images_on_top() -> None:
    plain = tokens.count_chat([{"role": "user", "content": "What is this?"}], "gpt-4o")
    parts: list[dict[str, object]] = [{"type": "text", "text": "What is this?"}]
    assert tokens.count_chat([{"role": "user", "content": parts}], "gpt-4o") == plain
    parts.append({"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}})
    assert tokens.count_chat([{"role": "user", "content": parts}], "gpt-4o") == plain + 85


@pytest.mark.parametrize(
    ("model", "detail", "tokens_"),
    [
        ("gpt-4o", "high", 1445),  # what the API billed for 2049 x 513 pixels, less the text
        ("gpt-4o", "low", 85),
        ("gpt-4o-mini", "high", 2833 + 8 * 5667),
        ("gpt-4.1-mini", "low", 2489),
        ("nobody-knows", None, 2833 + 8 * 5667),
    ],
)
def test_an_image_costs_more_than_its_address(model: str, detail: str | None, tokens_: int) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://e.com/a", "detail": detail}}
    assert tokens.media_upper_bound([{"role": "user", "content": [part]}], model) == tokens_


def test_a_file_is_not_bounded_by_its_request() -> None:
    part = {"type": "file", "file": {"file_id": "file-1"}}
    assert tokens.media_upper_bound([{"role": "user", "content": [part]}], "gpt-4o") is None
    assert tokens.media_upper_bound([{"role": "user", "content": "text"}], "gpt-4o") == 0


names = st.text(min_size=1, max_size=8)
leaf = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "boolean"])},
    optional={
        "description": st.text(max_size=20),
        "enum": st.lists(st.one_of(st.text(max_size=3), st.integers(0, 9), st.booleans()), max_size=5),
    },
)
schema = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(names, inner, max_size=4)}
        ),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
    ),
    max_leaves=8,
)
tool = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": names}, optional={"description": st.text(max_size=20), "parameters": schema}
        ),
    }
)
image = st.fixed_dictionaries(
    {
        "type": st.just("image_url"),
        "image_url": st.fixed_dictionaries(
            {"url": names, "detail": st.sampled_from(["low", "high", "auto"])}
        ),
    }
)
text_part = st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=20)})
message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
        "content": st.one_of(
            st.text(max_size=40), st.none(), st.lists(st.one_of(text_part, image), max_size=3)
        ),
    },
    optional={
        "name": names,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {
                    "id": names,
                    "type": st.just("function"),
                    "function": st.fixed_dictionaries({"name": names, "arguments": st.text(max_size=20)}),
                }
            ),
            max_size=2,
        ),
    },
)


@given(
    messages=st.lists(message, max_size=4), tools=st.lists(tool, max_size=3), model=st.sampled_from(MODELS)
)
@tries(300)
def test_body_bytes_bound_the_whole_request(messages: list, tools: list, model: str) -> None:
    body = {"model": model, "messages": messages, "tools": tools}
    sent = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    media = tokens.media_upper_bound(messages, model)
    assert media is not None
    assert tokens.upper_bound(sent) + media >= tokens.count_chat(messages, model, tools)


REQUEST_KEYS = [
    "role",
    "content",
    "type",
    "text",
    "tool_calls",
    "function",
    "name",
    "parameters",
    "properties",
    "enum",
    "items",
    "image_url",
    "input_audio",
    "description",
    "arguments",
    "function_call",
]
json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(REQUEST_KEYS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


@given(
    messages=st.lists(st.dictionaries(st.sampled_from(["role", "content", "tool_calls"]), json_value)),
    tools=st.lists(json_value, max_size=3),
)
@tries(300)
def test_malformed_messages_are_counted_without_an_error(messages: list, tools: list) -> None:
    assert tokens.count_chat(messages, "gpt-4o", tools) >= 3
    tokens.media_upper_bound(messages, "gpt-4o")


@given(text=st.text(max_size=200), limit=st.integers(-1, 60), model=st.sampled_from(MODELS))
@tries(300)
def test_truncation_keeps_a_beginning_within_the_limit(text: str, limit: int, model: str) -> None:
    kept = tokens.truncate_text(text, model, limit)
    assert text.startswith(kept)
    assert tokens.count_text(kept, model) <= max(limit, 0)
    if tokens.count_text(text, model) <= limit:
        assert kept == text


def test_truncation_of_a_long_text_spends_the_whole_limit() -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 10_000
    kept = tokens.truncate_text(text, "gpt-4o", 50_000)
    assert tokens.count_text(kept, "gpt-4o") == 50_000
