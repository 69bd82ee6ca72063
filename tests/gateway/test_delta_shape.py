"""Deltas of a response that are known at sight are read, relayed and watched just as those that are read as JSON."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.verdicts import AFTER, BLOCK, REDACT
from llmops.gateway.policing.response_streams import ResponsesWatcher
from llmops.gateway.streaming import responses as streaming
from llmops.gateway.streaming.responses import ResponsesRelay
from llmops.policies.checks import compiled
from llmops.policies.decisions import Placeholders, Rule
from llmops.policies.engine import Guard
from tests.gateway.responding import a_response, created, delta, event, message
from tests.trying import tries


def padded(text: str, number: int = 0, **members: Any) -> bytes:
    """As OpenAI writes it."""
    return delta(text, number, logprobs=[], obfuscation="Ab3dE", **members)


def turned(text: str, number: int = 0) -> bytes:
    """Its number at the end, with spaces."""
    value = {
        "content_index": 0,
        "delta": text,
        "item_id": "msg_1",
        "output_index": 0,
        "type": "response.output_text.delta",
        "sequence_number": number,
    }
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def thought(text: str, number: int = 0) -> bytes:
    return event("response.reasoning_summary_text.delta", number, output_index=1, summary_index=0, delta=text)


def argued(text: str, number: int = 0) -> bytes:
    return event("response.function_call_arguments.delta", number, output_index=2, item_id="fc_1", delta=text)


def decoy(text: str, number: int = 0) -> bytes:
    """Something called delta stands in another member."""
    return delta(text, number, x={"delta": text, "sequence_number": number})


def twice(text: str, number: int = 0) -> bytes:
    """A second delta, by an escape, is what readers of JSON take."""
    return delta(text, number).replace(b"}\n\n", b',"delt\\u0061":"other"}\n\n')


def itemed(text: str, number: int = 0) -> bytes:
    return delta(text, number, item={"type": "reasoning", "id": "rs_1"})


words = st.text(st.sampled_from('ab @.é\u2028\u200b😀"\\\n1'), max_size=6) | st.sampled_from(
    ["you@example.com", "acme", " corp", "~the text of a probe~", "[EMAIL_1]", "", "987654321012345"]
)
makers = st.sampled_from(
    [
        delta,
        padded,
        turned,
        thought,
        argued,
        decoy,
        twice,
        itemed,
        lambda text, number: padded(text, number, output_index=1),
        lambda text, number: delta(text, number).replace(b'"sequence_number":', b'"sequence_number":0'),
        lambda text, number: delta(text, number).replace(b"\n\n", b"\r\n\r\n"),
        lambda text, number: b"id: 1\n" + delta(text, number),
    ]
)
#: Mostly runs of one kind, as models write them.
runs = st.lists(
    st.builds(
        lambda make, texts, first: [make(text, first + index) for index, text in enumerate(texts)],
        makers,
        st.lists(words, max_size=6),
        st.integers(0, 200),
    ),
    max_size=5,
).map(lambda found: [event for run in found for event in run])
rules = st.sampled_from(
    [
        (),
        (("personal_data", REDACT, {}),),
        (("deny", BLOCK, {"rules": [{"name": "x", "words": ["acme corp"]}]}), ("secrets", REDACT, {})),
    ]
)


def relayed(pieces: list[bytes], checks: tuple[Any, ...]) -> Any:
    relay = ResponsesRelay()
    watcher = None
    if checks:
        guard = Guard([Rule("p", 1, compiled(kind, AFTER, action, how)) for kind, action, how in checks])
        watcher = relay.guard = ResponsesWatcher(guard, Placeholders())
    out = [relay.feed(piece) for piece in pieces]
    seen = (relay.text(), relay.events, relay.sequence, relay.done, relay.broken, relay.finish, relay.items)
    told = watcher.decision().verdicts if watcher else None
    return seen, told, [_meant(piece) for piece in out] if checks else out


def _meant(data: bytes) -> list[Any]:
    return [
        json.loads(line[6:]) if line.startswith(b"data: {") else line
        for line in data.splitlines()
        if line.startswith((b"data:", b"event:", b"id:"))
    ]


@given(runs, st.lists(st.integers(0, 10_000), max_size=6), st.booleans(), rules)
@tries(400)
def test_what_is_known_at_sight_is_as_what_is_read(
    events: list[bytes], places: list[int], together: bool, checks: tuple[Any, ...]
) -> None:
    end = event("response.completed", 999, response=a_response(output=[message("Hello")]))
    pieces = [created(), *events, end]
    if together:
        whole = b"".join(pieces)
        borders = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
        pieces = [whole[start:stop] for start, stop in pairwise(borders)]
    at_sight = relayed(pieces, checks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_LESSONS", 0)
        assert relayed(pieces, checks) == at_sight


@pytest.mark.parametrize("make", [delta, padded, turned, thought])
def test_a_run_of_deltas_is_known_at_sight_after_the_first(make: Any) -> None:
    relay = ResponsesRelay()
    relay.feed(make("Hello", 4))
    shape = relay._shape
    assert shape is not None
    for number, text in enumerate((" world", "!", "ä 😀"), start=5):
        assert shape.read(make(text, number)) == (text, number)
        assert relay.feed(make(text, number)) == make(text, number)
        assert relay.sequence == number


@pytest.mark.parametrize("make", [argued, decoy, twice, itemed])
def test_what_says_more_than_its_text_is_never_known_at_sight(make: Any) -> None:
    relay = ResponsesRelay()
    for number in range(3):
        relay.feed(make("Hello", number))
    assert relay._shape is None


@pytest.mark.parametrize(
    "inside",
    [
        b'x","y":"z',
        b"x\\",
        b'x\\"',
        b"x\ny",
        b"x\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b'x"}\n\ndata: {"type":"error"',
        b"",
    ],
)
def test_bytes_that_are_no_text_are_never_taken_for_it(inside: bytes) -> None:
    relay = ResponsesRelay()
    relay.feed(padded("Hello", 3))
    before, _, after = padded("Hello", 3).partition(b"Hello")
    assert relay._shape is not None
    assert relay._shape.read(before + inside + after) is None
    whole = before + b"x" + after
    assert relay._shape.read(whole) == ("x", 3)
    for cut in range(len(whole)):
        assert relay._shape.read(whole[:cut]) is None


@pytest.mark.parametrize("number", [b"", b"-1", b"03", b"1.0", b"1e3", b"9" * 16, b'"4"', b"4 "])
def test_what_is_no_number_is_never_taken_for_one(number: bytes) -> None:
    relay = ResponsesRelay()
    relay.feed(delta("Hello", 3))
    assert relay._shape is not None
    assert relay._shape.read(delta("x", 3).replace(b":3,", b":" + number + b",")) is None
