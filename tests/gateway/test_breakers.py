"""Breakers: they open exactly at the rate, one probe at a time, are reset by an operator, and say what happened to them."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.attempts.breakers import BY_ANOTHER, BY_PROBE, BY_RATE, BY_RESET, Breaker, Breakers
from llmops.usage.records import BreakerSeen
from tests.gateway.rig import Rig, a_route, answers, fails

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
    breaker = breakers.named(a_route("r", **SETTINGS), "m")
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
            breakers.named(a_route(slug, **SETTINGS), "m").record(False, 0.0)
    breakers.reset({}, {}, 1.0)
    breakers.reset({"r": 5.0}, {"r": 5.0}, 1.0)
    assert len(list(breakers.open())) == 2
    breakers.reset({"r": 5.0}, {"r": 6.0}, 1.0)
    [left] = breakers.open()
    assert left.key == ("other", "m")
    again = breakers.named(a_route("r", **SETTINGS), "m")
    again.record(False, 2.0)
    assert again.allows(2.0)


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
    assert (opened.state, opened.by) == ("open", "rate")
    assert opened.why == "2 of 2 calls failed within 60 s: status 500 (2)"
    assert before + 29e9 < opened.until < time.time_ns() + 31e9
    rig.plane.breakers.named(a_route(), "small").open_until = 0.001
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
