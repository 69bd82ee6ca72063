"""``Idempotency-Key`` over processes and hosts: a file, a Redis, and a real kill."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import time_machine

from llmops.gateway.idempotency import repeating, shared
from llmops.gateway.idempotency.flights import Flights
from llmops.gateway.idempotency.ledger import ALIVE_S, LOST, RUNNING, Entry, LedgerAway, Name
from llmops.gateway.idempotency.ledger import DONE as ANSWERED
from llmops.gateway.idempotency.on_disk import OnDisk
from llmops.gateway.idempotency.shared import Shared
from tests import servers
from tests.gateway.rig import (
    KEY,
    Asked,
    Reply,
    Rig,
    Upstream,
    a_key,
    answers,
    ask,
    eventually,
    fails,
    hangs,
    streams,
)
from tests.gateway.test_idempotency import ONCE, STREAM, replayed

pytestmark = pytest.mark.any_engine


# ---------------------------------------------------------------------- processes


@pytest.fixture
async def two(tmp_path: Path, upstream: Upstream) -> AsyncIterator[tuple[Rig, Rig]]:
    """Two data planes of one host."""
    rigs = [Rig(tmp_path / name, upstream) for name in ("one", "two")]
    mine = a_key()
    for one in rigs:
        one.configure(keys={KEY: mine})
        one.plane.flights = Flights(OnDisk(tmp_path / "answers.sqlite3"))
    yield rigs[0], rigs[1]
    for one in rigs:
        await one.close()


async def test_two_processes_answer_once(two: tuple[Rig, Rig]) -> None:
    one, other = two
    go = asyncio.Event()

    async def waits(asked: Asked, reply: Reply) -> None:
        await go.wait()
        await answers()(asked, reply)

    one.upstream.does(waits)
    running = [rig.start(ask(), **ONCE) for rig in (one, other) * 8]
    await eventually(lambda: len(one.upstream.asked) == 1)
    go.set()
    found = await asyncio.gather(*(each.done() for each in running))
    assert len(one.upstream.asked) == 1
    assert len({each.body for each in found}) == 1
    assert sum(replayed(each) for each in found) == 15


async def test_an_answer_survives_its_process(two: tuple[Rig, Rig]) -> None:
    one, other = two
    one.upstream.does(answers())
    first = await one.chat(how=ONCE)
    await one.plane.flights.close()
    again = await other.chat(how=ONCE)
    assert (replayed(again), again.body) == (True, first.body)


async def test_what_a_dead_process_left_is_not_paid_twice(
    two: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr(repeating, "WAIT_S", 0.05)
    one.upstream.does(hangs)
    with time_machine.travel("2026-11-26T12:00:00Z", tick=False) as clock:
        dying = one.start(ask(), **ONCE)
        await eventually(lambda: len(one.upstream.asked) == 1, seconds=10)
        # It says nothing any more. While it may live, the other waits.
        assert (await other.chat(how=ONCE)).error["code"] == "idempotency_in_progress"
        clock.shift(ALIVE_S + 1)
        lost = await other.chat(how=ONCE)
        assert (lost.status, lost.error["code"]) == (409, "idempotency_outcome_unknown")
        assert lost.headers["x-should-retry"] == "false"
    assert len(one.upstream.asked) == 1
    dying.task.cancel()
    await asyncio.gather(dying.task, return_exceptions=True)


async def test_a_long_call_holds_its_key(two: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two
    monkeypatch.setattr(repeating, "WAIT_S", 0.05)
    one.upstream.does(hangs)
    with time_machine.travel("2026-11-26T12:00:00Z", tick=False) as clock:
        running = one.start(ask(), **ONCE)
        await eventually(lambda: len(one.upstream.asked) == 1)
        for _ in range(3):
            clock.shift(ALIVE_S - 1)
            one.plane.flights._renewed = -1e9
            await one.plane.flights.tick()
        assert (await other.chat(how=ONCE)).error["code"] == "idempotency_in_progress"
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)


async def test_nothing_of_an_answer_can_be_read_in_the_file(two: tuple[Rig, Rig], tmp_path: Path) -> None:
    one, _ = two
    one.upstream.does(answers("a very private answer"))
    await one.chat(how=ONCE, text="a very private question")
    for file in tmp_path.glob("answers.sqlite3*"):
        content = file.read_bytes()
        for secret in (b"private", b"order-7f3a", b"messages", KEY.encode()):
            assert secret not in content
    assert (tmp_path / "answers.sqlite3").stat().st_mode & 0o077 == 0


async def test_a_file_that_cannot_be_used_refuses_who_wants_to_be_sure(rig: Rig, tmp_path: Path) -> None:
    broken = tmp_path / "broken.sqlite3"
    broken.write_bytes(b"no database at all" * 100)
    rig.plane.flights = Flights(OnDisk(broken))
    rig.upstream.does(answers())
    found = await rig.chat(how=ONCE)
    assert (found.status, found.error["code"]) == (503, "idempotency_unavailable")
    assert "retry-after" in found.headers
    assert not rig.upstream.asked
    assert (await rig.chat()).status == 200


# ---------------------------------------------------------------------- a real kill, a real Redis

DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from llmops.gateway.idempotency.ledger import Name
from llmops.gateway.idempotency.on_disk import OnDisk

async def main():
    ledger = OnDisk(Path(sys.argv[1]))
    await ledger.claim(Name("p", b"answered"), "dying", b"asked")
    await ledger.conclude(Name("p", b"answered"), "dying", b"the answer")
    await ledger.claim(Name("p", b"under way"), "dying", b"asked")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_kill_9_loses_no_answer_and_frees_no_key(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite3"
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, str(path))
    assert await dying.wait() == -signal.SIGKILL
    ledger = OnDisk(path)
    assert await ledger.claim(Name("p", b"answered"), "me", b"asked") == Entry(
        ANSWERED, b"asked", b"the answer"
    )
    assert await ledger.claim(Name("p", b"under way"), "me", b"asked") == Entry(RUNNING, b"asked")
    with time_machine.travel(time.time() + ALIVE_S + 1):
        assert await ledger.claim(Name("p", b"under way"), "me", b"asked") == Entry(LOST, b"asked")
    # Nor does a process that was taken for dead end what is not its own.
    await ledger.release(Name("p", b"under way"), "me")
    assert await ledger.claim(Name("p", b"under way"), "me", b"asked") is not None
    await ledger.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with servers.valkey() as running:
        yield running


@pytest.fixture
async def apart(tmp_path: Path, upstream: Upstream, url: str) -> AsyncIterator[tuple[Rig, Rig]]:
    """Two data planes of two hosts, with a Redis."""
    rigs = [Rig(tmp_path / name, upstream) for name in ("one", "two")]
    mine = a_key()
    for one in rigs:
        one.configure(keys={KEY: mine})
        one.plane.flights = Flights(Shared(url))
    yield rigs[0], rigs[1]
    for one in rigs:
        await one.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a Redis that is away."""
    monkeypatch.setattr(shared, "TIMEOUT_S", 5.0)


