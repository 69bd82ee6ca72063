"""Places at a target: bounds, who waits first, and bounds that follow how the target does."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import QueueFull
from llmops.gateway.throttling.queueing import (
    BATCH,
    CALM_S,
    INTERACTIVE,
    KNOWN_AFTER,
    LEAST_BY_LATENCY,
    SETTLE_S,
    WITNESS_S,
    Gate,
)
from tests.gateway.rig import KEY, Asked, Reply, Rig, a_key, a_route, answers, completion, eventually, fails
from tests.trying import tries


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def a_gate(clock: Clock | None = None, **route: Any) -> Gate:
    return Gate(a_route(**route), "small", clock or Clock())


def waiting(gate: Gate, priority: str = INTERACTIVE, patience: float = 60) -> asyncio.Task[None]:
    return asyncio.ensure_future(gate.enter(priority, gate.monotonic() + patience))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# ---------------------------------------------------------------------- waiting


async def test_an_open_gate_lets_everybody_in() -> None:
    gate = a_gate()
    assert all(gate.enter_now() for _ in range(10_000))
    assert gate.bound == math.inf


async def test_who_finds_no_place_waits_in_order_and_batch_calls_wait_last() -> None:
    gate, came = a_gate(max_concurrency=1), []
    assert gate.enter_now()

    async def call(name: str, priority: str) -> None:
        await gate.enter(priority, gate.monotonic() + 60)
        came.append(name)

    tasks = []
    for name, priority in (("b1", BATCH), ("i1", INTERACTIVE), ("b2", BATCH), ("i2", INTERACTIVE)):
        tasks.append(asyncio.ensure_future(call(name, priority)))
        await settled()
    assert not gate.enter_now(), "nobody overtakes those who wait"
    for _ in range(5):
        gate.leave()
        await settled()
        assert gate.in_flight <= 1
    assert came == ["i1", "i2", "b1", "b2"]
    await asyncio.gather(*tasks)
    assert gate.in_flight == 0


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    gate = a_gate(max_concurrency=1, queue_size=1)
    assert gate.enter_now()
    first = waiting(gate)
    await settled()
    with pytest.raises(
        QueueFull, match="'chat' takes 1 calls at once at the moment, and 1 wait already"
    ) as full:
        await gate.enter(INTERACTIVE, gate.monotonic() + 60)
    assert (full.value.status, full.value.code) == (429, "queue_full")
    assert (full.value.retry_after or 0) >= 1
    gate.leave()
    await first


async def test_an_interactive_call_takes_the_place_of_the_last_batch_call() -> None:
    gate = a_gate(max_concurrency=1, queue_size=2)
    assert gate.enter_now()
    earlier, later = waiting(gate, BATCH), None
    await settled()
    later = waiting(gate, BATCH)
    await settled()
    urgent = waiting(gate)
    await settled()
    with pytest.raises(QueueFull):
        await later
    with pytest.raises(QueueFull):
        await gate.enter(BATCH, gate.monotonic() + 60)
    gate.leave()
    await urgent
    gate.leave()
    await earlier


async def test_waiting_ends_with_the_time_for_it() -> None:
    gate = a_gate(max_concurrency=1, queue_timeout_ms=20)
    assert gate.enter_now()
    with pytest.raises(QueueFull, match=r"no place came free within 0\.0 s") as late:
        await gate.enter(INTERACTIVE, gate.monotonic() + 60)
    assert late.value.code == "queue_timeout"
    gate.route = a_route(max_concurrency=1, queue_timeout_ms=60_000)
    with pytest.raises(QueueFull):
        await gate.enter(INTERACTIVE, gate.monotonic() + 0.02)
    assert (gate.in_flight, gate.queued) == (1, 0)


async def test_a_call_that_ends_while_it_waits_leaves_nothing_behind() -> None:
    gate = a_gate(max_concurrency=1)
    assert gate.enter_now()
    gone, next_one = waiting(gate), waiting(gate)
    await settled()
    gone.cancel()
    await settled()
    gate.leave()
    await next_one
    assert (gate.in_flight, gate.queued) == (1, 0)
    # The place comes in the very moment in which the call is ended.
    unlucky = waiting(gate)
    await settled()
    gate.leave()
    unlucky.cancel()
    await settled()
    assert unlucky.cancelled()
    assert (gate.in_flight, gate.queued) == (0, 0)


@given(
    st.integers(1, 4),
    st.integers(0, 3),
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "batch", "leave", "cancel", "answer", "overload"]), st.integers(0, 9)
        )
    ),
)
@tries(60, at_least=30)
def test_whatever_happens_no_more_than_the_bound_are_in_and_no_place_is_lost(
    bound: int, queue: int, steps: list[tuple[str, int]]
) -> None:
    async def run() -> None:
        clock = Clock()
        gate = a_gate(clock, max_concurrency=bound, queue_size=queue)
        inside, tasks = 0, []
        entered: list[asyncio.Task[None]] = []
        for what, number in steps:
            clock.now += number / 3
            if what in ("enter", "batch"):
                tasks.append(waiting(gate, BATCH if what == "batch" else INTERACTIVE))
            elif what == "cancel" and tasks:
                tasks.pop(number % len(tasks)).cancel()
            elif entered:
                entered.pop()
                if what == "answer":
                    gate.answered(streamed=False, seconds=1, tokens=10)
                elif what == "overload":
                    gate.overloaded()
                gate.leave()
            await settled()
            for task in [one for one in tasks if one.done()]:
                tasks.remove(task)
                if not task.cancelled() and task.exception() is None:
                    entered.append(task)
            inside = len(entered)
            assert gate.in_flight == inside <= bound
            assert gate.queued == len(tasks) <= queue
            assert not tasks or gate.in_flight >= min(bound, gate.bound), "nobody waits beside a free place"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _ in entered:
            gate.leave()
        assert (gate.in_flight, gate.queued) == (0, 0)

    asyncio.run(run())


# ---------------------------------------------------------------------- following the target


def test_a_target_with_too_much_gets_less_and_then_slowly_more() -> None:
    clock = Clock()
    gate = a_gate(clock)
    for _ in range(100):
        gate.enter_now()
    gate.overloaded()
    assert gate.bound == 75
    gate.overloaded()
    assert gate.bound == 75, "what was under way tells of what was before"
    clock.now += SETTLE_S
    gate.overloaded()
    assert gate.bound == 56
    for _ in range(44):
        gate.leave()
    for _ in range(58):
        gate.answered(streamed=False, seconds=1, tokens=100)
    assert 56.9 < gate.bound < 58, "one more for a round of answers"


def test_what_one_project_alone_is_told_takes_no_place_from_the_others() -> None:
    clock = Clock()
    gate = a_gate(clock)
    for _ in range(64):
        gate.enter_now()

    def fine(*projects: str) -> None:
        for one in projects:
            gate.answered(streamed=False, seconds=1, tokens=100, project=one)

    fine("a", "b")
    for _ in range(300):
        clock.now += SETTLE_S
        gate.overloaded("evil")
        if round(clock.now) % 7 == 0:
            fine("a", "b")
    assert gate.bound == math.inf
    # Nor do two who act in concert, while more others are answered.
    for _ in range(30):
        clock.now += SETTLE_S
        fine("a", "b", "c")
        gate.overloaded("evil")
        gate.overloaded("its friend")
    assert gate.bound == math.inf
    # Too much is too much once most are told so, answered in between or not.
    clock.now += SETTLE_S
    fine("a", "b", "c")
    for one in ("a", "b"):
        gate.overloaded(one)
    assert gate.bound == 48


def test_who_was_answered_long_ago_is_no_witness() -> None:
    clock = Clock()
    gate = a_gate(clock)
    for _ in range(64):
        gate.enter_now()
    gate.answered(streamed=False, seconds=1, tokens=100, project="a")
    clock.now += 3_600
    for seconds in (0.0, WITNESS_S + 1):
        clock.now += seconds
        gate.overloaded("b")
    assert gate.bound == 48


def test_a_bound_that_holds_nobody_back_is_lifted() -> None:
    clock = Clock()
    gate = a_gate(clock)
    for _ in range(10):
        gate.enter_now()
    gate.overloaded()
    for _ in range(9):
        gate.leave()
    gate.answered(streamed=False, seconds=1, tokens=10)
    assert gate.bound == 7
    clock.now += CALM_S + 1
    gate.answered(streamed=False, seconds=1, tokens=10)
    assert gate.bound == math.inf


def test_slow_answers_are_too_much_and_long_answers_are_not() -> None:
    clock, chance = Clock(), random.Random(7)
    gate = a_gate(clock)
    for _ in range(64):
        gate.enter_now()
    for _ in range(3 * KNOWN_AFTER):
        clock.now += 0.1
        tokens = chance.choice((5, 50, 2_000))
        gate.answered(streamed=False, seconds=tokens * chance.uniform(0.015, 0.025), tokens=tokens)
        gate.answered(streamed=True, seconds=chance.uniform(0.3, 0.9), tokens=tokens)
    assert gate.bound == math.inf
    for _ in range(200):
        clock.now += 0.1
        gate.answered(streamed=True, seconds=4.0, tokens=50)
    assert LEAST_BY_LATENCY <= gate.bound < 48


def test_an_instant_provider_may_take_its_time_while_we_are_busy_ourselves() -> None:
    clock = Clock()
    gate = a_gate(clock)
    for _ in range(1_000):
        gate.enter_now()
    for seconds in (0.002, 0.5):
        for _ in range(KNOWN_AFTER * 2):
            clock.now += 0.1
            gate.answered(streamed=True, seconds=seconds, tokens=1)
    assert gate.bound == math.inf


def test_latency_alone_never_starves_a_target() -> None:
    clock = Clock()
    gate = a_gate(clock)
    for _ in range(KNOWN_AFTER * 2):
        gate.answered(streamed=True, seconds=0.1, tokens=1)
    for _ in range(30):
        gate.enter_now()
    for _ in range(40):
        clock.now += SETTLE_S
        gate.answered(streamed=True, seconds=60.0, tokens=1)
    assert gate.bound >= LEAST_BY_LATENCY


def test_streams_that_began_slowly_and_end_one_by_one_cut_once_and_by_how_many_began() -> None:
    clock = Clock()
    gate = a_gate(clock)
    for _ in range(KNOWN_AFTER * 2):
        gate.answered(streamed=True, seconds=0.1, tokens=1)
    beside = []
    for _ in range(2_000):
        gate.enter_now()
        beside.append(gate.in_flight)
    # All at once was too much: the later ones began late. They end long afterwards, over ten seconds.
    began = clock.now
    for place in range(2_000):
        clock.now = began + 60 + place / 200
        gate.answered(
            streamed=True,
            seconds=2.0 if place >= 1_900 else 0.1,
            tokens=100,
            beside=beside[place],
            ago=clock.now - began,
        )
        gate.leave()
    assert 1_425 <= gate.bound < 1_500, "three quarters of as many as there were"


def test_slow_answers_do_not_undo_what_an_overloaded_target_said() -> None:
    clock = Clock()
    gate = a_gate(clock)
    for _ in range(KNOWN_AFTER * 2):
        gate.answered(streamed=True, seconds=0.1, tokens=1)
    for _ in range(4):
        gate.enter_now()
    gate.overloaded()
    assert gate.bound == 3
    for _ in range(40):
        clock.now += SETTLE_S
        gate.answered(streamed=True, seconds=60.0, tokens=1, beside=20)
    assert gate.bound <= 4


# ---------------------------------------------------------------------- on the way of a call


async def test_calls_wait_for_a_place_at_the_target_and_all_are_answered(rig: Rig) -> None:
    rig.configure(routes=(a_route(max_concurrency=3),))
    inside, most = 0, 0

    async def script(asked: Asked, reply: Reply) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.01)
        inside -= 1
        await reply.json(completion())

    rig.upstream.does(script)
    found = await asyncio.gather(*(rig.chat(model="chat") for _ in range(20)))
    assert {one.status for one in found} == {200}
    assert most == 3
    assert max(one.outcome.queue_us for one in rig.ended() if one.outcome) > 5_000
    rig.nothing_held()


async def test_a_full_queue_is_a_rate_limit_for_the_client_and_costs_nothing(rig: Rig) -> None:
    rig.configure(routes=(a_route(max_concurrency=1, queue_size=0),))
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await release.wait()
        await reply.json(completion())

    rig.upstream.does(script)
    first = rig.start({"model": "chat", "messages": [{"role": "user", "content": "a"}]})
    await eventually(lambda: len(rig.upstream.asked) == 1)
    refused = await rig.chat(model="chat")
    assert (refused.status, refused.error["code"], refused.error["type"]) == (429, "queue_full", "requests")
    assert int(refused.headers["retry-after"]) >= 1
    release.set()
    assert (await first.done()).status == 200
    assert len(rig.upstream.asked) == 1
    rig.nothing_held()


async def test_a_client_that_hangs_up_while_it_waits_frees_its_place_in_the_queue(rig: Rig) -> None:
    rig.configure(routes=(a_route(max_concurrency=1),))
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await release.wait()
        await reply.json(completion())

    rig.upstream.does(script)
    body = {"model": "chat", "messages": [{"role": "user", "content": "a"}]}
    first = rig.start(body)
    await eventually(lambda: len(rig.upstream.asked) == 1)
    second = rig.start(body)
    gate = rig.plane.gates.all["chat", "small"]
    await eventually(lambda: gate.queued == 1)
    second.hang_up()
    await eventually(lambda: gate.queued == 0)
    release.set()
    assert (await first.done()).status == 200
    await eventually(lambda: not rig.plane.calls)
    assert gate.in_flight == 0
    assert len(rig.upstream.asked) == 1


async def test_a_target_that_says_429_is_asked_less(rig: Rig) -> None:
    rig.configure(routes=(a_route(attempts=1),))
    rig.upstream.does(fails(429, "rate_limit_exceeded"))
    await asyncio.gather(*(rig.chat(model="chat") for _ in range(16)))
    gate = rig.plane.gates.all["chat", "small"]
    assert gate.bound < 16
    rig.upstream.does(answers())
    assert {one.status for one in await asyncio.gather(*(rig.chat(model="chat") for _ in range(16)))} == {200}
    assert gate.in_flight == 0


async def test_a_tenant_that_meets_overload_alone_slows_nobody_else_down(rig: Rig) -> None:
    other = "llmops_othersss_" + "o" * 40
    rig.configure(routes=(a_route(attempts=1),), keys={KEY: a_key(), other: a_key("evil", project="evil")})

    async def chokes(asked: Asked, reply: Reply) -> None:
        await (fails(503) if b"poison" in asked.body else answers())(asked, reply)

    rig.upstream.does(chokes)
    assert (await rig.chat(model="chat")).status == 200
    for _ in range(3):
        attack = [rig.chat(model="chat", text="poison", how={"key": other}) for _ in range(4)]
        found = await asyncio.gather(rig.chat(model="chat"), *attack)
        assert [one.status for one in found] == [200, 502, 502, 502, 502]
    assert rig.plane.gates.all["chat", "small"].bound == math.inf


async def test_batch_calls_are_known_by_their_key_or_their_word(rig: Rig) -> None:
    key = a_key(priority="batch")
    rig.configure(routes=(a_route(max_concurrency=1),), keys={KEY: key})
    wrong = await rig.chat(model="chat", how={"headers": {"x-llmops-priority": "urgent"}})
    assert (wrong.status, wrong.error["param"]) == (400, "x-llmops-priority")
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await release.wait()
        await reply.json(completion(asked.json["messages"][0]["content"]))

    rig.upstream.does(script)
    # A batch key cannot call itself interactive.
    calls = [rig.start({"model": "chat", "messages": [{"role": "user", "content": "0"}]})]
    await eventually(lambda: len(rig.upstream.asked) == 1)
    calls.append(
        rig.start(
            {"model": "chat", "messages": [{"role": "user", "content": "1"}]},
            headers={"x-llmops-priority": "interactive"},
        )
    )
    gate = rig.plane.gates.all["chat", "small"]
    await eventually(lambda: gate._waiting[BATCH].of(key.project_id) == 1)
    release.set()
    assert {(await one.done()).status for one in calls} == {200}
