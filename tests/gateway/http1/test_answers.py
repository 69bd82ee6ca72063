"""An answer means the same however it is cut into pieces, and nothing that could be read in two ways is read at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmops.gateway.attempts import upstream
from llmops.gateway.attempts.failures import CUT, MALFORMED
from llmops.gateway.http1.answer import (
    MAX_CHUNK_LINE,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_INTERIM,
    MAX_TRAILER,
    Answer,
    BrokeOff,
    NotHttp,
)

TOKEN = "abcdefghijklmnopqrstuvwxyz0123456789-_.!#$%&'*+^`|~"
slow = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@dataclass
class Seen:
    status: int
    headers: dict[str, str]
    body: bytes
    reusable: bool
    error: type[Exception] | None
    failure: str = ""


async def reading(
    pieces: list[bytes], *, bodiless: bool = False, closes: bool = True, pours: bool = False
) -> Seen:
    """What a reader that reads along makes of the pieces, the connection closed behind them. ``pours``: it is given what comes
    within the reads that bring it, until it has had enough for a while."""
    answer = Answer(asyncio.get_running_loop(), None, bodiless=bodiless)
    body: list[bytes] = []

    def into(data: bytes) -> bool:
        assert data
        body.append(data)
        return len(body) % 3 > 0

    async def read() -> Exception | None:
        try:
            await answer.until_head()
            while True:
                if pours:
                    await answer.pour(into)
                data = await answer.readany()
                if not data:
                    break
                body.append(data)
        except OSError as error:
            return error
        return None

    reader = asyncio.ensure_future(read())
    for piece in pieces:
        answer.feed(piece)
        await asyncio.sleep(0)
    # Whether the connection may be used again is decided before it is closed.
    reusable = answer.reusable and answer.ended
    if closes:
        answer.feed_end()
    error = await asyncio.wait_for(reader, 5)
    failure = upstream.failure_of(error).kind if error is not None else ""
    return Seen(
        answer.status, answer.headers, b"".join(body), reusable, type(error) if error else None, failure
    )


def read(*pieces: bytes, bodiless: bool = False) -> Seen:
    seen = asyncio.run(reading(list(pieces), bodiless=bodiless))
    assert asyncio.run(reading(list(pieces), bodiless=bodiless, pours=True)) == seen
    return seen


# ---------------------------------------------------------------------- legal answers


names = st.text(TOKEN, min_size=1, max_size=12).filter(
    lambda name: name not in ("content-length", "transfer-encoding", "connection", "set-cookie", "x-same")
)
values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20).map(
    lambda text: text.strip(" \t\xa0\x85")
)
fields = st.dictionaries(names, values, max_size=6)
whitespace = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    out, at = [], 0
    while at < len(body):
        size = draw(st.integers(1, len(body) - at))
        zeros = draw(st.sampled_from(["", "0", "000"]))
        figure = draw(st.sampled_from([f"{size:x}", f"{size:X}"]))
        extension = draw(st.sampled_from(["", ";a", ";name=value", ' ; quoted="x y"']))
        out.append(f"{zeros}{figure}{extension}\r\n".encode() + body[at : at + size] + b"\r\n")
        at += size
    trailer = draw(st.sampled_from([b"", b"digest: x\r\n", b"a: 1\r\nB: 2\r\n"]))
    return b"".join(out) + draw(st.sampled_from([b"0", b"000", b"0;last"])) + b"\r\n" + trailer + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, Seen, bool]:
    """The bytes of an answer, what must be made of them, and whether they answer a HEAD."""
    bodiless = draw(st.booleans()) and draw(st.booleans())
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 429, 500]))
    shown = draw(fields)
    body = draw(st.binary(max_size=300))
    closes = draw(st.sampled_from([None, "close", "Close, te", "keep-alive"]))
    version = draw(st.sampled_from(["1.1", "1.1", "1.1", "1.0"]))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    empty = bodiless or status in (204, 304)
    reusable = version == "1.1" and (closes is None or "close" not in closes.lower())
    lines = [(name, draw(whitespace) + value + draw(whitespace)) for name, value in shown.items()]
    headers = dict(shown)
    if closes is not None:
        lines.append(("connection", closes))
        headers["connection"] = closes
    if framing == "chunked" and version == "1.0":
        framing = "close"
    if empty and status == 204 and not bodiless:
        framing = "close"
    sent = body
    if framing == "length":
        lines.append(("Content-Length", f" {len(body)}"))
        headers["content-length"] = str(len(body))
    elif framing == "chunked":
        lines.append(("Transfer-Encoding", " Chunked"))
        headers["transfer-encoding"] = "Chunked"
        sent = draw(chunked(body))
    elif not empty:
        reusable = False
    order = draw(st.permutations(lines))
    reason = draw(st.sampled_from(["", " ", " OK", " Not So \xe9"]))
    head = f"HTTP/{version} {status}{reason}\r\n" + "".join(f"{name}:{value}\r\n" for name, value in order)
    interim = draw(
        st.sampled_from(
            [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 2]
        )
    )
    raw = interim + head.encode("latin-1") + b"\r\n" + (b"" if empty else sent)
    behind = draw(st.sampled_from([b"", b"", b"", b"\x00", b"HTTP/1.1 200 OK\r\n\r\n"]))
    if behind and (empty or framing != "close"):
        raw += behind
        reusable = False
    return raw, Seen(status, headers, b"" if empty else body, reusable, None), bodiless


@slow
@given(answers(), st.data())
def test_any_cutting_of_a_legal_answer_gives_the_same(
    legal: tuple[bytes, Seen, bool], data: st.DataObject
) -> None:
    raw, meant, bodiless = legal
    assert read(raw, bodiless=bodiless) == meant
    assert read(*(raw[n : n + 1] for n in range(len(raw))), bodiless=bodiless) == meant
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(raw) - 1)), max_size=8)))
    edges = [0, *cuts, len(raw)]
    pieces = [raw[start:end] for start, end in pairwise(edges) if start < end]
    assert read(*pieces, bodiless=bodiless) == meant


@slow
@given(answers(), st.data())
def test_an_answer_that_is_cut_short_is_never_complete(
    legal: tuple[bytes, Seen, bool], data: st.DataObject
) -> None:
    raw, meant, bodiless = legal
    whole = len(raw)
    seen = read(raw[: data.draw(st.integers(0, whole - 1))], bodiless=bodiless)
    # What ends with the connection, or has bytes behind it, is whole without the last ones.
    if seen.error is None:
        assert not meant.reusable or meant.body == seen.body
    else:
        assert issubclass(seen.error, BrokeOff)
        assert not seen.reusable
        assert meant.body.startswith(seen.body)


@slow
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_at_all_make_it_fall(noise: bytes, after_a_head: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" if after_a_head else b""
    seen = read(head + noise)
    assert seen.error in (None, BrokeOff, NotHttp)


# ---------------------------------------------------------------------- hostile answers


def a_head(*fields: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((status, *fields)) + b"\r\n\r\n"


CHUNKED = a_head(b"transfer-encoding: chunked")

HOSTILE = {
    "both framings": (a_head(b"content-length: 3", b"transfer-encoding: chunked") + b"0\r\n\r\n", MALFORMED),
    "two lengths": (a_head(b"content-length: 3", b"content-length: 4") + b"abc", MALFORMED),
    "the same length twice": (a_head(b"content-length: 3", b"Content-Length: 3") + b"abc", MALFORMED),
    "a list of lengths": (a_head(b"content-length: 3, 3") + b"abc", MALFORMED),
    "a negative length": (a_head(b"content-length: -1"), MALFORMED),
    "a signed length": (a_head(b"content-length: +3") + b"abc", MALFORMED),
    "a length with an underscore": (a_head(b"content-length: 1_0") + b"abc", MALFORMED),
    "a length in other digits": (a_head("content-length: \xb2".encode("latin-1")) + b"abc", MALFORMED),
    "an empty length": (a_head(b"content-length:") + b"abc", MALFORMED),
    "a length beyond all sizes": (a_head(b"content-length: " + b"9" * 30), MALFORMED),
    "an unknown coding": (a_head(b"transfer-encoding: gzip, chunked") + b"0\r\n\r\n", MALFORMED),
    "codings after chunked": (a_head(b"transfer-encoding: chunked, identity") + b"0\r\n\r\n", MALFORMED),
    "two codings": (a_head(b"transfer-encoding: chunked", b"transfer-encoding: chunked"), MALFORMED),
    "chunks in HTTP/1.0": (
        a_head(b"transfer-encoding: chunked", status=b"HTTP/1.0 200 OK") + b"0\r\n\r\n",
        MALFORMED,
    ),
    "a folded field": (a_head(b"a: b", b" c", b"content-length: 0"), MALFORMED),
    "a folded first field": (a_head(b" a: b", b"content-length: 0"), MALFORMED),
    "white space before the colon": (a_head(b"content-length : 0"), MALFORMED),
    "no colon": (a_head(b"content-length 0"), MALFORMED),
    "no name": (a_head(b": 0"), MALFORMED),
    "a zero byte in a value": (a_head(b"a: b\x00c", b"content-length: 0"), MALFORMED),
    "a bare return in a value": (a_head(b"a: b\rcontent-length: 0"), MALFORMED),
    "a bare feed between fields": (b"HTTP/1.1 200 OK\r\na: b\ncontent-length: 0\r\n\r\n", MALFORMED),
    "bare feeds throughout": (b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", CUT),
    "another protocol": (b"SSH-2.0-OpenSSH_9.9\r\n", MALFORMED),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", MALFORMED),
    "HTTP/0.9": (b"<html>", MALFORMED),
    "HTTP/1.2": (a_head(status=b"HTTP/1.2 200 OK"), MALFORMED),
    "a status of two digits": (a_head(status=b"HTTP/1.1 20 OK"), MALFORMED),
    "a status of four digits": (a_head(status=b"HTTP/1.1 2000 OK"), MALFORMED),
    "a status of zeros": (a_head(status=b"HTTP/1.1 000 OK"), MALFORMED),
    "two spaces before the status": (a_head(status=b"HTTP/1.1  200 OK"), MALFORMED),
    "another protocol from now on": (
        a_head(b"upgrade: h2c", status=b"HTTP/1.1 101 Switching Protocols"),
        MALFORMED,
    ),
    "interim answers without end": (
        a_head(status=b"HTTP/1.1 100 Continue") * (MAX_INTERIM + 1) + a_head(b"content-length: 0"),
        MALFORMED,
    ),
    "a head without end": (b"HTTP/1.1 200 OK\r\na: " + b"x" * (MAX_HEAD + 10), MALFORMED),
    "a head that is too long": (a_head(b"a: " + b"x" * MAX_HEAD), MALFORMED),
    "too many fields": (a_head(*(b"a%d: b" % n for n in range(MAX_FIELDS + 1))), MALFORMED),
    "spaces without end": (a_head(b"a:" + b" " * 60_000 + b"\x00"), MALFORMED),
    "a chunk of no size": (CHUNKED + b"\r\nabc\r\n0\r\n\r\n", CUT),
    "a chunk of a negative size": (CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n", CUT),
    "a chunk with a prefix": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", CUT),
    "a chunk with an underscore": (CHUNKED + b"1_0\r\nabc\r\n0\r\n\r\n", CUT),
    "a chunk of a size beyond all sizes": (CHUNKED + b"f" * 17 + b"\r\nabc\r\n0\r\n\r\n", CUT),
    "a chunk that is longer than it says": (CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", CUT),
    "a chunk line without end": (CHUNKED + b"1;" + b"x" * (MAX_CHUNK_LINE + 10), CUT),
    "a bare feed in a chunk line": (CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n", CUT),
    "a bare feed behind a size": (CHUNKED + b"3\nabc\r\n0\r\n\r\n", CUT),
    "a trailer that is no field": (CHUNKED + b"0\r\nno field\r\n\r\n", CUT),
    "a trailer without end": (CHUNKED + b"0\r\na: " + b"x" * (MAX_TRAILER + 10), CUT),
    "less than the length": (a_head(b"content-length: 5") + b"abc", CUT),
    "no last chunk": (CHUNKED + b"3\r\nabc\r\n", CUT),
    "nothing": (b"", CUT),
    "half a head": (b"HTTP/1.1 200 OK\r\ncontent-le", CUT),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("step", [0, 1, 7])
def test_a_hostile_answer_is_refused_and_its_connection_not_used_again(name: str, step: int) -> None:
    raw, kind = HOSTILE[name]
    if step == 1 and len(raw) > 9000:
        step = 1000
    pieces = [raw[n : n + step] for n in range(0, len(raw), step)] if step else [raw]
    seen = read(*pieces)
    assert seen.error is not None
    assert seen.failure == kind
    assert not seen.reusable


def test_what_comes_behind_a_body_that_may_not_be_is_no_answer() -> None:
    seen = read(a_head(b"content-length: 3", status=b"HTTP/1.1 204 No Content") + b"abc")
    assert (seen.status, seen.body, seen.error, seen.reusable) == (204, b"", None, False)


def test_the_first_of_fields_with_one_name_counts_and_every_word_of_connection() -> None:
    seen = read(a_head(b"X-A: 1", b"x-a: 2", b"connection: te", b"Connection: CLOSE", b"content-length: 0"))
    assert (seen.headers["x-a"], seen.reusable) == ("1", False)


async def test_a_read_of_the_whole_waits_for_all_of_it_and_takes_it_in_one() -> None:
    answer = Answer(asyncio.get_running_loop(), None)
    answer.feed(a_head(b"content-length: 6") + b"ab")
    await answer.until_head()
    whole = asyncio.ensure_future(answer.read())
    for piece in (b"cd", b"ef"):
        await asyncio.sleep(0)
        assert not whole.done()
        answer.feed(piece)
    assert await whole == b"abcdef"
    assert answer.at_eof()


async def test_what_came_before_a_break_is_read_before_it_is_told() -> None:
    answer = Answer(asyncio.get_running_loop(), None)
    answer.feed(a_head(b"content-length: 6") + b"abcd")
    answer.feed_end(ConnectionResetError())
    await answer.until_head()
    assert await answer.read(3) == b"abc"
    assert await answer.readany() == b"d"
    with pytest.raises(BrokeOff):
        await answer.readany()
    with pytest.raises(BrokeOff):
        await answer.read()


async def test_what_is_poured_comes_within_the_read_that_brings_it() -> None:
    answer = Answer(asyncio.get_running_loop(), None)
    answer.feed(a_head(b"transfer-encoding: chunked") + b"1\r\na\r\n")
    came: list[bytes] = []

    def into(data: bytes) -> bool:
        came.append(data)
        return data != b"d"

    await answer.until_head()
    pouring = asyncio.ensure_future(answer.pour(into))
    await asyncio.sleep(0)
    assert came == [b"a"]
    answer.feed(b"1\r\nb\r\n2\r\nc")
    answer.feed(b"C\r\n")
    assert came == [b"a", b"b" + b"c", b"C"]
    answer.feed(b"1\r\nd\r\n")
    answer.feed(b"1\r\ne\r\n0\r\n\r\n")
    assert came[3:] == [b"d"], "it had enough: the rest is for whoever reads next"
    await pouring
    assert await answer.readany() == b"e"
    assert answer.at_eof()


async def test_what_a_receiver_raises_is_raised_where_it_was_given() -> None:
    answer = Answer(asyncio.get_running_loop(), None)
    answer.feed(a_head(b"content-length: 4"))
    await answer.until_head()

    def into(data: bytes) -> bool:
        raise LookupError(data)

    pouring = asyncio.ensure_future(answer.pour(into))
    await asyncio.sleep(0)
    answer.feed(b"ab")
    answer.feed(b"cd")
    with pytest.raises(LookupError):
        await pouring
    assert await answer.readany() == b"cd"
    with pytest.raises(LookupError):
        answer._parts.append(b"more")
        await answer.pour(into)


async def test_who_no_longer_waits_is_given_nothing() -> None:
    answer = Answer(asyncio.get_running_loop(), None)
    answer.feed(a_head(b"content-length: 4"))
    await answer.until_head()
    came: list[bytes] = []
    pouring = asyncio.ensure_future(answer.pour(lambda data: not came.append(data)))
    await asyncio.sleep(0)
    answer.feed(b"ab")
    pouring.cancel()
    answer.feed(b"cd")
    with pytest.raises(asyncio.CancelledError):
        await pouring
    assert came == [b"ab"]
    assert await answer.readany() == b"cd"
