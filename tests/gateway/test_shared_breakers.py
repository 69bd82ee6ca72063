"""Breakers of several data planes, on a real Valkey; each for itself while it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from llmops.gateway.attempts.breakers import BY_RESET, Breaker, Breakers
from llmops.gateway.attempts.shared_breakers import SharedBreakers
from llmops.usage.records import BreakerSeen
from tests import servers
from tests.gateway.rig import Rig, Upstream, a_route, answers, ask, eventually, fails

ROUTE = a_route("r", breaker_min_calls=1, breaker_cooldown_s=30)
LENIENT = a_route("r", breaker_min_calls=100, breaker_cooldown_s=30)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with servers.valkey() as running:
        yield running


@pytest.fixture(autouse=True)
def empty(url: str) -> None:
    redis.Redis.from_url(url).flushall()


class Process:
    def __init__(self, url: str) -> None:
        self.breakers = Breakers()
        self.shared = SharedBreakers(url, self.breakers, {"r": ROUTE}.get)

    @property
    def breaker(self) -> Breaker:
        return self.breakers.named(ROUTE, "m", "p")

    def fail(self) -> None:
        self.breaker.record(False, time.monotonic(), why="status 500")


@asynccontextmanager
async def processes(url: str, count: int = 2) -> AsyncIterator[list[Process]]:
    running = [Process(url) for _ in range(count)]
    try:
        yield running
    finally:
        for one in running:
            await one.shared.close()


async def test_one_that_opens_tells_the_others_and_so_does_one_that_closes(url: str) -> None:
    async with processes(url, 3) as (first, second, third):
        first.fail()
        for one in (first, second, third):
            await one.shared.turn()
        assert abs(second.breaker.open_until - first.breaker.open_until) < 0.5
        assert second.breaker.why == first.breaker.why == "1 of 1 calls failed within 60 s: status 500 (1)"
        assert not third.breaker.allows(time.monotonic())
        second.breaker.open_until = 0.001
        assert second.breaker.allows(time.monotonic())
        second.breaker.record(True, time.monotonic(), probe=True)
        for one in (second, first, third):
            await one.shared.turn()
        assert not first.breaker.open_until
        assert third.breaker.allows(time.monotonic())


async def test_what_is_open_for_all_is_so_everywhere(url: str) -> None:
    async with processes(url) as (first, second):
        for project in ("p", "other"):
            first.breakers.named(ROUTE, "m", project).record(False, time.monotonic(), why="status 500")
        assert first.breakers.named(ROUTE, "m").open_until
        await first.shared.turn()
        await second.shared.turn()
        third = second.breakers.named(LENIENT, "m", "a third")
        assert third.allows(time.monotonic())
        third.record(False, time.monotonic())
        assert not third.allows(time.monotonic()), "one failure is enough where all fail"


async def test_what_is_open_for_a_project_is_open_for_it_alone(url: str) -> None:
    async with processes(url) as (first, second):
        first.fail()
        await first.shared.turn()
        await second.shared.turn()
        assert not second.breaker.allows(time.monotonic())
        assert second.breakers.named(ROUTE, "m", "other").allows(time.monotonic())


async def test_it_is_told_within_a_second_by_itself(url: str) -> None:
    async with processes(url) as (first, second):
        first.shared.start()
        second.shared.start()
        first.fail()
        await eventually(lambda: bool(second.breaker.open_until))
        first.breaker.close(time.monotonic(), by=BY_RESET)
        await eventually(lambda: not second.breaker.open_until)


async def test_of_all_processes_one_probes(url: str) -> None:
    async with processes(url, 4) as everyone:
        everyone[0].fail()
        for one in everyone:
            await one.shared.turn()
            one.breaker.open_until = 0.001
            assert one.breaker.allows(time.monotonic())
        granted = await asyncio.gather(*(one.shared.may_probe(one.breaker) for one in everyone))
        assert granted.count(True) == 1
        prober = everyone[granted.index(True)]
        for one in everyone:
            if one is not prober:
                one.breaker.forget_probe()
        await prober.shared.turn()
        other = next(one for one in everyone if one is not prober)
        assert not await other.shared.may_probe(other.breaker), "it is held while it is under way"
        prober.breaker.forget_probe()
        await prober.shared.turn()
        assert await other.shared.may_probe(other.breaker), "and free when it ended without saying anything"


async def test_a_failed_probe_keeps_it_shut_everywhere(url: str) -> None:
    async with processes(url) as (first, second):
        first.fail()
        await first.shared.turn()
        await second.shared.turn()
        first.breaker.open_until = second.breaker.open_until = 0.001
        assert first.breaker.allows(time.monotonic())
        assert await first.shared.may_probe(first.breaker)
        first.breaker.record(False, time.monotonic(), probe=True, why="status 503")
        await first.shared.turn()
        await second.shared.turn()
        assert not second.breaker.allows(time.monotonic())
        assert second.breaker.why == "the probe failed too: status 503"


async def test_while_redis_is_away_each_goes_by_itself_and_tells_it_later() -> None:
    with servers.valkey() as url:
        async with processes(url) as (first, second):
            await first.shared.turn()
            await second.shared.turn()
            redis.Redis.from_url(url).execute_command("CLIENT", "PAUSE", "1500", "ALL")
            first.fail()
            with pytest.raises((redis.RedisError, TimeoutError, OSError)):
                await first.shared.turn()
            assert not first.breaker.allows(time.monotonic())
            first.breaker.open_until = 0.001
            assert first.breaker.allows(time.monotonic())
            assert await first.shared.may_probe(first.breaker), "nobody else can be asked"
            first.breaker.record(False, time.monotonic(), probe=True)
            first.shared.start()
            second.shared.start()
            await eventually(lambda: bool(second.breaker.open_until))


async def test_nonsense_in_redis_does_no_harm(url: str) -> None:
    plain = redis.Redis.from_url(url)
    plain.hset("llmops:breakers", "odd", "{")
    plain.hset("llmops:breakers", "r/m/p/x", b'[99999999999.0,"x"]')
    plain.hset("llmops:breakers", "r/m", "nonsense")
    plain.hset("llmops:breakers", "unknown/m", b'[99999999999.0,"x"]')
    plain.hset("llmops:breakers", "r/old", b'[1.0,"x"]')
    async with processes(url, 1) as (one,):
        await one.shared.turn()
        assert list(one.breakers.open()) == []
    assert not plain.hexists("llmops:breakers", "r/old")


async def test_two_planes_leave_a_target_alone_together(url: str, tmp_path: Path, upstream: Upstream) -> None:
    rigs = [Rig(tmp_path / name, upstream) for name in ("one", "two")]
    for rig in rigs:
        rig.configure(routes=[a_route(attempts=1, breaker_min_calls=1, breaker_cooldown_s=30)])
        rig.plane.share_breakers(url)
    one, two = rigs
    upstream.does(fails(500))
    assert (await one.chat(model="chat")).status == 502
    await eventually(lambda: bool(list(two.plane.breakers.open())))
    assert (await two.chat(model="chat")).error["code"] == "circuit_open"
    assert len(upstream.asked) == 1
    seen = [record for record in two.records() if isinstance(record, BreakerSeen)]
    assert [(record.state, record.by) for record in seen] == [("open", "another")]
    # The cool-down is over in both: of many calls one goes up.
    for rig in rigs:
        [breaker] = rig.plane.breakers.open()
        breaker.open_until = 0.001
    release = asyncio.Event()

    async def slow(asked: object, reply: object) -> None:
        await release.wait()
        await answers()(asked, reply)  # type: ignore[arg-type]

    upstream.does(slow)
    exchanges = [rig.start(ask("chat")) for rig in rigs for _ in range(5)]
    refused = [one for one in exchanges if one is not None]
    await eventually(lambda: sum(one.task.done() for one in refused) == 9)
    await eventually(lambda: len(upstream.asked) == 2)
    release.set()
    found = [(await exchange.done()).status for exchange in exchanges]
    assert sorted(found) == [200] + [503] * 9
    await eventually(lambda: not any(list(rig.plane.breakers.open()) for rig in rigs))
    for rig in rigs:
        await rig.close()
