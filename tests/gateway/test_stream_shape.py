"""Chunks that are known at sight are read, shown and watched just as those that are read as JSON."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.verdicts import AFTER, BLOCK, REDACT, RETRY
from llmops.gateway.policing.chat_streams import ChatWatcher
from llmops.gateway.streaming import chat as streaming_chat
from llmops.gateway.streaming.chat import ChatRelay
from llmops.policies.checks import compiled
from llmops.policies.decisions import Placeholders, Rule
from llmops.policies.engine import Guard
from tests.gateway.rig import DONE, Answer, Reply, Rig, ask, chunk, usage_chunk
from tests.gateway.rig import Asked as Request
from tests.gateway.test_policing import said, under
from tests.trying import tries


def openai(text: str, padding: str = "Ab3dE", **members: Any) -> bytes:
    """A chunk as OpenAI writes it when usage is asked for."""
    return chunk(
        choices=[{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
        used=None,
        obfuscation=padding,
        **members,
    )


def spaced(text: str) -> bytes:
    value = {"usage": None, "choices": [{"index": 0, "delta": {"content": text}}], "usages": {"usage": None}}
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def two(text: str) -> bytes:
    """Looks like a chunk of text, but says something else beside it."""
    return chunk(choices=[{"index": 1, "delta": {"content": text, "refusal": "No"}}])


def reasoned(text: str) -> bytes:
    return chunk(choices=[{"index": 0, "delta": {"content": text, "reasoning": "x@example.com "}}])


def decoy(text: str) -> bytes:
    """Something called content stands before the delta."""
    return chunk(choices=[{"x": {"content": text}, "index": 0, "delta": {"content": text}}])


words = st.text(st.sampled_from('ab @.é\u2028\u200b😀"\\\n1'), max_size=6) | st.sampled_from(
    ["you@example.com", "acme", " corp", "~the text of a probe~", "[EMAIL_1]", ""]
)
makers = st.sampled_from(
    [
        chunk,
        openai,
        spaced,
        two,
        reasoned,
        decoy,
        lambda text: openai(text, ""),
        lambda text: openai(text, 'no"letters'),
        lambda text: chunk(text, id="other"),
        lambda text: chunk(text).replace(b"\n\n", b"\r\n\r\n"),
        lambda text: b"id: 1\n" + chunk(text),
        lambda text: chunk(choices=[{"index": 1, "delta": {"role": "assistant", "content": text}}]),
        lambda text: chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]),
    ]
)
#: Mostly runs of one kind, as models write them.
runs = st.lists(
    st.builds(lambda make, texts: [make(text) for text in texts], makers, st.lists(words, max_size=6)),
    max_size=5,
).map(lambda found: [event for run in found for event in run])
rules = st.sampled_from(
    [
        (),
        (("personal_data", REDACT, {}),),
        (("deny", BLOCK, {"rules": [{"name": "x", "words": ["acme corp"]}]}), ("secrets", REDACT, {})),
        (("deny", REDACT, {"rules": [{"name": "x", "words": ["acme"]}]}), ("refusal", RETRY, {})),
    ]
)


def relayed(pieces: list[bytes], hide: bool, checks: tuple[Any, ...]) -> Any:
    relay = ChatRelay(hide_usage=hide)
    watcher = None
    if checks:
        guard = Guard([Rule("p", 1, compiled(kind, AFTER, action, how)) for kind, action, how in checks])
        watcher = relay.guard = ChatWatcher(guard, Placeholders())
    out = [relay.feed(piece) for piece in pieces]
    seen = (relay.text(), relay.events, relay.usage, relay.done, relay.broken, relay.finish, relay.tail)
    told = (watcher.decision().verdicts, watcher.answers(None)) if watcher else None
    return seen, told, [_meant(piece) for piece in out]


def _meant(data: bytes) -> list[Any]:
    """Events by what they mean: JSON may be written in several ways."""
    return [
        json.loads(line[6:]) if line.startswith(b"data: {") else line
        for line in data.splitlines()
        if line.startswith(b"data:")
    ]


@given(runs, st.lists(st.integers(0, 10_000), max_size=6), st.booleans(), st.booleans(), rules)
@tries(400)
def test_what_is_known_at_sight_is_as_what_is_read(
    events: list[bytes], places: list[int], hide: bool, together: bool, checks: tuple[Any, ...]
) -> None:
    pieces = [*events, usage_chunk(), DONE]
    if together:
        whole = b"".join(pieces)
        borders = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
        pieces = [whole[start:end] for start, end in pairwise(borders)]
    at_sight = relayed(pieces, hide, checks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming_chat, "_LESSONS", 0)
        assert relayed(pieces, hide, checks) == at_sight


@pytest.mark.parametrize("make", [chunk, openai, spaced])
@pytest.mark.parametrize("hide", [False, True])
def test_a_run_of_chunks_is_known_at_sight_after_the_first(make: Any, hide: bool) -> None:
    relay = ChatRelay(hide_usage=hide)
    relay.feed(make("Hello"))
    shape = relay._shape
    assert shape is not None
    for text in (" world", "!", "ä 😀"):
        event = make(text).replace(json.dumps(text)[1:-1].encode(), text.encode())
        assert shape.text_in(event) == text
        assert hide or shape.shown(event) == event


@pytest.mark.parametrize(
    "inside",
    [
        b'x"},"finish_reason":"stop"',
        b'x","refusal":"no',
        b"x\\",
        b'x\\"',
        b"x\ny",
        b"x\x00",
        b"x\x7f",
        b"\xff",
        b"\xed\xa0\x80",
        b'x"}}]}\n\ndata: {"error":{"message":"x',
    ],
)
def test_bytes_that_are_no_text_are_never_taken_for_it(inside: bytes) -> None:
    relay = ChatRelay(hide_usage=False)
    relay.feed(chunk("Hello"))
    before, _, after = chunk("Hello").partition(b"Hello")
    assert relay._shape is not None
    assert relay._shape.text_in(before + inside + after) is None
    for cut in range(len(before + after)):
        assert relay._shape.text_in((before + b"x" + after)[:-1][: cut + 1]) is None


@pytest.mark.parametrize(
    "checks",
    [
        (),
        (("deny", AFTER, BLOCK, {"rules": [{"name": "x", "words": ["acme"]}]}),),
        (("secrets", AFTER, REDACT, {}), ("special_tokens", AFTER, BLOCK, {})),
        (("personal_data", AFTER, REDACT, {}), ("refusal", AFTER, BLOCK, {})),
    ],
)
@pytest.mark.parametrize("halves", [False, True])
async def test_a_piece_goes_out_before_the_next_one_comes(rig: Rig, checks: Any, halves: bool) -> None:
    """The upstream writes the next piece only when the client has the one before."""
    under(rig, *checks)
    pieces = [f" {number}th word, " for number in range(20)]
    turn = [0]

    def has(words: int, answer: Answer) -> bool:
        return said(answer).count("th word,") == words

    async def script(asked: Request, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for number, piece in enumerate(pieces):
            event = chunk(piece)
            if halves:
                # Whatever the pieces of the bytes: an event goes out when its last byte is there.
                await reply.chunk(event[:40])
                event = event[40:]
            await reply.chunk(event)
            await exchange.answer.until(partial(has, number + 1))
            turn[0] += 1
        await reply.chunk(chunk(finish="stop") + usage_chunk() + DONE)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(text="Go on", stream=True))
    answer = await exchange.done()
    assert turn == [len(pieces)]
    assert said(answer) == "".join(pieces)
