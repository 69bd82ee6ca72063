"""Limits of a key over several processes, on a real Valkey; alone while it is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from llmops.core.errors import RateLimited
from llmops.core.ids import uuid7
from llmops.gateway.throttling import shared_limits as module
from llmops.gateway.throttling.limits import Limits, Ticket, limits_of
from llmops.gateway.throttling.shared_limits import SharedLimits, SharedTicket
from llmops.serving.snapshot import KeyEntry, ProjectEntry
from tests import servers
from tests.gateway.rig import KEY, Rig, Upstream, a_key, eventually


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with servers.valkey() as running:
        yield running


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a Redis that is away; the test of that one sets its own pause."""
    monkeypatch.setattr(module, "TIMEOUT_S", 5.0)


@asynccontextmanager
async def processes(url: str, count: int = 2) -> AsyncIterator[list[SharedLimits]]:
    running = [SharedLimits(url, Limits()) for _ in range(count)]
    try:
        yield running
    finally:
        for one in running:
            await one.close()


async def admit(
    limits: SharedLimits, key: KeyEntry, tokens: int = 0, project: ProjectEntry | None = None
) -> Ticket:
    return await limits.admit(limits_of(key, project), key.project_id, tokens, time.time(), str(uuid7()))


async def test_requests_are_counted_over_all_processes(url: str) -> None:
    key = a_key(rpm=10)
    async with processes(url) as both:
        found = await asyncio.gather(
            *(admit(both[turn % 2], key) for turn in range(40)), return_exceptions=True
        )
        assert sum(isinstance(one, SharedTicket) for one in found) == 10
        [refused] = {type(one) for one in found if not isinstance(one, SharedTicket)}
        assert refused is RateLimited
        with pytest.raises(RateLimited, match="10 requests a minute") as raised:
            await admit(both[0], key)
        assert 0 < (raised.value.retry_after or 0) <= 60


async def test_tokens_are_counted_and_corrected_over_all_processes(url: str) -> None:
    key = a_key(tpm=1_000)
    async with processes(url) as (one, other):
        ticket = await admit(one, key, 900)
        with pytest.raises(RateLimited, match="1000 tokens a minute"):
            await admit(other, key, 200)
        ticket.correct(100)
        await asyncio.gather(*one._tasks)
        second = await admit(other, key, 200)
        headers = dict(second.headers(time.time()))
        assert headers[b"x-ratelimit-remaining-tokens"] == b"700"
        with pytest.raises(RateLimited, match="lower max_completion_tokens") as raised:
            await admit(one, key, 1_001)
        assert raised.value.retry_after is None


async def test_a_refusal_uses_nothing(url: str) -> None:
    key = a_key(rpm=5, tpm=100)
    async with processes(url, 1) as [limits]:
        await admit(limits, key, 90)
        for _ in range(10):
            with pytest.raises(RateLimited):
                await admit(limits, key, 50)
        assert (
            dict((await admit(limits, key, 10)).headers(time.time()))[b"x-ratelimit-remaining-requests"]
            == b"3"
        )


async def test_calls_at_once_are_counted_over_all_processes_and_freed(url: str) -> None:
    key = a_key(concurrency=3)
    async with processes(url) as both:
        tickets = [await admit(both[turn % 2], key) for turn in range(3)]
        with pytest.raises(RateLimited, match="3 calls at once"):
            await admit(both[0], key)
        tickets[0].release()
        tickets[0].release()
        await asyncio.gather(*both[0]._tasks)
        await admit(both[1], key)
        with pytest.raises(RateLimited):
            await admit(both[0], key)


