"""What the lines of a stream say, however they are cut into pieces."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from llmops.playground.hearing import Hearing, error_of, head_of, joined


def heard(*lines):
    hearing = Hearing()
    return [event for line in lines for event in hearing.line(line)], hearing


def data(value):
    return b"data: " + json.dumps(value).encode() + b"\n"


def delta(**members):
    return data({"choices": [{"index": 0, "delta": members}]})


def test_an_answer_from_its_first_word_to_its_usage():
    events, hearing = heard(
        b": keep-alive\n",
        delta(role="assistant"),
        delta(content="Hel"),
        b"\n",
        delta(content="lo"),
        data({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}),
        data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2,
              "completion_tokens_details": {"reasoning_tokens": 1}}}),
        b"data: [DONE]\n",
    )  # fmt: skip
    assert joined(events) == [
        {"t": "text", "v": "Hello"},
        {"t": "end", "finish": "length", "usage": {"input": 5, "output": 2, "reasoning": 1}},
    ]
    assert hearing.ended


def test_calls_of_tools_grow():
    events, _ = heard(
        delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"a'}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '":1}'}}]),
    )
    assert joined(events) == [{"t": "tool", "i": 0, "id": "c", "name": "look", "args": '{"a":1}'}]


def test_an_error_in_the_stream_ends_it():
    events, hearing = heard(
        delta(content="a"), data({"error": {"message": "broke", "code": "stream_interrupted"}})
    )
    assert [event["t"] for event in events] == ["text", "error"] and hearing.ended
    assert events[1]["code"] == "stream_interrupted"


def test_what_is_no_error_of_ours_is_named():
    assert error_of(502, b"<html>")["code"] == "gateway_odd"
    assert "502" in error_of(502, b"<html>")["message"]
    assert error_of(429, b'{"error": {"message": "m", "code": "c"}}')["message"] == "m"


def test_the_head():
    assert head_of(200, {"x-llmops-call-id": "i", "x-llmops-attempts": "2", "x-llmops-output-cap": "x"}) == {
        "t": "head", "status": 200, "call": "i", "attempts": 2,
    }  # fmt: skip


@given(st.lists(st.binary(max_size=60)))
def test_no_line_whatever_breaks_it(lines):
    hearing = Hearing()
    for line in lines:
        hearing.line(b"data: " + line)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["choices", "delta", "tool_calls", "function", "usage", "error", "index"]),
                inner,
            )
        ),
    )
)
def test_no_json_whatever_breaks_it(value):
    events = Hearing().line(data(value))
    json.dumps(joined(events))
