"""Breakers: they open exactly at the rate, one probe at a time, are reset by an operator, and say what happened to them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.attempts.breakers import (
    BY_ANOTHER,
    BY_CALLS,
    BY_PROBE,
    BY_RATE,
    BY_RESET,
    Breaker,
    Breakers,
)
from llmops.usage.records import BreakerSeen
from tests.gateway.rig import KEY, Asked, Reply, Rig, a_key, a_route, answers, fails

SETTINGS = {
    "breaker_failure_percent": 50,
    "breaker_min_calls": 4,
    "breaker_window_s": 60,
    "breaker_cooldown_s": 30,
}


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=80),
    st.integers(1, 100),
    st.integers(1, 12),
    st.integers(1, 90),
)
def test_it_opens_exactly_at_the_rate(
    calls: list[tuple[bool, float]], percent: int, least: int, window: int
) -> None:
    """Against a model that keeps every call. The breaker keeps whole seconds: a call of the last second of the window may
    count a second longer."""
    breaker = Breaker(
        a_route("r", breaker_failure_percent=percent, breaker_min_calls=least, breaker_window_s=window)
    )
    seen: list[tuple[float, bool]] = []
    now = 0.0
    for ok, passed in calls:
        now += passed
        breaker.record(ok, now)
        seen.append((now, ok))
        surely = [one for at, one in seen if now - at <= window]
        perhaps = [one for at, one in seen if now - at <= window + 2]
        rates = [
            len(found) >= least and found.count(False) * 100 >= percent * len(found)
            for found in (surely, perhaps)
        ]
        if len(surely) == len(perhaps):
            assert bool(breaker.open_until) == (rates[0] and not ok), (rates, ok)
        if breaker.open_until:
            assert not ok, "a good call opens nothing"
            return


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.floats(0, 5)),
            st.tuples(st.sampled_from(["ok", "bad", "drop"]), st.integers(0, 9)),
            st.tuples(st.sampled_from(["adopt", "close"]), st.floats(0, 5)),
        ),
        max_size=80,
    )
)
def test_there_is_never_more_than_one_probe(events: list[tuple[str, Any]]) -> None:
    breaker = Breaker(a_route("r", **(SETTINGS | {"breaker_min_calls": 1, "breaker_cooldown_s": 3})))
    under_way: list[bool] = []
    generation = 0
    probes: list[int] = []
    now = 0.0
    for what, value in events:
        if what == "ask":
            now += value
            open_before = breaker.open_until
            if breaker.allows(now):
                probe = bool(open_before)
                assert not probe or now >= open_before
                under_way.append(probe)
                if probe:
                    probes.append(generation)
        elif what in ("ok", "bad", "drop") and under_way:
            probe = under_way.pop(value % len(under_way))
            if probe:
                probes.pop()
            if what == "drop":
                if probe:
                    breaker.forget_probe()
            else:
                breaker.record(what == "ok", now, probe=probe)
        elif what == "adopt":
            breaker.adopt(now + value, now, "elsewhere")
        elif what == "close" and not any(under_way):
            breaker.close(now, by=BY_ANOTHER)
        assert under_way.count(True) <= 1
        assert breaker.probing == (True in under_way)


def test_every_change_is_told_once() -> None:
    told: list[tuple[str, str]] = []
    breakers = Breakers(lambda breaker, state, by, now: told.append((state, by)))
    breaker = breakers.named(a_route("r", **SETTINGS), "m", "p")
    for _ in range(6):
        breaker.record(False, 0.0, why="status 500")
    assert breaker.why == "4 of 4 calls failed within 60 s: status 500 (4)"
    assert breaker.allows(30.0)
    breaker.record(False, 31.0, probe=True, why="a time-out")
    assert breaker.why == "the probe failed too: a time-out"
    assert breaker.allows(61.0)
    breaker.record(True, 62.0, probe=True)
    breaker.adopt(100.0, 63.0, "elsewhere")
    breaker.adopt(100.2, 63.0, "elsewhere")
    breaker.close(64.0, by=BY_RESET)
    breaker.close(64.0, by=BY_RESET)
    assert told == [
        ("open", BY_RATE),
        ("open", BY_PROBE),
        ("closed", BY_PROBE),
        ("open", BY_ANOTHER),
        ("closed", BY_RESET),
    ]


def test_a_reset_is_for_its_route_and_forgets_what_was_counted() -> None:
    breakers = Breakers()
    for slug in ("r", "other"):
        for _ in range(4):
            breakers.named(a_route(slug, **SETTINGS), "m", "p").record(False, 0.0)
    breakers.reset({}, {}, 1.0)
    breakers.reset({"r": 5.0}, {"r": 5.0}, 1.0)
    assert len(list(breakers.open())) == 2
    breakers.reset({"r": 5.0}, {"r": 6.0}, 1.0)
    [left] = breakers.open()
    assert left.key == ("other", "m", "p")
    again = breakers.named(a_route("r", **SETTINGS), "m", "p")
    again.record(False, 2.0)
    assert again.allows(2.0)


# ---------------------------------------------------------------------- projects


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.booleans(), st.floats(0, 20)),
        max_size=120,
    ),
    st.integers(1, 100),
    st.integers(1, 12),
)
def test_the_common_one_opens_only_when_others_fail_as_well(
    calls: list[tuple[str, bool, float]], percent: int, least: int
) -> None:
    """Against a model that keeps every call, as above."""
    window = 60
    breakers = Breakers()
    route = a_route("r", breaker_failure_percent=percent, breaker_min_calls=least, breaker_window_s=window)
    common = breakers.named(route, "m")
    seen: list[tuple[float, str, bool]] = []
    now = 0.0

    def opens(found: list[tuple[str, bool]]) -> bool:
        def rate(some: list[bool]) -> bool:
            return some.count(False) * 100 >= percent * len(some)

        failures = {name: sum(not ok for who, ok in found if who == name) for name, _ in found}
        most = max(failures.values(), default=0)
        verdicts = set()
        for worst in [name for name, count in failures.items() if count == most]:
            others = [ok for who, ok in found if who != worst]
            verdicts.add(others.count(False) >= max(1, least / 4) and rate(others))
        enough = len(found) >= least and rate([ok for _, ok in found])
        # Which of two that fail as often is left out does not matter to anybody.
        return enough and (verdicts == {True} or (len(verdicts) == 2 and bool(common.open_until)))

    for project, ok, passed in calls:
        now += passed
        breakers.named(route, "m", project).record(ok, now)
        seen.append((now, project, ok))
        surely = [(who, one) for at, who, one in seen if now - at <= window]
        perhaps = [(who, one) for at, who, one in seen if now - at <= window + 2]
        if surely == perhaps:
            assert bool(common.open_until) == (opens(surely) and not ok)
        if common.open_until:
            assert len({who for at, who, one in seen if not one}) > 1
            return


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["mine", "a", "b", "c", "d"]), st.booleans(), st.floats(0, 10), st.booleans()
        ),
        max_size=150,
    ),
    st.integers(1, 100),
    st.integers(1, 12),
)
def test_nothing_that_others_do_keeps_a_project_away(
    calls: list[tuple[str, bool, float, bool]], percent: int, least: int
) -> None:
    """Any number of projects in any concert, with probes, against one whose calls fail less often than the limit."""
    breakers = Breakers()
    route = a_route("r", breaker_failure_percent=percent, breaker_min_calls=least, breaker_window_s=60)
    seen: list[tuple[float, bool]] = []
    now = 0.0
    for project, ok, passed, other_process in calls:
        now += passed
        breaker = breakers.named(route, "m", project)
        if other_process:
            breakers.named(route, "m").adopt(now + 30, now, "told by another")
        allowed = breaker.allows(now)
        if project != "mine":
            # Whoever is allowed, or began before it opened.
            asked = breaker.asked  # type: ignore[attr-defined]
            probe = allowed and asked.probing
            (asked if probe else breaker).record(ok, now, probe=probe)
            continue
        for window in (60, 62):
            mine = [one for at, one in seen if now - at <= window]
            if mine.count(False) and mine.count(False) * 100 >= percent * len(mine):
                break
        else:
            assert allowed, "its own calls did well"
        asked = breaker.asked  # type: ignore[attr-defined]
        probe = allowed and asked.probing
        (asked if probe else breaker).record(ok, now, probe=probe)
        seen.append((now, ok))
        if breaker.open_until:
            # It was its own calls that opened it.
            return


def test_two_in_concert_close_a_target_to_nobody_else_and_an_outage_costs_each_one_call() -> None:
    breakers = Breakers()
    route = a_route("r", **SETTINGS)
    for _ in range(4):
        for name in ("evil", "wicked"):
            breakers.named(route, "m", name).record(False, 0.0)
    assert breakers.named(route, "m").open_until == 30.0
    honest = breakers.named(route, "m", "honest")
    for second in range(1, 200):
        assert honest.allows(float(second))
        honest.record(True, float(second))
    other = breakers.named(route, "m", "other")
    breakers.named(route, "m").adopt(300.0, 200.0, "")
    assert other.allows(200.0)
    other.record(False, 200.0)
    assert not other.allows(201.0)
    assert other.allows(262.0), "what is older than the window says nothing"


def test_whose_probe_failed_leaves_the_next_one_to_others() -> None:
    breakers = Breakers()
    route = a_route("r", **(SETTINGS | {"breaker_window_s": 600}))
    mine, theirs = (breakers.named(route, "m", name) for name in ("mine", "theirs"))
    for _ in range(4):
        mine.record(False, 0.0)
        theirs.record(False, 0.0)
    common = breakers.named(route, "m")
    assert common.open_until == 30.0
    assert common.why == "4 of 4 calls failed within 600 s; 2 projects"
    assert mine.allows(31.0)
    assert not theirs.allows(31.0)
    common.record(False, 32.0, probe=True)
    assert not mine.allows(63.0), "it may be what makes it fail"
    assert theirs.allows(63.0)
    common.forget_probe()
    assert mine.allows(93.0), "others do not come"
    common.record(True, 94.0, probe=True)
    assert not common.open_until


def test_that_nobody_asks_for_a_probe_any_more_keeps_it_open_for_nobody() -> None:
    told: list[tuple[str, str, float]] = []
    breakers = Breakers(lambda breaker, state, by, now: told.append((state, by, now)))
    route = a_route("r", **SETTINGS)
    mine, theirs = (breakers.named(route, "m", name) for name in ("mine", "theirs"))
    # Too few for a breaker of their own.
    for breaker in (mine, theirs) * 2:
        breaker.record(False, 0.0)
    assert told == [("open", BY_RATE, 0.0)] and breakers.named(route, "m").open_until == 30.0
    for at in (62.0, 89.0):
        assert mine.allows(at), "what failed is older than the window"
        mine.record(True, at)
    assert len(told) == 1, "somebody may still have to ask"
    mine.record(False, 90.5)
    assert len(told) == 1, "a failure closes nothing"
    theirs.record(True, 91.0)
    assert told[1:] == [("closed", BY_CALLS, 91.0)]


# ---------------------------------------------------------------------- over a plane


def seen(rig: Rig) -> list[BreakerSeen]:
    return [one for one in rig.records() if isinstance(one, BreakerSeen)]


async def test_opening_and_closing_is_written_down(rig: Rig) -> None:
    rig.configure(routes=[a_route(attempts=1, breaker_min_calls=2, breaker_cooldown_s=30)])
    rig.upstream.does(fails(500))
    before = time.time_ns()
    for _ in range(3):
        await rig.chat(model="chat")
    [opened] = seen(rig)
    assert (opened.route, opened.model, opened.provider) == ("chat", "small", "up")
    assert (opened.state, opened.by, opened.project) == ("open", "rate", "support")
    assert opened.why == "2 of 2 calls failed within 60 s: status 500 (2)"
    assert before + 29e9 < opened.until < time.time_ns() + 31e9
    rig.plane.breakers.named(a_route(), "small", "support").open_until = 0.001
    rig.upstream.does(answers())
    assert (await rig.chat(model="chat")).status == 200
    assert [(one.state, one.by) for one in seen(rig)] == [("open", "rate"), ("closed", "probe")]


async def test_an_operators_reset_comes_with_the_live_state(rig: Rig) -> None:
    route = a_route(attempts=1, breaker_min_calls=1)
    rig.configure(routes=[route])
    rig.upstream.does(fails(500))
    await rig.chat(model="chat")
    assert (await rig.chat(model="chat")).error["code"] == "circuit_open"
    rig.upstream.does(answers())
    rig.configure(routes=[route], version=2)
    assert (await rig.chat(model="chat")).error["code"] == "circuit_open", "other news close nothing"
    rig.configure(routes=[route], version=3, breaker_resets={"chat": 1.0})
    assert (await rig.chat(model="chat")).status == 200
    assert [(one.state, one.by) for one in seen(rig)] == [("open", "rate"), ("closed", "reset")]


OTHER = "llmops_othertes_" + "o" * 40


async def poisoned(asked: Asked, reply: Reply) -> None:
    """A provider that some requests make fail."""
    await (fails(500) if b"poison" in asked.body else answers())(asked, reply)


async def test_a_tenant_whose_requests_make_a_provider_fail_opens_nothing_for_others(rig: Rig) -> None:
    route = a_route(attempts=1, breaker_min_calls=4, breaker_cooldown_s=30)
    keys = {KEY: a_key(), OTHER: a_key("evil", project="evil")}
    rig.configure(routes=[route], keys=keys)
    rig.upstream.does(poisoned)
    seen_by_evil = []
    for _ in range(40):
        attack = [rig.chat(model="chat", text="poison", how={"key": OTHER}) for _ in range(5)]
        found = await asyncio.gather(*attack, rig.chat(model="chat"))
        assert found[-1].status == 200
        seen_by_evil += [one.error["code"] for one in found[:-1]]
    assert "circuit_open" in seen_by_evil
    assert sum(b"poison" in one.body for one in rig.upstream.asked) <= 12, "its own are kept away"
    [opened] = seen(rig)
    assert (opened.project, opened.model) == ("evil", "small")
    assert not rig.plane.breakers.named(route, "small").open_until


async def test_a_tenant_that_poisons_probes_opens_nothing_for_others(rig: Rig) -> None:
    route = a_route(attempts=1, breaker_min_calls=2, breaker_cooldown_s=30)
    rig.configure(routes=[route], keys={KEY: a_key(), OTHER: a_key("evil", project="evil")})
    rig.upstream.does(poisoned)
    for _ in range(20):
        await rig.chat(model="chat", text="poison", how={"key": OTHER})
        breaker = rig.plane.breakers.named(route, "small", "evil")
        if breaker.open_until:
            breaker.open_until = 0.001
        assert (await rig.chat(model="chat")).status == 200


async def test_a_provider_that_is_down_is_left_alone_by_all(rig: Rig) -> None:
    third = "llmops_thirdtes_" + "t" * 40
    route = a_route(attempts=1, breaker_min_calls=4, breaker_cooldown_s=30)
    rig.configure(
        routes=[route],
        keys={KEY: a_key(), OTHER: a_key("b", project="b"), third: a_key("c", project="c")},
    )
    rig.upstream.does(fails(500))
    for _ in range(3):
        await rig.chat(model="chat")
        await rig.chat(model="chat", how={"key": OTHER})
    asked = len(rig.upstream.asked)
    assert (await rig.chat(model="chat", how={"key": third})).status == 502
    found = await rig.chat(model="chat", how={"key": third})
    assert found.error["code"] == "circuit_open", "it need not fail as often as the route asks for"
    assert len(rig.upstream.asked) == asked + 1
    assert [(one.project, one.state) for one in seen(rig)] == [("", "open")]
    # One probe for all brings it back.
    rig.plane.breakers.named(route, "small").open_until = 0.001
    rig.upstream.does(answers())
    assert (await rig.chat(model="chat", how={"key": third})).status == 200
    assert (await rig.chat(model="chat")).status == 200