async def test_places_of_a_dead_process_come_free_and_those_of_a_living_one_do_not(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PLACE_S", 2)
    monkeypatch.setattr(module, "RENEW_S", 0.0)
    key = a_key(concurrency=2)
    async with processes(url) as (living, dead):
        await admit(living, key)
        await admit(dead, key)
        deadline = time.monotonic() + 60
        while True:
            await living.tick()
            try:
                await admit(living, key)
                break
            except RateLimited:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        for _ in range(25):
            await living.tick()
            with pytest.raises(RateLimited):
                await admit(living, key)
            await asyncio.sleep(0.1)


async def test_a_project_limits_all_its_keys_together_or_counts_neither(url: str) -> None:
    project = ProjectEntry(str(uuid7()), "support", rpm=4, tpm=1_000, concurrency=3)
    one = a_key("one", project_id=project.id, rpm=10)
    other = a_key("other", project_id=project.id)
    async with processes(url) as both:
        tickets = [await admit(both[turn % 2], (one, other)[turn % 2], 100, project) for turn in range(3)]
        with pytest.raises(RateLimited, match="The project 'support' allows 3 calls at once"):
            await admit(both[0], one, 0, project)
        tickets[0].release()
        await asyncio.gather(*both[0]._tasks)
        with pytest.raises(RateLimited, match="The project 'support' allows 1000 tokens a minute"):
            await admit(both[1], other, 900, project)
        fourth = await admit(both[0], one, 100, project)
        shown = dict(fourth.headers(time.time()))
        assert (shown[b"x-ratelimit-limit-requests"], shown[b"x-ratelimit-remaining-requests"]) == (
            b"4",
            b"0",
        )
        tickets[1].release()
        await asyncio.gather(*both[1]._tasks)
        with pytest.raises(RateLimited, match="The project 'support' allows 4 requests a minute"):
            await admit(both[1], one, 0, project)
        # What the project refused was not counted against the key: three of its ten were.
        free = await admit(both[1], one)
        assert dict(free.headers(time.time()))[b"x-ratelimit-remaining-requests"] == b"6"


async def test_keys_are_apart_and_keys_without_limits_ask_nobody(url: str) -> None:
    async with processes(url, 1) as [limits]:
        await admit(limits, a_key(rpm=1))
        await admit(limits, a_key(rpm=1))
    async with processes("redis://127.0.0.1:9/0", 1) as [limits]:
        assert not isinstance(await admit(limits, a_key()), SharedTicket)
        assert not limits._away


async def test_nothing_is_left_behind(url: str) -> None:
    key = a_key(rpm=5, tpm=100, concurrency=5)
    async with processes(url, 1) as [limits]:
        await admit(limits, key, 10)
    with redis.Redis.from_url(url) as client:
        names = [name for name in client.keys("*") if key.id.encode() in name]
        assert len(names) == 3
        assert all(0 < int(str(client.ttl(name))) <= 62 for name in names)


async def test_while_redis_is_away_every_process_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.2)
    monkeypatch.setattr(module, "TIMEOUT_S", 0.25)
    key = a_key(rpm=3, tpm=1_000, concurrency=10)
    with servers.valkey() as url:
        limits = SharedLimits(url, Limits())
        assert isinstance(await admit(limits, key, 10), SharedTicket)
        before = await admit(limits, key, 10)
    began = time.monotonic()
    for _ in range(3):
        ticket = await admit(limits, key, 10)
        assert not isinstance(ticket, SharedTicket)
    with pytest.raises(RateLimited):
        await admit(limits, key, 10)
    before.correct(5)
    before.release()
    await limits.tick()
    assert time.monotonic() - began < 5
    await limits.close()


async def test_a_script_that_redis_forgot_is_sent_again(url: str) -> None:
    key = a_key(rpm=5)
    async with processes(url, 1) as [limits]:
        await admit(limits, key)
        with redis.Redis.from_url(url) as client:
            client.script_flush()
        assert isinstance(await admit(limits, key), SharedTicket)


async def test_a_call_takes_and_frees_its_place(url: str, tmp_path: Path, upstream: Upstream) -> None:
    rigs = [Rig(tmp_path / name, upstream) for name in ("a", "b")]
    key = a_key(rpm=4, tpm=100_000, concurrency=1)
    for rig in rigs:
        rig.plane.shared_limits = SharedLimits(url, rig.plane.limits)
        rig.configure(keys={KEY: key})
    first = await rigs[0].chat()
    assert (first.status, first.headers["x-ratelimit-remaining-requests"]) == (200, "3")
    assert first.headers["x-ratelimit-remaining-tokens"] == str(100_000 - 15)
    for turn in (1, 0, 1):
        tasks = rigs[1 - turn].plane.shared_limits._tasks  # type: ignore[union-attr]
        await eventually(lambda tasks=tasks: not tasks)
        assert (await rigs[turn].chat()).status == 200
    fifth = await rigs[0].chat()
    assert (fifth.status, fifth.error["code"]) == (429, "rate_limit_exceeded")
    for rig in rigs:
        rig.nothing_held()
        await rig.close()


async def test_who_hangs_up_while_redis_lets_it_in_leaves_its_place(url: str) -> None:
    key = a_key(concurrency=1)
    async with processes(url, 1) as [limits]:
        whole, let_in = limits._admit, asyncio.Event()

        async def slowly(**given: Any) -> Any:
            await whole(**given)
            let_in.set()
            await asyncio.Event().wait()

        limits._admit = slowly
        asking = asyncio.ensure_future(admit(limits, key))
        await let_in.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        limits._admit = whole
        await asyncio.gather(*limits._tasks)
        assert isinstance(await admit(limits, key), SharedTicket)
