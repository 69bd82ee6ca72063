"""Pieces go from the provider's socket to the client's without a task between them, and nothing is otherwise than with one."""

from __future__ import annotations

import asyncio
import random

import pytest

from llmops.core.logs import request_id
from llmops.gateway.call import Call
from llmops.gateway.http1.answer import HIGH_WATER
from llmops.gateway.streaming.chat import ChatRelay
from tests.gateway.rig import DONE, Asked, Reply, Rig, Script, a_route, ask, chunk, eventually, usage_chunk

WORDS = [f"word {number} " for number in range(60)]
WHOLE = b"".join([*(chunk(word) for word in WORDS), chunk(finish="stop"), DONE])
KEEP_ALIVE = b": keep-alive\n\n"


def one_by_one(*, pause: float = 0.0, last: int = len(WORDS), stays: bool = False) -> Script:
    """The words one after the other, each in a read of its own, and after ``last`` of them a cut.

    One that ``stays`` says no more after the words, and does not end either.
    """

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for word in WORDS[:last]:
            await reply.chunk(chunk(word))
            await asyncio.sleep(pause)
        if last < len(WORDS):
            reply.cut()
            return
        if stays:
            await asyncio.Event().wait()
        await reply.chunk(chunk(finish="stop") + usage_chunk(prompt=10, completion=180) + DONE)
        await reply.raw(b"0\r\n\r\n")

    return script


async def test_most_pieces_go_out_with_the_read_that_brings_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_the_task: list[bytes] = []
    usual = Call.send_piece

    async def noted(call: Call, data: bytes, *, last: bool = False) -> None:
        by_the_task.append(data)
        await usual(call, data, last=last)

    monkeypatch.setattr(Call, "send_piece", noted)
    rig.upstream.does(one_by_one())
    exchange = rig.start(ask(stream=True))
    answer = await exchange.done()
    assert answer.body == WHOLE
    assert len(by_the_task) == 2, "the first piece, with which the answer begins, and the last"
    outcome = rig.outcome()
    assert (outcome.status, outcome.finish, outcome.tokens.output) == ("ok", "stop", 180)
    assert outcome.bytes_out == len(WHOLE)


@pytest.mark.parametrize("seed", range(5))
async def test_a_server_that_makes_whoever_sends_wait_gets_the_same(rig: Rig, seed: int) -> None:
    choices = random.Random(seed)

    async def before() -> None:
        for _ in range(choices.choice((0, 0, 0, 1, 2))):
            await asyncio.sleep(choices.choice((0, 0, 0.002)))

    rig.upstream.does(one_by_one())
    exchange = rig.start(ask(stream=True))
    exchange.before = before
    answer = await exchange.done()
    assert answer.body == WHOLE
    assert (rig.outcome().status, rig.outcome().bytes_out) == ("ok", len(WHOLE))


async def test_a_client_that_takes_nothing_holds_the_provider_back(rig: Rig) -> None:
    size, words, written = 40_000, 200, 0
    takes = asyncio.Event()
    takes.set()

    async def script(asked: Asked, reply: Reply) -> None:
        nonlocal written
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for number in range(words):
            await reply.chunk(chunk("x" * size))
            written = number + 1
        await reply.chunk(usage_chunk(prompt=10, completion=1_600_000) + DONE)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    exchange.before = takes.wait
    await exchange.answer.until(lambda answer: len(answer.body) > 5 * size)
    takes.clear()
    last = -1
    while written != last:
        last = written
        await asyncio.sleep(0.2)
    assert written < words
    waiting = written * size - len(exchange.answer.body)
    # Besides what the kernel keeps of both sides.
    assert waiting < HIGH_WATER + 8 * 1024 * 1024
    takes.set()
    answer = await exchange.done()
    assert answer.body == chunk("x" * size) * words + DONE


async def test_a_hang_up_reaches_a_piece_that_waits_for_the_client(rig: Rig) -> None:
    waits, ends = asyncio.Event(), []
    count = 0

    async def before() -> None:
        nonlocal count
        count += 1
        if count == 20:
            waits.set()
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(count)

    rig.upstream.does(one_by_one(pause=0.001, stays=True))
    exchange = rig.start(ask(stream=True))
    exchange.before = before
    await asyncio.wait_for(waits.wait(), 10)
    exchange.hang_up()
    answer = await exchange.done()
    assert ends == [20]
    assert WHOLE.startswith(answer.body) and not answer.complete
    assert rig.outcome().status == "client_closed"
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)


