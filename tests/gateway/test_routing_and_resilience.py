"""Where a call goes, where it goes next, and when it is not tried at all."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import CircuitOpen, ConsoleError, ServiceUnavailable, UpstreamAuthFailed
from llmops.gateway.attempts.resilience import (
    AUTH,
    CONNECT,
    CUT,
    FORBIDDEN,
    MALFORMED,
    STATUS,
    TIMEOUT,
    Breaker,
    Breakers,
    Failure,
    Plan,
    backoff,
    retry_after,
)
from llmops.gateway.routing import View
from tests.gateway.rig import (
    KEY,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
    a_snapshot,
)


def a_view(*models: str, **given: Any) -> tuple[View, Any]:
    key = a_key()
    given.setdefault("models", [a_model(slug) for slug in models])
    return View(a_snapshot(keys={KEY: key}, **given)), key


def a_plan(
    names: tuple[str, ...] = ("a",), *, breakers: Breakers | None = None, route: Any = None, **given: Any
) -> Plan:
    route = route or a_route("r", names[0], fallbacks=names[1:], attempts=3)
    view, key = a_view(*names, routes=[route], **given)
    return Plan(view.resolve(key, "r"), view.snapshot, breakers or Breakers(), deadline=1_000.0)


def walk(plan: Plan, *failures: Failure, now: float = 0.0) -> list[str]:
    """The targets that are tried when attempt after attempt fails like this (the last failure repeats)."""
    step, tried, left = plan.first(now), [], list(failures)
    while step is not None:
        tried.append(step.target.slug)
        failure = left.pop(0) if len(left) > 1 else left[0]
        step = plan.after(failure, now)
    return tried


def status(number: int, **more: Any) -> Failure:
    if number in (400, 409, 413, 422):
        more.setdefault("body", b"{}")
    return Failure(STATUS, "", status=number, **more)


# ---------------------------------------------------------------------- weights


def test_weights_share_the_calls() -> None:
    view, key = a_view("a", "b", "c", routes=[a_route("r", ("a", 70), ("b", 30), ("c", 0))])
    resolution = view.resolve(key, "r")
    first = Counter(resolution.order("")[0].slug for _ in range(4_000))
    assert first["c"] == 0
    assert 0.64 < first["a"] / 4_000 < 0.76
    assert {target.slug for target in resolution.order("")} == {"a", "b", "c"}


def test_a_session_keeps_its_target_and_sessions_share_by_weight() -> None:
    view, key = a_view("a", "b", routes=[a_route("r", ("a", 50), ("b", 50))])
    resolution = view.resolve(key, "r")
    chosen = {f"s{i}": resolution.order(f"s{i}")[0].slug for i in range(1_000)}
    assert all(resolution.order(session)[0].slug == slug for session, slug in chosen.items())
    assert 400 < Counter(chosen.values())["a"] < 600


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.text(max_size=5))
def test_every_target_is_in_the_order_once(weights: list[int], sticky: str) -> None:
    names = [f"m{i}" for i in range(len(weights))]
    view, key = a_view(
        *names, "f", routes=[a_route("r", *zip(names, weights, strict=True), fallbacks=("f",))]
    )
    order = [target.slug for target in view.resolve(key, "r").order(sticky)]
    assert sorted(order) == sorted([*names, "f"])
    assert order[-1] == "f"


def test_a_resolution_does_not_outlive_its_key() -> None:
    view, key = a_view("a")
    assert view.resolve(key, "a").key is key
    narrower = a_key(id=key.id, allowed_models=frozenset())
    with pytest.raises(ConsoleError, match="may not call"):
        view.resolve(narrower, "a")


# ---------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("models", "failures", "tried"),
    [
        (("a",), [status(500)], ["a", "a", "a"]),
        (("a", "b"), [status(500)], ["a", "a", "b"]),
        (("a", "b", "c"), [status(500)], ["a", "b", "c"]),
        (("a", "b", "c", "d"), [status(500)], ["a", "b", "c"]),
        (("a", "b"), [status(400)], ["a"]),
        (("a", "b"), [status(404)], ["a", "b"]),
        (("a",), [status(404)], ["a"]),
        (("a", "b"), [Failure(FORBIDDEN, "")], ["a", "b"]),
        (("a", "b"), [Failure(AUTH, "", status=401)], ["a", "b"]),
        (("a", "b"), [status(429, code="insufficient_quota")], ["a", "b"]),
        (("a",), [status(429, code="insufficient_quota")], ["a"]),
        (("a",), [status(429)], ["a", "a", "a"]),
        (("a",), [Failure(CONNECT, "")], ["a", "a", "a"]),
        (("a",), [Failure(TIMEOUT, "", billed=None), status(400)], ["a", "a"]),
        (("a",), [Failure(CUT, "", billed=None)], ["a", "a", "a"]),
        (("a",), [Failure(MALFORMED, "", billed=None)], ["a", "a", "a"]),
        (("a",), [status(302)], ["a"]),
    ],
)
def test_what_is_tried_after_what(models: tuple[str, ...], failures: list[Failure], tried: list[str]) -> None:
    assert walk(a_plan(models), *failures) == tried


def test_nothing_is_tried_after_the_deadline() -> None:
    assert walk(a_plan(("a", "b")), status(500), now=1_000.0) == ["a"]


def test_a_long_wait_is_not_waited_where_somebody_else_can_answer() -> None:
    route = a_route("r", "a", fallbacks=("b",), attempts=4)
    assert walk(a_plan(("a", "b"), route=route), status(429, retry_after=30.0), status(400)) == ["a", "b"]
    alone = a_plan(("a",))
    alone.first(0.0)
    step = alone.after(status(429, retry_after=30.0), 0.0)
    assert step is not None
    assert step.delay >= 30.0


def test_what_can_not_be_used_is_passed_over_and_costs_no_attempt() -> None:
    given = {
        "models": [a_model("a", "p1"), a_model("b", "p2"), a_model("c", "p3")],
        "providers": [a_provider("p1"), a_provider("p2"), a_provider("p3")],
        "credentials": {"p1": (a_credential("p1"),), "p3": (a_credential("p3"),)},
        "paused_providers": {"p1": "tests"},
    }
    plan = a_plan(("a", "b", "c"), **given)
    assert walk(plan, status(500)) == ["c", "c", "c"]
    assert [(target.slug, why) for target, why in plan.skipped] == [("a", "paused"), ("b", "no credential")]
    given["credentials"] = {}
    with pytest.raises(ServiceUnavailable, match="tests"):
        a_plan(("a", "b", "c"), **given).first(0.0)
    with pytest.raises(UpstreamAuthFailed, match="no credential"):
        a_plan(("a",), credentials={}).first(0.0)


def test_a_credential_is_refused_once_and_the_draining_one_comes_last() -> None:
    first, second = a_credential(name="first"), a_credential(name="second")
    plan = a_plan(("a",), credentials={"up": (first, second)})
    step = plan.first(0.0)
    names = [step.credential.name]
    while (following := plan.after(Failure(AUTH, "", status=401), 0.0)) is not None:
        names.append(following.credential.name)
    assert names == ["first", "second"]


@given(st.integers(0, 40), st.one_of(st.none(), st.floats(0, 100)))
def test_a_back_off_is_jittered_bounded_and_never_less_than_asked(tries: int, asked: float | None) -> None:
    delay = backoff(tries, asked)
    assert delay <= max(8.0, asked or 0)
    assert delay >= (asked or 0)
    assert backoff(3, None, uniform=lambda low, high: high) == 1.0
    assert backoff(3, None, uniform=lambda low, high: low) == 0.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, 86_400.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "1e400"}, 86_400.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:02:00 GMT"}, 20.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_as_providers_write_it(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, 100.0) == seconds


# ---------------------------------------------------------------------- breaker


def a_breaker(**route: Any) -> Breaker:
    given = {
        "breaker_failure_percent": 50,
        "breaker_min_calls": 10,
        "breaker_window_s": 60,
        "breaker_cooldown_s": 30,
    }
    return Breaker(a_route("r", **(given | route)))


def test_it_opens_on_the_rate_and_not_on_the_count() -> None:
    breaker = a_breaker()
    for turn in range(1_000):
        assert breaker.allows(turn * 0.1)
        breaker.record(turn % 100 < 51, turn * 0.1)
    assert not breaker.open_until
    for turn in range(60):
        breaker.record(False, 100 + turn * 0.1)
    assert breaker.open_until


def test_few_calls_open_nothing() -> None:
    breaker = a_breaker()
    for turn in range(9):
        breaker.record(False, turn)
    assert breaker.allows(9)
    breaker.record(False, 9)
    assert not breaker.allows(9)


def test_old_failures_are_forgotten() -> None:
    breaker = a_breaker()
    for turn in range(9):
        breaker.record(False, turn)
    for turn in range(5):
        breaker.record(False, 200 + turn)
    assert breaker.allows(300)


def test_after_a_while_one_probe_decides() -> None:
    breaker = a_breaker()
    for _ in range(10):
        breaker.record(False, 0.0)
    assert not breaker.allows(29.9)
    assert breaker.allows(30.0)
    assert not breaker.allows(30.1), "one probe at a time"
    breaker.record(True, 30.5)
    assert not breaker.allows(30.6), "late answers of before do not count"
    breaker.record(False, 31.0, probe=True)
    assert not breaker.allows(60.9)
    assert breaker.allows(61.0)
    breaker.forget_probe()
    assert breaker.allows(61.5)
    breaker.record(True, 62.0, probe=True)
    assert breaker.allows(62.1)
    assert breaker.allows(62.1)
    breaker.record(False, 62.2)
    assert breaker.allows(62.3), "it begins anew"


def test_late_answers_of_before_do_not_close_it() -> None:
    breaker = a_breaker()
    for _ in range(10):
        breaker.record(False, 0.0)
    breaker.record(True, 1.0)
    assert not breaker.allows(2.0)


def test_an_open_target_is_passed_over_until_all_are_open() -> None:
    breakers = Breakers()
    plan = a_plan(("a", "b"), breakers=breakers)
    route = plan.resolution.route
    for _ in range(20):
        breakers.of(route, plan.resolution.targets[0], plan.resolution.key.project).record(False, 0.0)
    assert plan.first(1.0).target.slug == "b"
    for _ in range(20):
        breakers.of(route, plan.resolution.fallbacks[0], plan.resolution.key.project).record(False, 0.0)
    with pytest.raises(CircuitOpen) as refused:
        Plan(plan.resolution, plan.snapshot, breakers, deadline=1_000.0).first(1.0)
    assert refused.value.retry_after == pytest.approx(29.0)
    assert refused.value.status == 503


def test_what_the_caller_did_wrong_says_nothing_about_the_target() -> None:
    assert not status(400).counts
    assert not status(404).counts
    assert status(500).counts
    assert status(429).counts
    assert Failure(TIMEOUT, "").counts
