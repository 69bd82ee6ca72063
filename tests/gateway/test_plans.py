"""What a call tries after what: fallbacks by class of failure, degraded routes, waits, and what always holds of a plan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import CircuitOpen, ConsoleError, RateLimited, ServiceUnavailable
from llmops.gateway.attempts.breakers import Breakers
from llmops.gateway.attempts.credentials import Credentials
from llmops.gateway.attempts.failures import (
    AUTH,
    CONNECT,
    CUT,
    FILTERED,
    FORBIDDEN,
    MALFORMED,
    STATUS,
    TIMEOUT,
    TOO_LONG,
    Failure,
)
from llmops.gateway.attempts.resilience import LEAST_S, Plan, Step
from llmops.gateway.routing import View
from llmops.providers.rules import FAILURE_CLASSES
from tests.gateway.rig import (
    KEY,
    a_credential,
    a_key,
    a_model,
    a_provider,
    a_route,
    a_snapshot,
)

ALL = ("a", "b", "c", "d", "e", "f")


def status(number: int, **more: Any) -> Failure:
    if number in (400, 409, 413, 422):
        more.setdefault("body", b"{}")
    return Failure(STATUS, "", status=number, **more)


LIMITED = status(429)
BROKEN = status(500)
SLOW = Failure(TIMEOUT, "", billed=None)
KEYLESS = Failure(AUTH, "", status=401)
LONG = status(400, code=TOO_LONG)
FILTERED_400 = status(400, code="content_filter")
FILTERED_200 = Failure(FILTERED, "", status=200)
BAD = status(400)


def a_plan(
    route: Any, *, credentials: Credentials | None = None, deadline: float = 1_000.0, **given: Any
) -> Plan:
    """Each model at a provider of its own."""
    key = a_key()
    given.setdefault("models", [a_model(name, f"p-{name}") for name in ALL])
    given.setdefault("providers", [a_provider(f"p-{name}") for name in ALL])
    view = View(a_snapshot(keys={KEY: key}, routes=[route], **given))
    return Plan(
        view.resolve(key, "r"),
        view.snapshot,
        Breakers(),
        deadline,
        credentials=credentials or Credentials(),
    )


def walk(plan: Plan, *failures: Failure, now: float = 0.0) -> list[str]:
    """The targets that are tried when attempt after attempt fails like this (the last failure repeats)."""
    step: Step | None = plan.first(now)
    tried, left = [], list(failures)
    while step is not None:
        tried.append(step.target.slug)
        step = plan.after(left.pop(0) if len(left) > 1 else left[0], now)
    return tried


@pytest.mark.parametrize(
    ("named", "failures", "tried"),
    [
        ({}, [BROKEN], "aabc"),
        ({"rate_limit": "d"}, [LIMITED], "aaad"),
        ({"rate_limit": "de"}, [LIMITED], "aade"),
        ({"rate_limit": "de"}, [BROKEN], "aabc"),
        ({"timeout": "d"}, [SLOW, BAD], "aa"),
        ({"timeout": "def"}, [SLOW], "adef"),
        ({"server_error": "e", "rate_limit": "d"}, [LIMITED, BROKEN, BROKEN, BROKEN], "aaae"),
        ({"credential": "d"}, [KEYLESS, BROKEN], "addd"),
        ({"credential": "d"}, [KEYLESS], "ad"),
        ({"content_filter": "d"}, [FILTERED_400], "ad"),
        ({"content_filter": "de"}, [FILTERED_400], "ade"),
        ({"content_filter": "d"}, [FILTERED_200, BAD], "ad"),
        ({}, [FILTERED_400], "a"),
        ({}, [FILTERED_200], "a"),
        ({"context_length": "d"}, [LONG], "ad"),
        ({"context_length": "d", "content_filter": "e"}, [LONG, FILTERED_400], "ade"),
        ({}, [LONG], "a"),
        ({"rate_limit": "d"}, [BAD], "a"),
        ({"rate_limit": "ab"}, [LIMITED], "aaab"),
        ({"rate_limit": ""}, [LIMITED], "aabc"),
        ({"server_error": "d"}, [Failure(CONNECT, ""), BAD], "aa"),
        ({"server_error": "de"}, [status(302)], "ade"),
    ],
)
def test_fallbacks_by_class_replace_the_general_ones(
    named: dict[str, str], failures: list[Failure], tried: str
) -> None:
    route = a_route(
        "r",
        "a",
        fallbacks=("b", "c"),
        fallbacks_for={name: tuple(models) for name, models in named.items()},
        attempts=4,
    )
    assert "".join(walk(a_plan(route), *failures)) == tried


def test_other_targets_come_before_the_fallbacks_of_a_class_unless_the_request_is_at_fault() -> None:
    route = a_route(
        "r",
        ("a", 100),
        ("b", 0),
        fallbacks=("c",),
        fallbacks_for={"rate_limit": ("d",), "content_filter": ("e",)},
        attempts=3,
    )
    assert walk(a_plan(route), LIMITED) == ["a", "b", "d"]
    assert walk(a_plan(route), FILTERED_400) == ["a", "e"]


def test_a_model_named_twice_is_tried_once() -> None:
    route = a_route("r", ("a", 100), ("b", 0), fallbacks=("b", "a", "c", "c"), attempts=9)
    assert walk(a_plan(route), status(404)) == ["a", "b", "c"]


# ---------------------------------------------------------------------- degraded


def test_a_degraded_route_passes_its_targets_over_and_says_why() -> None:
    route = a_route("r", "a", fallbacks=("b", "c"), attempts=3)
    plan = a_plan(route, degraded_routes={"r": "the provider is slow"})
    step = plan.first(0.0)
    assert (step.target.slug, step.fallback, step.why) == (
        "b",
        True,
        "the route is degraded: the provider is slow",
    )
    assert walk(a_plan(route, degraded_routes={"r": ""}), BROKEN) == ["b", "b", "c"]
    assert walk(a_plan(route, degraded_routes={"other": "x"}), BROKEN) == ["a", "b", "c"]


def test_a_degraded_route_without_fallbacks_has_nothing() -> None:
    with pytest.raises(ServiceUnavailable, match="degraded") as refused:
        a_plan(a_route("r", "a"), degraded_routes={"r": "tests"}).first(0.0)
    assert refused.value.code == "route_degraded"


# ---------------------------------------------------------------------- time


def test_nothing_begins_that_could_not_even_connect() -> None:
    route = a_route("r", "a", fallbacks=("b",), attempts=9)
    plan = a_plan(route, deadline=10.0)
    plan.first(0.0)
    assert plan.after(BROKEN, 10.0 - LEAST_S / 2) is None
    plan = a_plan(route, deadline=10.0)
    plan.first(0.0)
    assert plan.after(BROKEN, 9.0) is not None


@pytest.mark.parametrize("asked", [9.95, 10.0, 60.0, 86_400.0])
def test_a_wait_that_outlasts_the_deadline_moves_on_at_once(asked: float) -> None:
    alone = a_plan(a_route("r", "a", attempts=3), deadline=10.0)
    alone.first(0.0)
    assert alone.after(status(429, retry_after=asked), 0.0) is None
    pair = a_plan(a_route("r", "a", fallbacks=("b",), attempts=9), deadline=10.0)
    pair.first(0.0)
    step = pair.after(status(429, retry_after=asked), 0.0)
    assert step is not None
    assert (step.target.slug, step.delay) == ("b", 0.0)


def test_a_call_waits_for_a_credential_that_rests_a_little() -> None:
    credentials, entry = Credentials(), a_credential("p-a")
    plan = a_plan(a_route("r", "a"), credentials=credentials)
    plan.snapshot.live.credentials["p-a"] = (entry,)
    credentials.failed(entry.id, "sim-a", status(429, retry_after=3.0), 0.0)
    step = plan.first(1.0)
    assert 2.0 <= step.delay <= 2.5
    assert "waited" in step.why


def test_a_call_does_not_wait_for_one_that_rests_long() -> None:
    credentials, entry = Credentials(), a_credential("p-a")
    plan = a_plan(a_route("r", "a"), credentials=credentials)
    plan.snapshot.live.credentials["p-a"] = (entry,)
    credentials.failed(entry.id, "sim-a", status(429, retry_after=30.0), 0.0)
    with pytest.raises(RateLimited) as refused:
        plan.first(1.0)
    assert refused.value.retry_after == pytest.approx(29.0)


def test_an_open_circuit_says_when_to_come_back() -> None:
    plan = a_plan(a_route("r", "a", breaker_min_calls=1, breaker_cooldown_s=30))
    plan.first(0.0).ended(BROKEN, 0.0)
    again = Plan(plan.resolution, plan.snapshot, plan.breakers, 1_000.0)
    with pytest.raises(CircuitOpen) as refused:
        again.first(10.0)
    assert refused.value.retry_after == pytest.approx(20.0)


# ---------------------------------------------------------------------- what always holds

_failures = st.sampled_from(
    [
        LIMITED,
        status(429, retry_after=2.0),
        status(429, retry_after=500.0),
        status(429, code="insufficient_quota"),
        BROKEN,
        status(503, retry_after=1.0),
        status(404),
        status(302),
        SLOW,
        KEYLESS,
        Failure(AUTH, "", status=403),
        LONG,
        FILTERED_400,
        FILTERED_200,
        BAD,
        Failure(CONNECT, ""),
        Failure(CUT, "", billed=None),
        Failure(MALFORMED, "", billed=None),
        Failure(FORBIDDEN, ""),
    ]
)
_names = st.sampled_from(ALL)


@st.composite
def routes(draw: Any) -> Any:
    targets = draw(st.lists(_names, min_size=1, max_size=3, unique=True))
    return a_route(
        "r",
        *[(name, draw(st.integers(0, 3))) for name in targets],
        fallbacks=tuple(draw(st.lists(_names, max_size=4))),
        fallbacks_for=draw(
            st.dictionaries(
                st.sampled_from([name for name, _ in FAILURE_CLASSES]),
                st.lists(_names, max_size=3).map(tuple),
                max_size=4,
            )
        ),
        context_strategy=draw(st.sampled_from(["refuse", "larger_model"])),
        larger_model=draw(st.sampled_from(["", *ALL])),
        attempts=draw(st.integers(1, 8)),
        breaker_min_calls=draw(st.integers(1, 4)),
        breaker_cooldown_s=3,
    )


@given(
    routes(),
    st.lists(st.tuples(_failures, st.floats(0, 5)), max_size=12),
    st.floats(1, 40),
    st.integers(1, 3),
    st.sets(_names, max_size=3),
    st.booleans(),
)
def test_a_plan_keeps_within_its_bounds(
    route: Any,
    ends: list[tuple[Failure, float]],
    deadline: float,
    keys: int,
    paused: set[str],
    degraded: bool,
) -> None:
    credentials = Credentials()
    plan = a_plan(
        route,
        credentials=credentials,
        deadline=deadline,
        paused_providers={f"p-{name}": "x" for name in paused},
        degraded_routes={"r": "x"} if degraded else {},
    )
    for name in ALL:
        plan.snapshot.live.credentials[f"p-{name}"] = tuple(
            a_credential(f"p-{name}", name=str(number)) for number in range(keys)
        )
    now = 0.0
    try:
        step: Step | None = plan.first(now)
    except ConsoleError as refusal:
        assert refusal.status in (429, 502, 503)
        return
    order: list[str] = []
    made = spared = 0
    breakers = plan.breakers
    while step is not None:
        made += 1
        assert made - spared <= route.attempts
        assert plan.attempts == made - spared
        if step.delay:
            assert now + step.delay < deadline
        now += step.delay
        slug = step.target.slug
        assert slug not in paused
        if not order or order[-1] != slug:
            assert slug not in order, "a target that was left is not tried again"
            assert not step.retry or made == 1
            order.append(slug)
        else:
            assert step.retry, "the same target again is a retry"
        if degraded:
            assert step.fallback
        assert step.why or made == 1
        failure, took = ends.pop(0) if ends else (BROKEN, 0.1)
        now += took
        step.ended(failure, now)
        credentials.failed(step.credential.id, step.target.entry.upstream_model, failure, now)
        before, key = now, step.credential.id
        step = plan.after(failure, now)
        if step is not None:
            assert before < deadline
            if (failure.kind == AUTH or failure.out_of_quota) and step.target.slug == slug:
                assert step.credential.id != key, "a key that was refused is not tried again"
                spared += 1
    assert spared <= len(ALL) * max(0, keys - 1), "a key more costs no attempt, once for each"
    assert not any(breaker.probing for breaker in breakers._all.values()), "no probe is left behind"
