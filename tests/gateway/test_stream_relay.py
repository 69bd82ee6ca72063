"""The relay of server-sent events, whatever pieces the bytes come in and wherever they end."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.streaming import events as streaming
from llmops.gateway.streaming.chat import ChatRelay
from llmops.gateway.streaming.events import Relay
from tests.gateway.rig import DONE, chunk, usage, usage_chunk
from tests.trying import tries

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)
#: Text that looks like what the relay looks for, which inside of JSON it is not.
traps = st.sampled_from(
    [
        '"usage":null',
        ',"usage":null',
        "data: [DONE]",
        "\n\n",
        "[DONE]",
        '"error":{}',
        "\r\n",
        '{"usage":1}',
        "\\",
    ]
)
content_events = st.builds(chunk, st.one_of(texts, traps))
null_usage_events = st.builds(lambda text: chunk(text, used=None), st.one_of(texts, traps))
spaced_events = st.builds(
    lambda text: (
        b"data:"
        + json.dumps({"choices": [{"delta": {"content": text}}], "usage": None, "more": [1]}).encode()
        + b"\n\n"
    ),
    texts,
)
comments = st.sampled_from([b": keep-alive\n\n", b":\n\n", b"event: ping\n\n", b"id: 7\n\n", b"\n\n"])
many_lines = st.just(b'data: {"choices":[],\ndata: "more":1}\n\n')
windows_lines = st.builds(lambda text: chunk(text).replace(b"\n", b"\r\n"), texts)
events = st.lists(
    st.one_of(content_events, null_usage_events, spaced_events, comments, many_lines, windows_lines),
    max_size=8,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(borders)]


def feed(relay: Relay, pieces: list[bytes]) -> bytes:
    return b"".join([relay.feed(piece) for piece in pieces])


def data_of(stream: bytes) -> list[Any]:
    """The JSON of each event of a stream, read by plain means."""
    found = []
    for event in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        if lines and lines != [b"[DONE]"]:
            found.append(json.loads(b"\n".join(lines)))
    return found


@given(events, st.lists(st.integers(0, 10_000), max_size=12))
@tries(300)
def test_what_the_client_asked_for_is_relayed_byte_for_byte(before: list[bytes], places: list[int]) -> None:
    whole = b"".join([*before, usage_chunk(), DONE])
    relay = ChatRelay(hide_usage=False)
    out = feed(relay, cut(whole, places))
    assert relay.done and not relay.broken
    assert out + relay.tail == whole
    assert json.loads(relay.usage or b"") == usage()


@given(events, st.lists(st.integers(0, 10_000), max_size=12))
@tries(300)
def test_usage_that_was_not_asked_for_is_hidden_and_nothing_else_changes(
    before: list[bytes], places: list[int]
) -> None:
    whole = b"".join([*before, usage_chunk(), DONE])
    relay = ChatRelay(hide_usage=True)
    out = feed(relay, cut(whole, places))
    assert relay.done and not relay.broken
    expected = data_of(b"".join(before))
    for one in expected:
        one.pop("usage", None)
    assert data_of(out) == expected
    untouched = [event for event in before if b'"usage"' not in event]
    for event in untouched:
        assert event in out
    assert relay.tail == DONE
    assert json.loads(relay.usage or b"") == usage()


@given(events, st.lists(st.integers(0, 10_000), max_size=8), st.integers(0, 10_000), st.booleans())
@tries(300)
def test_a_stream_cut_anywhere_is_a_beginning_of_whole_events_and_never_done(
    before: list[bytes], places: list[int], end: int, hide: bool
) -> None:
    whole = b"".join([*before, DONE])
    short = whole[: end % (len(whole) - len(b" [DONE]\n\n") + 1)]
    relay, uncut = ChatRelay(hide_usage=hide), ChatRelay(hide_usage=hide)
    out = feed(relay, cut(short, places))
    relay.end()
    assert not relay.done and relay.broken and relay.tail == b""
    assert feed(uncut, [whole]).startswith(out)
    assert out == b"" or out.endswith((b"\n\n", b"\r\n\r\n", b"\n\r\n"))
    assert relay.feed(b"data: {}\n\n") == b""


@given(events, st.lists(st.integers(0, 10_000), max_size=8))
@tries(150)
def test_the_pieces_make_no_difference(before: list[bytes], places: list[int]) -> None:
    whole = b"".join([*before, chunk(finish="stop"), usage_chunk(prompt=3), DONE, b"after the end"])
    at_once, bit_by_bit, random_pieces = (ChatRelay(hide_usage=True) for _ in range(3))
    seen = {
        feed(at_once, [whole]),
        feed(bit_by_bit, [whole[i : i + 1] for i in range(len(whole))]),
        feed(random_pieces, cut(whole, places)),
    }
    assert len(seen) == 1
    assert {
        (one.text(), one.finish, one.usage, one.tail, one.events)
        for one in (at_once, bit_by_bit, random_pieces)
    } == {(at_once.text(), "stop", at_once.usage, DONE, at_once.events)}


def test_text_of_every_kind_is_collected_for_counting() -> None:
    relay = ChatRelay(hide_usage=True)
    call = {"index": 0, "function": {"name": "find", "arguments": '{"a":'}}
    relay.feed(chunk("one "))
    relay.feed(chunk(choices=[{"delta": {"tool_calls": [call]}}]))
    relay.feed(chunk(choices=[{"delta": {"refusal": " no"}}, {"delta": {"reasoning_content": " hm"}}]))
    assert relay.text() == 'one find{"a": no hm'
    for _ in range(5_000):
        relay.feed(chunk("x"))
    assert relay.text().endswith("x" * 5_000)
    assert len(relay.parts) < 600


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {nope\n\n",
        b"data: \n\n",
        b"data: [1,\n\n",
        b'data: {"a":1}}\n\n',
        b"data: \xff\xfe\n\n",
        b"data: DONE\n\n",
    ],
)
def test_an_event_that_is_not_json_breaks_the_stream_after_what_was_good(broken: bytes) -> None:
    relay = ChatRelay(hide_usage=False)
    assert relay.feed(chunk("good") + broken + chunk("never") + DONE) == chunk("good")
    assert relay.broken == "an event is not JSON"
    assert not relay.done


def test_json_of_another_shape_is_relayed_and_counted_as_text() -> None:
    relay = ChatRelay(hide_usage=True)
    odd = [
        b'data: {"choices":"later"}\n\n',
        b"data: [1,2]\n\n",
        b'data: {"choices":[{"delta":{"content":5}}]}\n\n',
    ]
    assert feed(relay, odd) == b"".join(odd)
    assert not relay.broken
    assert '{"choices":"later"}' in relay.text()


def test_an_error_event_of_the_provider_is_held_back_and_told() -> None:
    relay = ChatRelay(hide_usage=False)
    error = b'data: {"error":{"message":"overloaded sk-proj-aaaaaaaaaaaaaaaaaaaaaaaa"}}\n\n'
    assert relay.feed(chunk("a") + error + DONE) == chunk("a")
    assert relay.broken and not relay.done and relay.provider_error
    assert ChatRelay(hide_usage=False).feed(b'data: {"error":null,"choices":[]}\n\n') != b""


def test_done_counts_without_its_blank_line_at_the_very_end() -> None:
    for end in (b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n"):
        relay = ChatRelay(hide_usage=False)
        assert relay.feed(chunk("a") + end) == chunk("a")
        assert not relay.done
        relay.end()
        assert relay.done and relay.tail == DONE


def test_usage_beside_choices_is_hidden_with_every_other_byte_kept() -> None:
    plain = chunk("x", finish="stop")
    relay = ChatRelay(hide_usage=True)
    assert relay.feed(chunk("x", finish="stop", used=usage(3, 4))) == plain
    assert json.loads(relay.usage or b"") == usage(3, 4)
    nested = b'data: {"usage":null,"choices":[{"delta":{"content":"y"},"usage":null}]}\n\n'
    assert relay.feed(nested) == b'data: {"choices":[{"delta":{"content":"y"},"usage":null}]}\n\n'


def test_an_endless_event_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming.Relay, "largest", 1_000)
    relay = ChatRelay(hide_usage=False)
    assert relay.feed(chunk("a") + b"data: " + b"x" * 500) == chunk("a")
    relay.feed(b"x" * 600)
    assert relay.broken
    assert not relay._buffer


def test_an_event_in_pieces_costs_what_its_bytes_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the pieces are, and with a line end in each: what is kept is read when an event is complete, once."""
    read = 0
    real = streaming._event_ends

    def counted(data: bytes) -> Any:
        nonlocal read
        read += len(data)
        return real(data)

    monkeypatch.setattr(streaming, "_event_ends", counted)
    lines = [b"data:\n"] * 20_000
    for end in (b"\n", b"\r\n", b"\r"):
        relay, read = ChatRelay(hide_usage=False), 0
        out = feed(relay, [b'data: {"choices":[]\n', *lines, b"data: }", end, end, DONE])
        size = sum(map(len, lines))
        assert out == b'data: {"choices":[]\n' + b"".join(lines) + b"data: }" + end + end
        assert relay.done
        assert read < 5 * size


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"data: {}", b": x"]), max_size=20), st.data())
@tries(300)
def test_line_ends_of_all_kinds_mean_the_same_in_any_pieces(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts) + b"\n\n" + DONE
    places = data.draw(st.lists(st.integers(0, 10_000), max_size=12))

    def read(pieces: list[bytes]) -> tuple[bytes, bool, str]:
        relay = ChatRelay(hide_usage=False)
        return feed(relay, pieces), relay.done, relay.broken

    in_one = read([whole])
    assert in_one[1] or in_one[2] == streaming.NOT_JSON
    assert read(cut(whole, places)) == in_one
    assert read([whole[n : n + 1] for n in range(len(whole))]) == in_one
