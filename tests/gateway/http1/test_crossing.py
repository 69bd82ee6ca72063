"""Many calls over few connections to a provider that misbehaves at random: nobody ever gets an answer that is another's."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from llmops.gateway.attempts.upstream import Failed, read_whole
from tests.gateway.http1.wire import Line, Provider, a_channel, post

CALLS, AT_ONCE, CONNECTIONS = 600, 40, 6
#: An answer that nobody asked for.
STRAY = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray"


async def in_pieces(line: Line, data: bytes, chance: random.Random) -> None:
    while data:
        size = chance.choice([1, 3, 20, len(data), len(data)])
        await line.say(data[:size])
        data = data[size:]
        if chance.random() < 0.2:
            await asyncio.sleep(0)


def framed(body: bytes, how: str) -> bytes:
    if how == "chunked":
        half = len(body) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in (body[:half], body[half:]) if one)
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    said = b"connection: close\r\n" if how == "said to close" else b""
    return b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (said, len(body), body)


@pytest.mark.parametrize("seed", range(3))
async def test_every_call_gets_its_own_answer_or_none(provider: Provider, seed: int) -> None:
    chance = random.Random(seed)

    async def talk(line: Line) -> None:
        while True:
            _, body = await line.request()
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.004)
            what = chance.choice(
                ["length"] * 4
                + ["chunked"] * 4
                + [
                    "hints",
                    "said to close",
                    "closes unsaid",
                    "a stray behind",
                    "cut",
                    "cut within",
                    "no HTTP",
                ]
            )
            if what == "cut":
                line.writer.transport.abort()
                return
            if what == "no HTTP":
                await line.say(b"HTTQ/1.1 200 OK\r\n\r\n")
                return
            answer = framed(body, what)
            if what == "cut within":
                await in_pieces(line, answer[:-1], chance)
                return
            if what == "hints":
                answer = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + answer
            if what == "a stray behind":
                # In one piece: what comes later can not be told from an answer by anybody.
                await line.say(answer + STRAY)
                await line.until_closed()
                return
            await in_pieces(line, answer, chance)
            if what in ("closes unsaid", "said to close"):
                return

    provider.talk = talk
    channel = a_channel(provider, max_connections=CONNECTIONS, read_timeout_ms=5_000)
    pool = channel._pool
    assert pool is not None
    seen: Counter[str] = Counter()
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        mine = f"call {number} ".encode() * chance.choice([1, 1, 20, 3000])
        async with places:
            patience = chance.choice([None, None, None, 0.002])
            response = None
            try:
                async with asyncio.timeout(patience):
                    response = await post(channel, mine)
                    got = await read_whole(response)
            except TimeoutError:
                seen["given up"] += 1
            except Failed:
                seen["failed"] += 1
            else:
                assert got == mine
                seen["answered"] += 1
            finally:
                if response is not None:
                    response.close()
        taken, _, _ = pool.figures
        assert taken <= CONNECTIONS

    await asyncio.gather(*(one(number) for number in range(CALLS)))
    assert seen.total() == CALLS
    assert seen["answered"] > CALLS / 3
    assert seen["failed"] > 0
    assert seen["given up"] > 0
    taken, idle, waiting = pool.figures
    assert (taken, waiting) == (0, 0)
    assert idle <= CONNECTIONS
    await channel.close()