async def test_a_hang_up_between_two_pieces_stops_the_provider(rig: Rig) -> None:
    rig.upstream.does(one_by_one(pause=0.01))
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda answer: len(answer.pieces) >= 10)
    exchange.hang_up()
    answer = await exchange.done()
    assert WHOLE.startswith(answer.body) and not answer.complete
    assert rig.outcome().status == "client_closed"
    assert rig.outcome().tokens.output > 0
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_server_that_says_that_the_client_is_gone_is_believed(rig: Rig, waits: bool) -> None:
    count = 0

    async def before() -> None:
        nonlocal count
        count += 1
        if count == 20:
            if waits:
                await asyncio.sleep(0)
            raise BrokenPipeError

    rig.upstream.does(one_by_one(pause=0.001))
    exchange = rig.start(ask(stream=True))
    exchange.before = before
    answer = await exchange.done()
    assert WHOLE.startswith(answer.body) and not answer.complete
    assert rig.outcome().status == "client_closed"
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)


@pytest.mark.parametrize("cut_after", [1, 2, 30, 59])
async def test_a_stream_that_breaks_off_says_so_after_all_that_came(rig: Rig, cut_after: int) -> None:
    rig.upstream.does(one_by_one(last=cut_after, pause=0.001))
    answer = await rig.chat(stream=True)
    came = b"".join(chunk(word) for word in WORDS[:cut_after])
    assert answer.body.startswith(came)
    assert b"stream_interrupted" in answer.body[len(came) :]
    assert answer.complete and b"[DONE]" not in answer.body
    assert rig.outcome().status == "interrupted"


async def test_an_error_of_ours_on_the_way_ends_the_stream_in_words(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, count = ChatRelay.feed, 0

    def feed(relay: ChatRelay, data: bytes) -> bytes:
        nonlocal count
        count += 1
        if count == 20:
            raise LookupError("a fault of ours")
        return usual(relay, data)

    monkeypatch.setattr(ChatRelay, "feed", feed)
    rig.upstream.does(one_by_one(pause=0.001))
    answer = await rig.chat(stream=True)
    assert answer.complete and b"[DONE]" not in answer.body
    assert b"internal_error" in answer.body
    assert rig.outcome().status == "error"
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)


async def test_comments_stand_between_pieces_and_never_within(rig: Rig) -> None:
    rig.configure(routes=[a_route(keep_alive_s=0.02)])
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        for number, word in enumerate(WORDS):
            piece = chunk(word)
            await reply.chunk(piece[:10])
            if number % 20 == 10:
                go_on.clear()
                await go_on.wait()
            await reply.chunk(piece[10:])
            await asyncio.sleep(0)
        await reply.chunk(chunk(finish="stop") + usage_chunk(prompt=10, completion=180) + DONE)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(model="chat", stream=True))
    for number in range(3):
        silent = b"".join(chunk(word) for word in WORDS[: 20 * number + 10])
        await exchange.answer.until(
            lambda answer, silent=silent: (  # type: ignore[misc]
                answer.body.replace(KEEP_ALIVE, b"") == silent and answer.body.endswith(KEEP_ALIVE * 2)
            )
        )
        go_on.set()
    answer = await exchange.done()
    assert answer.body.replace(KEEP_ALIVE, b"") == WHOLE
    assert rig.outcome().bytes_out == len(answer.body)


async def test_what_is_logged_of_a_piece_names_its_own_request(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, seen = ChatRelay.feed, list[str]()

    def feed(relay: ChatRelay, data: bytes) -> bytes:
        seen.append(request_id.get())
        return usual(relay, data)

    monkeypatch.setattr(ChatRelay, "feed", feed)
    for name in ("first", "second"):
        # Both over the connection that the first one made.
        rig.upstream.does(one_by_one(pause=0.001))
        await rig.chat(stream=True, how={"headers": {"x-request-id": name}})
        assert len(seen) > 20 and set(seen) == {name}
        seen.clear()


async def test_the_server_s_stop_ends_streams_in_words(rig: Rig) -> None:
    rig.upstream.does(one_by_one(pause=0.02))
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda answer: len(answer.pieces) >= 5)
    for call in list(rig.plane.calls):
        call.watch.fire("shutdown")
    answer = await exchange.done()
    assert answer.complete and b"[DONE]" not in answer.body
    assert rig.outcome().status == "interrupted"
    await eventually(lambda: rig.upstream.gone.is_set())
