"""A project without limits of its own that wants everything: others get through, and it has all that nobody else wants."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.budgets.escrow import Hold
from llmops.core.errors import QueueFull
from llmops.gateway.call import Call
from llmops.gateway.endpoints.chat import CHAT
from llmops.gateway.kept import background
from llmops.gateway.money import purse
from llmops.gateway.pipeline import identify
from llmops.gateway.plane import LARGE_BYTES
from llmops.gateway.throttling import sharing
from llmops.gateway.throttling.queueing import BATCH, INTERACTIVE, Gate
from llmops.gateway.watch import Watch
from tests.gateway.keeping import OTHER, configure
from tests.gateway.responding import PATH, a_response
from tests.gateway.rig import (
    KEY,
    Asked,
    Exchange,
    Reply,
    Rig,
    a_budget,
    a_provider,
    a_route,
    ask,
    completion,
    eventually,
)
from tests.trying import tries

HOG, SMALL = "hog", "small"


def a_gate(**route: Any) -> Gate:
    return Gate(a_route(**route), "small")


def waiting(gate: Gate, project: str, priority: str = INTERACTIVE) -> asyncio.Task[str]:
    async def wait() -> str:
        await gate.enter(priority, gate.monotonic() + 60, project)
        return project

    return asyncio.ensure_future(wait())


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# ---------------------------------------------------------------------- places at a target


async def test_the_next_place_is_of_the_project_that_has_the_fewest() -> None:
    gate = a_gate(max_concurrency=4)
    assert all(gate.enter_now(HOG) for _ in range(4))
    hogs = [waiting(gate, HOG) for _ in range(20)]
    small = [waiting(gate, SMALL) for _ in range(3)]
    await settled()
    for place in range(3):
        gate.leave(HOG)
        await settled()
        # Until both have the same, every place goes to the one that has less; then in turn.
        assert sum(one.done() for one in small) == min(place + 1, 2)
    assert gate.inside == {HOG: 2, SMALL: 2} and gate.in_flight == 4
    for one in (*hogs, *small):
        one.cancel()
    await asyncio.gather(*hogs, *small, return_exceptions=True)
    assert gate.queued == 0


async def test_long_calls_of_one_do_not_eat_up_the_places_of_short_ones_of_another() -> None:
    """By turns alone, each short call would give its place to a long one, until those have them all."""
    gate = a_gate(max_concurrency=4, queue_size=100)
    assert all(gate.enter_now(HOG) for _ in range(4))
    hogs = [waiting(gate, HOG) for _ in range(20)]
    small = [waiting(gate, SMALL) for _ in range(20)]
    await settled()
    gate.leave(HOG)
    gate.leave(HOG)
    await settled()
    for _ in range(18):
        gate.leave(SMALL)
        await settled()
    assert all(one.done() for one in small) and not any(one.done() for one in hogs)
    gate.leave(SMALL)
    gate.leave(SMALL)
    await settled()
    assert sum(one.done() for one in hogs) == 2, "nobody else wants them"
    for one in hogs:
        one.cancel()
    await asyncio.gather(*hogs, return_exceptions=True)


async def test_a_full_queue_takes_from_who_has_the_most_in_it() -> None:
    gate = a_gate(max_concurrency=1, queue_size=4)
    assert gate.enter_now(HOG)
    hogs = [waiting(gate, HOG) for _ in range(4)]
    await settled()
    with pytest.raises(QueueFull):
        await gate.enter(INTERACTIVE, gate.monotonic() + 60, HOG)
    first, second = waiting(gate, SMALL), waiting(gate, SMALL)
    await settled()
    assert [one.done() for one in hogs] == [False, False, True, True], "who came last loses the place"
    for one in hogs[2:]:
        with pytest.raises(QueueFull, match="wait already"):
            await one
    # Two and two: neither takes from the other any more.
    for project in (HOG, SMALL):
        with pytest.raises(QueueFull):
            await gate.enter(INTERACTIVE, gate.monotonic() + 60, project)
    # Neither has a place: in turn, beginning with whoever waited longest.
    for one in (hogs[0], first, hogs[1], second):
        gate.leave(next(name for name, count in gate.inside.items() if count))
        await settled()
        assert one.done() and gate.in_flight == 1
    assert gate.queued == 0


async def test_urgent_calls_of_one_do_not_throw_out_the_batch_calls_of_another() -> None:
    gate = a_gate(max_concurrency=1, queue_size=2)
    assert gate.enter_now(HOG)
    urgent, patient = waiting(gate, HOG), waiting(gate, SMALL, BATCH)
    await settled()
    with pytest.raises(QueueFull):
        await gate.enter(INTERACTIVE, gate.monotonic() + 60, HOG)
    assert not patient.done()
    # Its own batch call makes way, and so does that of whoever has more.
    own = waiting(gate, SMALL)
    await settled()
    assert isinstance(patient.exception(), QueueFull) and gate.queued == 2
    gate.leave(HOG)
    assert await urgent == HOG
    gate.leave(HOG)
    assert await own == SMALL


@given(
    st.integers(1, 3),
    st.integers(0, 4),
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "enter", "batch", "leave", "cancel"]),
            st.integers(0, 9),
            st.integers(0, 2),
        ),
        max_size=60,
    ),
)
@tries(60, at_least=30)
def test_whoever_comes_and_goes_each_place_is_of_one_and_nobody_is_shut_out(
    bound: int, queue: int, steps: list[tuple[str, int, int]]
) -> None:
    async def run() -> None:
        gate = a_gate(max_concurrency=bound, queue_size=queue)
        tasks: list[tuple[str, asyncio.Task[str]]] = []
        inside: list[str] = []
        for what, number, whose in steps:
            project = "abc"[whose]
            if what in ("enter", "batch"):
                before = Counter(name for name, _ in tasks)
                task = waiting(gate, project, BATCH if what == "batch" else INTERACTIVE)
                tasks.append((project, task))
                await settled()
                refused = task.done() and task.exception() is not None
                if refused and what == "enter":
                    most = max(before.values(), default=0)
                    assert before[project] + 1 >= most, "who has fewer in the queue is not sent away"
            elif what == "cancel" and tasks:
                tasks.pop(number % len(tasks))[1].cancel()
            elif inside:
                gate.leave(inside.pop(number % len(inside)))
            await settled()
            for name, task in list(tasks):
                if task.done():
                    tasks.remove((name, task))
                    if task.exception() is None:
                        inside.append(name)
            assert gate.in_flight == len(inside) <= bound
            assert {name: count for name, count in gate.inside.items() if count} == Counter(inside)
            assert gate.queued == len(tasks) <= queue
            assert not tasks or len(inside) == bound, "nobody waits beside a free place"
        for _, task in tasks:
            task.cancel()
        await asyncio.gather(*(task for _, task in tasks), return_exceptions=True)
        for name in inside:
            gate.leave(name)
        assert gate.in_flight == gate.queued == 0 and not any(gate.inside.values())

    asyncio.run(run())


class Held:
    """A provider that answers each call when the test says so, in the order in which they came."""

    def __init__(self, rig: Rig) -> None:
        self.came: list[tuple[str, asyncio.Event]] = []
        rig.upstream.does(self.script)

    async def script(self, asked: Asked, reply: Reply) -> None:
        go = asyncio.Event()
        self.came.append((asked.json["messages"][0]["content"], go))
        await go.wait()
        await reply.json(completion("yes"))

    async def until(self, count: int) -> None:
        await eventually(lambda: len(self.came) == count)

    def names(self) -> list[str]:
        return [name for name, _ in self.came]


async def test_a_project_that_fills_a_target_and_its_queue_does_not_keep_another_out(rig: Rig) -> None:
    configure(rig, routes=[a_route(max_concurrency=2, queue_size=4, queue_timeout_ms=60_000)])
    held = Held(rig)
    hogs = [rig.start(ask("chat", HOG)) for _ in range(6)]
    gate = rig.plane.gates.of(rig.plane.snapshot.routes["chat"], "small")
    await held.until(2)
    await eventually(lambda: gate.queued == 4)
    other = rig.start(ask("chat", SMALL), key=OTHER)
    refused = await hogs[5].done()
    assert (refused.status, refused.error["code"]) == (429, "queue_full")
    held.came[0][1].set()
    await held.until(3)
    assert held.names()[2] == SMALL, "before those that came earlier, of whoever has a place already"
    for number in range(1, 6):
        await held.until(min(number + 2, 6))
        held.came[number][1].set()
    assert {(await one.done()).status for one in (other, *hogs[:5])} == {200}
    assert gate.in_flight == gate.queued == 0


# ---------------------------------------------------------------------- places in a process


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "COUNTED_S", 0.0)


async def test_a_process_that_is_nearly_full_has_room_for_whoever_comes_next(rig: Rig, counted: None) -> None:
    configure(rig)
    rig.plane.most_in_flight, rig.plane.many_in_flight = 16, sharing.many(16)
    held = Held(rig)

    async def under_way(count: int, key: str, text: str) -> list[Exchange]:
        calls = [rig.start(ask("small", text), key=key) for _ in range(count)]
        await settled()
        return calls

    hogs = await under_way(14, KEY, HOG)
    await held.until(14)
    (over,) = await under_way(1, KEY, HOG)
    refused = await over.done()
    assert (refused.status, refused.error["code"]) == (429, "queue_full")
    assert "the project 'support' has its share" in refused.error["message"]
    # Whatever it asks for: what is forwarded as well.
    forwarded = await rig.call(b"", method="GET", path="/v1/files")
    assert forwarded.status == 429
    (other,) = await under_way(1, OTHER, SMALL)
    await held.until(15)
    held.came[14][1].set()
    assert (await other.done()).status == 200
    held.came[0][1].set()
    held.came[1][1].set()
    assert {(await one.done()).status for one in hogs[:2]} == {200}
    (again,) = await under_way(1, KEY, HOG)
    await held.until(16)
    for _, go in held.came:
        go.set()
    assert {(await one.done()).status for one in (*hogs, again)} == {200}


def test_one_has_seven_eighths_two_have_seven_fifteenths_each() -> None:
    for projects in (1, 2, 5):
        crowd, had, now = sharing.Crowd(), Counter[str](), 1.0
        names = [str(number) for number in range(projects)]
        while True:
            now += 1
            more = [one for one in names if crowd.takes(one, 256, had.elements, now)]
            had.update(more)
            if not more:
                break
        assert max(had.values()) - min(had.values()) <= 1
        assert abs(had["0"] - 256 * 7 // (7 * projects + 1)) <= 8
        assert crowd.takes("newcomer", 256, had.elements, now + 1)


async def test_background_responses_of_one_leave_room_for_another(
    rig: Rig, counted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(rig)
    monkeypatch.setattr(background, "MAX_FOLLOWED", 8)
    monkeypatch.setattr(background, "FIRST_S", 60.0)
    made = iter(range(100))

    async def begins(asked: Asked, reply: Reply) -> None:
        if asked.method == "POST":
            await reply.json(a_response(id=f"resp_{next(made)}", status="queued", output=[], usage=None))
        else:
            await reply.json(a_response(id=asked.path.rpartition("/")[2]))

    rig.upstream.does(begins)

    async def begin(key: str) -> int:
        body = {"model": "small", "input": "x", "background": True}
        return (await rig.call(body, path=PATH, key=key)).status

    assert [await begin(KEY) for _ in range(9)] == [200] * 7 + [429] * 2
    assert await begin(OTHER) == 200
    await rig.plane.background.close()


# ---------------------------------------------------------------------- connections to a provider


async def test_connections_are_had_in_turn(rig: Rig) -> None:
    configure(
        rig, providers=[a_provider(base_url=rig.upstream.url, max_connections=1, pool_timeout_ms=60_000)]
    )
    held = Held(rig)
    hogs = [rig.start(ask("small", HOG)) for _ in range(5)]
    await held.until(1)
    pool = rig.plane.transport.channel(rig.plane.snapshot.providers["up"])._pool
    assert pool is not None
    await eventually(lambda: pool.figures[2] == 4)
    others = [rig.start(ask("small", SMALL), key=OTHER) for _ in range(2)]
    await eventually(lambda: pool.figures[2] == 6)
    for number in range(7):
        await held.until(number + 1)
        held.came[number][1].set()
    assert {(await one.done()).status for one in (*hogs, *others)} == {200}
    assert held.names() == [HOG, HOG, SMALL, HOG, SMALL, HOG, HOG]


# ---------------------------------------------------------------------- places among those who wait for money


async def test_who_waits_at_the_end_of_one_budget_keeps_nobody_from_another(
    rig: Rig, counted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purse, "MAX_WAITING", 8)
    monkeypatch.setattr(purse, "RELEASE_PATIENCE_S", 60.0)
    monkeypatch.setattr(purse, "PATIENCE_S", 60.0)
    hogs, other = a_budget("hogs", limit_nano=100), a_budget("other", limit_nano=100)
    configure(rig, budgets=[hogs, other])
    under_way = await rig.purse.hold((hogs,), 100)
    assert isinstance(under_way, Hold)
    tasks = [asyncio.ensure_future(rig.purse.hold((hogs,), 100)) for _ in range(20)]
    await eventually(lambda: sum(one.done() for one in tasks) == 13)
    assert len(rig.purse._waiting) == 7, "those have their share"
    # It has to ask the database, and to wait for that.
    found = await rig.purse.hold((other,), 100)
    assert isinstance(found, Hold)
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for held in (under_way, found):
        rig.purse.settle(held, 0)


# ---------------------------------------------------------------------- the thread for large texts


async def test_large_texts_of_one_do_not_stand_before_those_of_another(rig: Rig) -> None:
    configure(rig)
    busy, order = threading.Event(), list[str]()

    async def work(project: str) -> None:
        await rig.plane.off_loop(lambda: (busy.wait(60), order.append(project)), size=LARGE_BYTES + 1)

    def calls(count: int, key: str, project: str) -> list[asyncio.Task[None]]:
        async def serve(call: Call) -> None:
            call.watch = Watch(call.receive)
            rig.plane.enter(call)
            identify(call)
            try:
                await work(project)
            finally:
                call.close()

        async def receive() -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()

        async def send(message: dict[str, Any]) -> None:
            return None

        scope = {"headers": [(b"authorization", b"Bearer " + key.encode())]}
        return [
            asyncio.ensure_future(serve(Call(rig.plane, CHAT, scope, receive, send))) for _ in range(count)
        ]

    hogs = calls(5, KEY, HOG)
    await settled()
    others = calls(2, OTHER, SMALL)
    await settled()
    hogs[1].cancel()
    await settled()
    busy.set()
    await asyncio.gather(*hogs, *others, return_exceptions=True)
    # One was at it, the next had waited longest.
    assert order == [HOG, HOG, SMALL, HOG, SMALL, HOG]
    await rig.plane.turns.take(HOG)
    rig.plane.turns.leave()
