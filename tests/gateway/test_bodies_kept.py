"""What calls keep of their bodies is bounded for the process, shared by keys and projects, and given back however a call ends."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from llmops.core.portions import UNCOUNTED, SharedBytes
from llmops.gateway.bodies import read_body
from llmops.gateway.call import Call
from llmops.gateway.endpoints.chat import CHAT
from llmops.gateway.pipeline import identify
from tests.gateway.keeping import OTHER, configure, gives
from tests.gateway.making import FORM_TYPE, SOUND, form, per
from tests.gateway.rig import (
    DONE,
    KEY,
    Asked,
    Exchange,
    Reply,
    Rig,
    a_budget,
    a_provider,
    a_route,
    ask,
    chunk,
    completion,
    eventually,
    fails,
    usage_chunk,
)
from tests.gateway.test_fair_shares import Held
from tests.gateway.test_transcriptions import TRANSCRIPTIONS, voices

LIMIT = 1_200_000
LARGE = ask("small", "x" * 300_000)


def bound(rig: Rig, memory: int = LIMIT, disk: int = 10 * LIMIT) -> None:
    rig.plane.bodies, rig.plane.spooled = SharedBytes(memory), SharedBytes(disk)


def free(rig: Rig) -> bool:
    return (rig.plane.bodies.used, rig.plane.spooled.used) == (0, 0)


def trickling(rig: Rig, pieces: int, **how: Any) -> Exchange:
    """A client that has sent so many pieces of 100 kB, and is not at the end."""
    exchange = rig.start([], **how)
    for _ in range(pieces):
        exchange.send(b"[" * 100_000)
    return exchange


async def test_a_key_that_sends_much_slowly_takes_its_share_and_no_more(rig: Rig) -> None:
    configure(rig, budgets=[a_budget()])
    bound(rig)
    slow = [trickling(rig, 3), trickling(rig, 1)]
    await eventually(lambda: all(one.left() == 0 for one in slow))
    assert 500_000 <= rig.plane.bodies.used <= LIMIT // 2
    refused = await trickling(rig, 2).done()
    assert (refused.status, refused.error["code"]) == (429, "bodies_full")
    assert refused.headers["retry-after"] == "2"
    assert "CONSOLE_BODY_BYTES" in refused.error["message"] and "'support'" in refused.error["message"]
    assert (rig.outcome().status, rig.outcome().cost) == ("refused", 0)
    assert not rig.held() and not rig.upstream.asked
    rig.upstream.does(gives(completion("yes")))
    assert (await rig.call(ask("small", "x" * 150_000), key=OTHER)).status == 200
    assert (await rig.call(ask("small", "x" * 8_000))).status == 200, "what is small always fits"
    for one in slow:
        one.hang_up()
        await one.done()
    assert free(rig)
    assert (await rig.call(LARGE)).status == 200


async def test_another_project_is_told_that_it_is_not_its_doing(rig: Rig) -> None:
    configure(rig)
    bound(rig)
    slow = trickling(rig, 5)
    await eventually(lambda: slow.left() == 0)
    refused = await rig.call(ask("small", "x" * 400_000), key=OTHER)
    assert refused.status == 429
    assert "other requests" in refused.error["message"] and "support" not in refused.error["message"]
    slow.hang_up()
    await slow.done()


async def test_a_body_is_counted_until_its_call_is_over(rig: Rig) -> None:
    configure(rig)
    bound(rig)
    held = Held(rig)
    first, small = rig.start(LARGE), rig.start(ask("small", "x" * (UNCOUNTED - 200)))
    await held.until(2)
    size = len(json.dumps(LARGE))
    assert rig.plane.bodies.used == size
    second = rig.start(LARGE)
    await second.done()
    assert second.answer.status == 429, "the first is still kept"
    first.hang_up()
    await first.done()
    assert free(rig)
    for _, go in held.came:
        go.set()
    assert (await small.done()).status == 200


@pytest.mark.parametrize(
    "body",
    [LARGE, json.dumps(LARGE).encode()[:-1], ask("nobody's", "x" * 300_000)],
    ids=["provider fails", "bad JSON", "unknown model"],
)
async def test_a_call_that_fails_gives_back_what_it_kept(rig: Rig, body: Any) -> None:
    configure(rig)
    bound(rig)
    rig.upstream.does(fails(400))
    assert 400 <= (await rig.call(body)).status < 500
    assert free(rig)


@pytest.mark.parametrize("keeps", ["idempotency", "cache"])
async def test_answers_that_are_kept_meanwhile_are_counted_too(rig: Rig, keeps: str) -> None:
    """Of a stream: where there is no room for it, it is relayed and not kept."""
    configure(rig, routes=[a_route("chat", cache_ttl_s=60.0 if keeps == "cache" else 0)])
    go = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*(chunk("x" * 10_000) for _ in range(20)), end=False)
        await go.wait()
        for piece in (chunk(finish="stop"), usage_chunk(), DONE):
            await reply.chunk(piece)
        await reply.raw(b"0\r\n\r\n")

    async def stream(key: str) -> Exchange:
        how: dict[str, Any] = {"headers": {"idempotency-key": key}} if keeps == "idempotency" else {}
        exchange = rig.start(ask("chat", key, stream=True), **how)
        await exchange.answer.until(lambda one: len(one.body) > 200_000)
        return exchange

    bound(rig, memory=600_000)
    rig.upstream.does(script, script)
    first = await stream("first-key")
    assert 200_000 <= rig.plane.bodies.used <= 300_000
    second = await stream("second-key")
    assert rig.plane.bodies.used <= 300_000
    go.set()
    assert [(await one.done()).complete for one in (first, second)] == [True, True]
    await eventually(lambda: free(rig))
    rig.upstream.does(script)
    again = await stream("first-key")
    assert (await again.done()).complete and len(rig.upstream.asked) == 2, "the first was kept"


async def test_what_is_passed_through_is_counted_as_well(rig: Rig) -> None:
    configure(rig, providers=(a_provider(base_url=rig.upstream.url, passthrough=("/rerank",)),))
    bound(rig)
    slow = [trickling(rig, 3, path="/v1/rerank"), trickling(rig, 1, path="/v1/rerank")]
    await eventually(lambda: all(one.left() == 0 for one in slow))
    refused = await trickling(rig, 2, path="/v1/rerank").done()
    assert (refused.status, refused.error["code"]) == (429, "bodies_full")
    for one in slow:
        one.hang_up()
        await one.done()
    assert free(rig)


async def test_forms_are_counted_in_memory_and_on_the_disk(rig: Rig, tmp_path: Path) -> None:
    voices(rig, per("seconds", 1))
    rig.plane.max_media, rig.plane.spool_directory = 50_000_000, tmp_path
    bound(rig, memory=8_000_000, disk=8_000_000)
    data = form(("file", ("a.wav", "audio/wav", b"x" * 3_000_000)), ("model", "voice"))
    pieces = [data[at : at + 65_536] for at in range(0, len(data), 65_536)]
    slow = [rig.start([], path=TRANSCRIPTIONS, headers=FORM_TYPE) for _ in range(2)]
    for piece in pieces[:-1]:
        slow[0].send(piece)
    for piece in pieces[:10]:
        slow[1].send(piece)
    await eventually(lambda: all(one.left() == 0 for one in slow))
    assert 3_000_000 - 65_536 <= rig.plane.spooled.used <= 3_100_000, "the second is in memory"
    assert 650_000 <= rig.plane.bodies.used < 2_000_000
    refused = await rig.call(pieces, path=TRANSCRIPTIONS, headers=FORM_TYPE)
    assert (refused.status, refused.error["code"]) == (429, "bodies_full")
    assert "CONSOLE_SPOOL_BYTES" in refused.error["message"]
    for one in slow:
        one.hang_up()
        await one.done()
    assert free(rig)
    small = form(SOUND, ("model", "voice"))
    rig.upstream.does(gives({"text": "Hi", "usage": {"type": "duration", "seconds": 2}}))
    assert (await rig.call(small, path=TRANSCRIPTIONS, headers=FORM_TYPE)).status == 200
    assert free(rig)


async def test_a_body_in_tiny_pieces_takes_little_more_than_its_length(rig: Rig) -> None:
    configure(rig)
    left, size = 30_000, 60_000

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": b"%02d" % (left % 100), "more_body": left > 0}

    async def send(message: dict[str, Any]) -> None:
        return None

    async def read() -> int:
        call = Call(
            rig.plane, CHAT, {"headers": [(b"authorization", f"Bearer {KEY}".encode())]}, receive, send
        )
        identify(call)
        tracemalloc.start()
        try:
            assert len(await read_body(call)) == size
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            call.close()

    assert await asyncio.ensure_future(read()) < 4 * size