@pytest.mark.parametrize("stream", [False, True])
async def test_two_hosts_answer_once(apart: tuple[Rig, Rig], stream: bool) -> None:
    one, other = apart
    go = asyncio.Event()

    async def waits(asked: Asked, reply: Reply) -> None:
        await go.wait()
        await (streams(*STREAM) if stream else answers())(asked, reply)

    one.upstream.does(waits)
    running = [rig.start(ask(stream=stream), **ONCE) for rig in (one, other) * 8]
    await eventually(lambda: len(one.upstream.asked) == 1)
    assert (await other.chat(how=ONCE, text="Another")).status == 422
    go.set()
    found = await asyncio.gather(*(each.done() for each in running))
    assert len(one.upstream.asked) == 1
    assert len({each.body for each in found}) == 1
    assert sum(replayed(each) for each in found) == 15
    assert replayed(await other.chat(how=ONCE, stream=stream))


async def test_what_was_refused_on_one_host_is_free_on_the_other(apart: tuple[Rig, Rig]) -> None:
    one, other = apart
    one.upstream.does(fails(400))
    assert (await one.chat(how=ONCE)).status == 400
    one.upstream.does(answers())
    found = await other.chat(how=ONCE)
    assert (found.status, replayed(found)) == (200, False)


async def test_what_a_dead_host_left_is_not_paid_twice(
    apart: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = apart
    monkeypatch.setattr(shared, "ALIVE_S", 0.3)
    one.upstream.does(hangs)
    dying = one.start(ask(), **ONCE)
    await eventually(lambda: len(one.upstream.asked) == 1)
    # It waits while the first may live, and says so when it is lost.
    lost = await other.chat(how=ONCE)
    assert (lost.status, lost.error["code"]) == (409, "idempotency_outcome_unknown")
    assert len(one.upstream.asked) == 1
    dying.task.cancel()
    await asyncio.gather(dying.task, return_exceptions=True)


async def test_a_redis_that_is_away_refuses_who_wants_to_be_sure(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.plane.flights = Flights(Shared("redis://127.0.0.1:9/0"))
    found = await rig.chat(how=ONCE)
    assert (found.status, found.error["code"]) == (503, "idempotency_unavailable")
    assert not rig.upstream.asked
    assert (await rig.chat()).status == 200


async def test_redis_away_at_the_end_keeps_the_answer_from_nobody(
    apart: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = apart

    async def breaks(asked: Asked, reply: Reply) -> None:
        async def conclude(*_: Any) -> None:
            raise LedgerAway

        one.plane.flights.ledger.conclude = conclude  # type: ignore[method-assign]
        await answers()(asked, reply)

    one.upstream.does(breaks)
    assert (await one.chat(how=ONCE)).status == 200
    assert len(one.plane.flights) == 0
    # Nobody says of it that it lives any more: it is lost in a minute, and not asked again before.
    monkeypatch.setattr(repeating, "WAIT_S", 0.05)
    assert (await other.chat(how=ONCE)).error["code"] == "idempotency_in_progress"
    assert len(one.upstream.asked) == 1


async def test_in_redis_answers_make_room_and_end(url: str) -> None:
    name = Name("large", b"0")
    with redis.Redis.from_url(url) as looking:
        looking.flushall()
        ledger = Shared(url, max_bytes=100_000, seconds=0.5)
        small = Name("small", b"s")
        await ledger.claim(small, "me", b"r")
        await ledger.conclude(small, "me", b"x" * 1000)
        for index in range(60):
            name = Name("large", b"%d" % index)
            assert await ledger.claim(name, "me", b"r") is None
            await ledger.conclude(name, "me", b"x" * 10_000)
            assert int(looking.get("llmops:{idempotency}:bytes")) <= 100_000  # type: ignore[arg-type]
        kept = await ledger.claim(small, "other", b"r")
        assert kept is None or kept.answer == b"x" * 1000
        async with asyncio.timeout(60):
            while await ledger.claim(name, "again", b"r") is not None:
                await asyncio.sleep(0.05)
        # What outlived its time is forgotten with all that was counted of it.
        await ledger.release(name, "again")
        await ledger.claim(Name("p", b"one"), "me", b"r")
        await ledger.release(Name("p", b"one"), "me")
        left = set(looking.scan_iter("llmops:{idempotency}:*"))
        assert left <= {b"llmops:{idempotency}:bytes"}
        assert int(looking.get("llmops:{idempotency}:bytes") or 0) == 0  # type: ignore[arg-type]
        await ledger.close()
