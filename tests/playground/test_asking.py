"""What a column becomes on its way to the data plane, and what is refused before anything is spent."""

from __future__ import annotations

import pytest

from llmops.core.errors import InvalidRequest
from llmops.playground.asked import Material, edited_content, request_of
from llmops.prompts.content import checked

CONTENT = checked(
    {
        "system": "You greet.",
        "task": "Say {{ greeting }}.",
        "user": "{{ name }}",
        "route": "chat",
        "parameters": {"temperature": 0.5, "max_output_tokens": 50},
        "variables": [{"name": "greeting", "type": "choice", "choices": ["hi", "hello"]}, {"name": "name", "type": "text"}],
        "samples": [{"name": "one", "variables": {"greeting": "hi", "name": "Ada"}}],
        "output_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
    }
)  # fmt: skip
VALUES = {"greeting": "hi", "name": "Ada"}


def of_prompt(served: bool = True, version: str = "4", **column):
    return request_of(
        {"source": "prompt", "variables": VALUES, **column}, Material("hello", version, CONTENT, served)
    )


def text(*turns, **column):
    messages = [{"role": role, "content": content} for role, content in turns]
    return request_of({"source": "text", "model": "chat", "messages": messages, **column}, None)


def test_a_published_version_is_named_and_not_told():
    request = of_prompt()
    assert request.body["prompt"] == {"id": "hello", "version": 4, "variables": VALUES}
    assert "messages" not in request.body and "temperature" not in request.body
    assert (request.model, request.prompt, request.version, request.tags) == ("chat", "hello", "4", [])


def test_a_draft_is_told_as_its_version_will_be():
    request = of_prompt(served=False, version="draft")
    assert "prompt" not in request.body
    assert [one["role"] for one in request.body["messages"]] == ["system", "user"]
    assert request.body["temperature"] == 0.5
    assert request.body["max_completion_tokens"] == 50
    assert request.body["response_format"]["json_schema"]["name"] == "hello"
    assert request.tags == ["hello@draft"]


def test_what_was_edited_is_marked_and_declares_its_new_names():
    request = of_prompt(
        source="edited",
        content={"task": "Say {{ greeting }} to {{ whom }}."},
        variables={**VALUES, "whom": "Bob"},
    )
    assert request.version == "edited" and request.tags == ["hello@edited"]
    assert "Bob" in request.body["messages"][0]["content"]
    kept = edited_content({"content": {"task": "Say hello."}}, CONTENT)
    assert [one["name"] for one in kept["variables"]] == ["name"]
    assert kept["samples"][0]["variables"] == {"name": "Ada"}


def test_every_answer_is_streamed_with_its_usage():
    for request in (of_prompt(), text(("user", "hi"))):
        assert request.body["stream"] is True
        assert request.body["stream_options"] == {"include_usage": True}


def test_parameters_of_a_column_win():
    request = of_prompt(served=False, parameters={"temperature": 1, "max_output_tokens": 9})
    assert (request.body["temperature"], request.body["max_completion_tokens"]) == (1, 9)
    assert of_prompt(model="other").model == "other"


def test_values_of_other_columns_are_left_out():
    assert of_prompt(variables={**VALUES, "of_another": 1}).body["prompt"]["variables"] == VALUES


def test_turns_of_ones_own():
    request = text(("system", ""), ("user", "a"), ("assistant", "b"), ("user", "c"))
    assert [one["content"] for one in request.body["messages"]] == ["a", "b", "c"]


def test_the_shape_of_an_answer_and_tools():
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    request = text(
        ("user", "a"), response_format={"type": "json_schema", "schema": {"type": "object"}}, tools=[tool]
    )
    assert request.body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert request.body["tools"] == [tool]
    assert text(("user", "a"), response_format={"type": "json_object"}).body["response_format"] == {
        "type": "json_object"
    }


def test_equal_questions_have_equal_digests():
    assert of_prompt().digest == of_prompt().digest != of_prompt(variables={**VALUES, "name": "Bob"}).digest


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        (lambda: of_prompt(variables={"greeting": "hi"}), "variables.name"),
        (lambda: of_prompt(variables={**VALUES, "greeting": "bye"}), "variables.greeting"),
        (lambda: of_prompt(parameters={"temperature": 3}), "parameters.temperature"),
        (lambda: of_prompt(surprise=1), "surprise"),
        (lambda: request_of({"source": "prompt"}, None), "prompt"),
        (lambda: request_of({"source": "else"}, None), "source"),
        (lambda: of_prompt(source="edited", content={"task": "{{ broken"}), "task"),
        (lambda: text(), "messages"),
        (lambda: text(("system", "only this")), "messages"),
        (lambda: text(("tool", "x")), "messages[0]"),
        (lambda: text(("user", "x" * 400_001)), "messages"),
        (lambda: text(("user", "\x00")), "messages[0]"),
        (lambda: text(("user", "a"), model=""), "model"),
        (lambda: text(("user", "a"), model=["chat"]), "model"),
        (lambda: text(("user", "a"), tools=[{}]), "tools"),
        (lambda: text(("user", "a"), tools="[]"), "tools"),
        (lambda: text(("user", "a"), response_format={"type": "json_schema"}), "response_format"),
        (lambda: text(("user", "a"), response_format={"schema": {"type": 5}}), "response_format"),
        (lambda: text(("user", "a"), parameters=[1]), "parameters"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(ask, param):
    with pytest.raises(InvalidRequest) as refused:
        ask()
    assert refused.value.param == param
