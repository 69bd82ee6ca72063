"""The relay of the events of a response, whatever pieces the bytes come in, whatever ends their lines have."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import StreamInterrupted
from llmops.gateway.streaming.chat import ChatRelay
from llmops.gateway.streaming.events import Relay
from llmops.gateway.streaming.responses import ResponsesRelay
from tests.gateway.responding import created, delta, ended, event, used
from tests.gateway.rig import DONE, chunk, usage, usage_chunk
from tests.trying import tries

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
traps = st.sampled_from(
    [
        "response.completed",
        "event: response.completed\ndata: {}\n\n",
        "\r\n\r\n",
        "data: [DONE]",
        '"usage":null',
        "\\",
    ]
)
numbers = st.integers(0, 99)
comments = st.sampled_from(
    [b": keep-alive\n\n", b":\n\n", b"event: ping\n\n", b"id: 7\nretry: 10\n\n", b"\n\n"]
)
deltas = st.builds(delta, st.one_of(texts, traps), numbers)
unnamed = st.builds(lambda text: event("response.output_text.delta", 3, named=False, delta=text), texts)
unknown = st.builds(lambda text: event("response.something.new", 4, thing={"a": [text, None]}), texts)
with_ids = st.builds(lambda text: b"id: 1\n" + delta(text), texts)
many_lines = st.just(b'event: x\ndata: {"type":"response.x",\ndata: "more":1}\n\n')
response_events = st.lists(
    st.one_of(deltas, unnamed, unknown, with_ids, comments, many_lines, st.just(created())), max_size=8
)
chat_events = st.lists(
    st.one_of(
        st.builds(chunk, st.one_of(texts, traps)),
        comments,
        st.just(b'data: {"choices":[],\ndata: "more":1}\n\n'),
    ),
    max_size=8,
)
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
places = st.lists(st.integers(0, 10_000), max_size=12)


def cut(data: bytes, where: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in where)})
    return [data[start:end] for start, end in pairwise(borders)]


def fed(relay: Relay, pieces: list[bytes]) -> bytes:
    out = b"".join([relay.feed(piece) for piece in pieces])
    return out + relay.end()


def with_ends(data: bytes, end: bytes) -> bytes:
    return data.replace(b"\n", end)


@given(response_events, places, line_ends, st.sampled_from(["completed", "incomplete", "failed"]))
@tries(300)
def test_events_are_relayed_byte_for_byte_and_the_last_one_is_held_back(
    before: list[bytes], where: list[int], end: bytes, status: str
) -> None:
    last = with_ends(ended(status), end)
    start = with_ends(b"".join(before), end)
    relay = ResponsesRelay()
    assert fed(relay, cut(start + last, where)) == start
    assert relay.done and not relay.broken
    assert relay.tail == last
    assert json.loads(relay.usage or b"") == used()
    assert (relay.id, bool(relay.failed)) == ("resp_1", status == "failed")


@given(chat_events, places, line_ends)
@tries(200)
def test_chunks_of_a_chat_are_relayed_byte_for_byte_with_any_line_ends(
    before: list[bytes], where: list[int], end: bytes
) -> None:
    start, last = with_ends(b"".join([*before, usage_chunk()]), end), with_ends(DONE, end)
    relay = ChatRelay(hide_usage=False)
    assert fed(relay, cut(start + last, where)) == start
    assert relay.done and relay.tail == last
    assert json.loads(relay.usage or b"") == usage()


@given(response_events, places, line_ends)
@tries(200)
def test_the_pieces_make_no_difference(before: list[bytes], where: list[int], end: bytes) -> None:
    whole = with_ends(b"".join([*before, ended(), b"data: after the end\n\n"]), end)
    relays = [ResponsesRelay() for _ in range(3)]
    seen = {
        fed(relays[0], [whole]),
        fed(relays[1], [whole[i : i + 1] for i in range(len(whole))]),
        fed(relays[2], cut(whole, where)),
    }
    assert len(seen) == 1
    assert (
        len({(one.text(), one.finish, one.usage, one.tail, one.events, one.sequence) for one in relays}) == 1
    )


@given(response_events, places, st.integers(1, 10_000))
@tries(200)
def test_a_stream_cut_anywhere_is_a_beginning_of_whole_events_and_never_done(
    before: list[bytes], where: list[int], end: int
) -> None:
    start, last = b"".join(before), ended()
    # The last event cut so that its JSON is not whole.
    short = (start + last)[: max(0, len(start + last) - 3 - end % (len(start + last) - 3 + 1))]
    relay = ResponsesRelay()
    out = fed(relay, cut(short, where))
    assert relay.broken and not relay.done and relay.tail == b""
    assert start.startswith(out)
    assert out == b"" or out.endswith(b"\n\n")


def test_the_last_event_counts_without_its_blank_line() -> None:
    for end in (b"", b"\n", b"\r\n"):
        relay = ResponsesRelay()
        assert fed(relay, [created() + ended().rstrip(b"\n") + end]) == created()
        assert relay.done
        assert relay.tail.startswith(ended().rstrip(b"\n"))


@pytest.mark.parametrize(
    "error",
    [
        {
            "type": "error",
            "code": "server_error",
            "message": "overloaded",
            "param": None,
            "sequence_number": 4,
        },
        {"type": "error", "sequence_number": 4, "error": {"code": "server_error", "message": "overloaded"}},
        {"error": {"code": "server_error", "message": "overloaded"}},
    ],
)
def test_an_error_of_the_provider_is_held_back_and_told(error: dict[str, Any]) -> None:
    relay = ResponsesRelay()
    told = b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"
    assert relay.feed(created(0) + delta("a", 3) + told + ended()) == created(0) + delta("a", 3)
    assert relay.provider_error and not relay.done
    assert (relay.code, relay.broken) == ("server_error", "the provider reported an error: overloaded")


def test_our_error_event_goes_on_counting_and_is_known_in_both_shapes() -> None:
    relay = ResponsesRelay()
    relay.feed(created(0) + delta("a", 3))
    told = relay.error_event(StreamInterrupted("It broke off."))
    assert told.startswith(b"event: error\ndata: ") and told.endswith(b"\n\n")
    said = json.loads(told.partition(b"data: ")[2])
    assert (said["type"], said["code"], said["message"], said["param"], said["sequence_number"]) == (
        "error",
        "stream_interrupted",
        "It broke off.",
        None,
        4,
    )
    assert said["error"]["message"] == "It broke off."


def test_tool_calls_are_put_together_from_their_pieces() -> None:
    relay = ResponsesRelay()
    first = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "find", "arguments": ""}
    second = {"type": "web_search_call", "id": "ws_1"}
    third = {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_3", "name": "run", "input": ""}
    relay.feed(event("response.output_item.added", 1, output_index=0, item=first))
    relay.feed(event("response.function_call_arguments.delta", 2, output_index=0, delta='{"a":'))
    relay.feed(event("response.function_call_arguments.delta", 3, output_index=0, delta="1}"))
    relay.feed(event("response.output_item.added", 4, output_index=1, item=second))
    relay.feed(event("response.output_item.added", 5, output_index=2, item=third))
    relay.feed(event("response.custom_tool_call_input.delta", 6, output_index=2, delta="ls"))
    assert [(one.id, one.name, one.arguments) for one in relay.tool_calls] == [
        ("call_1", "find", '{"a":1}'),
        ("ws_1", "web_search", ""),
        ("call_3", "run", "ls"),
    ]
    relay.feed(event("response.output_item.done", 7, output_index=0, item=first | {"arguments": '{"a":2}'}))
    assert relay.tool_calls[0].arguments == '{"a":2}'
    assert relay.tools == ["find", "web_search", "run"]
    assert relay.text() == 'find{"a":1}web_searchrunls'


def test_tool_calls_of_a_chat_are_told_apart_by_choice_and_index() -> None:
    relay = ChatRelay(hide_usage=True)

    def called(choice: int, index: int, **function: Any) -> bytes:
        return chunk(choices=[{"index": choice, "delta": {"tool_calls": [{"index": index} | function]}}])

    relay.feed(called(0, 0, id="a", function={"name": "find", "arguments": ""}))
    relay.feed(called(0, 1, id="b", function={"name": "read", "arguments": ""}))
    relay.feed(called(1, 0, id="c", function={"name": "find", "arguments": ""}))
    relay.feed(called(0, 0, function={"arguments": "{}"}))
    relay.feed(called(0, 1, function={"arguments": "[1"}))
    relay.feed(called(0, 1, function={"arguments": "]"}))
    relay.feed(called(1, 1, id="d", type="custom", custom={"name": "run", "input": "ls"}))
    relay.feed(chunk(choices=[{"index": 0, "delta": {"function_call": {"name": "old", "arguments": "1"}}}]))
    assert [(one.kind, one.id, one.name, one.arguments) for one in relay.tool_calls] == [
        ("function", "a", "find", "{}"),
        ("function", "b", "read", "[1]"),
        ("function", "c", "find", ""),
        ("custom", "d", "run", "ls"),
        ("function", "function_call", "old", "1"),
    ]
    assert relay.tools == ["find", "read", "run", "old"]


class _Holding:
    """Holds one event back, and drops those that say "no"."""

    def __init__(self) -> None:
        self.held = b""

    def plain(self, event: bytes) -> bool:
        return True

    def feed(self, data: bytes, relay: Relay) -> bytes:
        if b"stop" in data:
            relay.broken = "stopped"
            return b""
        out, self.held = self.held, b"" if b"no" in data else data
        return out

    def end(self, relay: Relay) -> bytes:
        out, self.held = self.held, b""
        return out


def test_a_guard_may_hold_back_drop_and_stop() -> None:
    relay = ResponsesRelay()
    relay.guard = _Holding()
    assert relay.feed(delta("a", 1)) == b""
    assert relay.feed(delta("b", 2) + delta("no", 3)) == delta("a", 1) + delta("b", 2)
    assert relay.feed(delta("c", 4) + ended()) == delta("c", 4)
    assert relay.done and relay.tail == ended()
    relay = ResponsesRelay()
    relay.guard = _Holding()
    assert relay.feed(delta("a", 1) + delta("stop", 2) + delta("c", 3)) == b""
    assert relay.broken == "stopped"
