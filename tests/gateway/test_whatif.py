"""Where calls would go, if something failed: by the data plane's own plan, in exact shares."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import ConsoleError
from llmops.gateway.attempts.breakers import Breakers
from llmops.gateway.attempts.failures import STATUS, Failure
from llmops.gateway.attempts.resilience import Plan
from llmops.gateway.routing import View
from llmops.gateway.whatif import whatif
from llmops.serving.snapshot import PriceRow, RevisionDocument, RouteEntry
from llmops.serving.whatif.shapes import (
    DOWN,
    ERRORS,
    FAILURES,
    NOTHING,
    PROVIDER,
    RATE_LIMITED,
    SLOW,
    Asked,
    Kind,
    Named,
    Outcome,
    Scenario,
    Standing,
    Traffic,
)
from tests.gateway.configured import KEY, USD, a_key, a_model, a_provider, a_route, a_snapshot
from tests.trying import tries

DAY = 86_400.0
MODELS = ("a", "b", "c", "d")
DEAR = (PriceRow("input", 0, 10 * USD), PriceRow("output", 0, 100 * USD))
CALM = Scenario()
USED = {"input_tokens": 1_000_000, "output_tokens": 100_000}


def asked(
    route: RouteEntry,
    scenario: Scenario = CALM,
    *,
    calls: float = 1_000.0,
    kinds: tuple[Kind, ...] = (),
    models: Any = None,
    seconds: float = DAY,
    credentials: int = 1,
    **more: Any,
) -> Asked:
    """Each model at a provider of its own."""
    document = RevisionDocument(
        1,
        tuple(a_provider(f"p-{name}") for name in MODELS),
        tuple(models or (a_model(name, f"p-{name}") for name in MODELS)),
        (route,),
    )
    named = {name: more.pop(name) for name in ("times", "streamed", "answered") if name in more}
    traffic = Traffic(seconds, (Named(route.slug, kinds or (Kind(calls, used=USED),), **named),), sampled=0)
    standing = Standing(1.0, {f"p-{name}": credentials for name in MODELS}, **more)
    return Asked(document, traffic, standing, scenario)


def foreseen(route: RouteEntry, scenario: Scenario = CALM, **how: Any) -> Outcome:
    [outcome] = whatif(asked(route, scenario, **how))
    return outcome


def test_without_a_failure_calls_go_by_weight_and_cost_their_tokens():
    outcome = foreseen(a_route("r", ("a", 75), ("b", 25)))
    assert outcome.answered == pytest.approx({"a": 750, "b": 250})
    assert outcome.attempts == pytest.approx(1_000)
    # 1 USD per million in, 10 out.
    assert outcome.cost_nano == 2 * USD
    assert outcome.failed == {}


def test_another_model_costs_what_it_costs():
    models = [a_model("a", "p-a"), a_model("b", "p-b", prices=DEAR)]
    down = foreseen(a_route("r", "a", fallbacks=("b",)), Scenario(DOWN, name="a"), models=models)
    assert down.answered == pytest.approx({"b": 1_000})
    assert down.cost_nano == 20 * USD
    # Three attempts: two at the one that is down, since one is left for the fallback.
    assert down.attempts == pytest.approx(3_000)


def test_a_share_of_refusals_is_retried_and_then_falls_back():
    outcome = foreseen(
        a_route("r", "a", fallbacks=("b",), attempts=3), Scenario(RATE_LIMITED, name="a", percent=50)
    )
    # Half is answered at first, half of the rest at the second attempt, and what is left by the fallback.
    assert outcome.answered == pytest.approx({"a": 750, "b": 250})
    assert outcome.attempts == pytest.approx(1_000 + 500 + 250)


def test_another_credential_costs_no_attempt_of_its_own_kind():
    outcome = foreseen(
        a_route("r", "a", attempts=2), Scenario(RATE_LIMITED, name="a", percent=50), credentials=2
    )
    assert outcome.answered == pytest.approx({"a": 750})
    assert outcome.failed == {"the rate limit of a": pytest.approx(250)}


def test_a_class_of_failure_has_fallbacks_of_its_own():
    route = a_route("r", "a", fallbacks=("b",), fallbacks_for={"rate_limit": ("c",)})
    assert foreseen(route, Scenario(RATE_LIMITED, name="a")).answered == pytest.approx({"c": 1_000})
    assert foreseen(route, Scenario(ERRORS, name="a")).answered == pytest.approx({"b": 1_000})


def test_a_provider_takes_all_of_its_models_with_it():
    models = [a_model("a", "p-a"), a_model("b", "p-a"), a_model("c", "p-c")]
    route = a_route("r", "a", fallbacks=("b", "c"))
    assert foreseen(route, Scenario(DOWN, PROVIDER, "p-a"), models=models).answered == pytest.approx(
        {"c": 1_000}
    )
    nowhere = a_route("r", "a", fallbacks=("b",))
    outcome = foreseen(nowhere, Scenario(DOWN, PROVIDER, "p-a"), models=models)
    assert outcome.failed == {"no connection to b": pytest.approx(1_000)}


def test_a_fixed_answer_is_no_failure():
    route = a_route("r", "a", last_resort="static", static_answer="Later, please.")
    outcome = foreseen(route, Scenario(DOWN, name="a"))
    assert outcome.last_resort == pytest.approx(1_000)
    assert outcome.failed == {}


def test_what_a_model_cannot_do_fails_there():
    embeddings = a_model("b", "p-b", capabilities=("embeddings",))
    small = a_model("c", "p-c", context_window=5_000)
    models = [a_model("a", "p-a"), embeddings, small]
    kinds = (Kind(900, tokens=1_000, used=USED), Kind(100, tokens=60_000, used=USED))
    outcome = foreseen(
        a_route("r", "a", fallbacks=("c",)), Scenario(DOWN, name="a"), models=models, kinds=kinds
    )
    assert outcome.answered == pytest.approx({"c": 900})
    assert outcome.failed == {"an input longer than the context window": pytest.approx(100)}
    outcome = foreseen(a_route("r", "a", fallbacks=("b",)), Scenario(DOWN, name="a"), models=models)
    assert outcome.failed == {"a model that cannot answer this kind of request": pytest.approx(1_000)}


def test_a_long_input_goes_where_the_route_sends_it():
    models = [a_model("a", "p-a", context_window=5_000), a_model("b", "p-b")]
    kinds = (Kind(900, tokens=1_000, used=USED), Kind(100, tokens=60_000, used=USED))
    larger = a_route("r", "a", context_strategy="larger_model", larger_model="b")
    assert foreseen(larger, models=models, kinds=kinds).answered == pytest.approx({"a": 900, "b": 100})
    shorter = foreseen(a_route("r", "a", context_strategy="drop_oldest"), models=models, kinds=kinds)
    assert shorter.answered == pytest.approx({"a": 1_000})
    assert shorter.shortened == pytest.approx(100)


def test_a_breaker_that_would_open_saves_attempts():
    route = a_route("r", "a", fallbacks=("b",), attempts=3)
    rare = foreseen(route, Scenario(DOWN, name="a"), calls=100)
    often = foreseen(route, Scenario(DOWN, name="a"), calls=86_400 * 10.0)
    assert rare.opened == () and rare.attempts == pytest.approx(300)
    assert often.opened == ("a",)
    # Ten calls a second: of 301 one is the probe, with its retry.
    assert often.attempts / often.calls == pytest.approx(1, abs=0.01)
    assert often.answered == pytest.approx({"b": often.calls})


def test_slow_answers_come_late_or_not_at_all():
    times = {"a": [(1_000_000.0, 900), (4_000_000.0, 100)]}
    route = a_route("r", "a", fallbacks=("b",), total_timeout_ms=60_000, attempts=2)
    calm = foreseen(route, times=times)
    assert calm.waited / calm.calls == pytest.approx(1.3)
    # The provider may be silent for five seconds: four of them doubled are too long.
    slow = foreseen(route, Scenario(SLOW, name="a", factor=2.0), times=times)
    assert slow.answered == pytest.approx({"a": 900, "b": 100})
    assert slow.unknown_bills == pytest.approx(100)
    assert slow.waited / slow.calls == pytest.approx((900 * 2 + 100 * (5 + 1.3)) / 1_000)
    streamed = foreseen(route, Scenario(SLOW, name="a", factor=2.0), times=times, streamed=1_000)
    assert streamed.answered == pytest.approx({"a": 1_000})


def test_switches_hold_as_they_are():
    route = a_route("r", "a", fallbacks=("b",))
    assert foreseen(route, degraded_routes={"r": "why"}).answered == pytest.approx({"b": 1_000})
    assert foreseen(route, paused_routes={"r": "why"}).failed == {"the route is paused": 1_000}
    assert foreseen(route, paused_providers={"p-a": "why"}).answered == pytest.approx({"b": 1_000})


def test_a_model_without_a_price_is_named():
    outcome = foreseen(a_route("r", "a"), models=[a_model("a", "p-a", prices=())])
    assert outcome.unpriced == ("a",) and outcome.cost_nano == 0
    assert outcome.answered == pytest.approx({"a": 1_000})


routes = st.tuples(
    st.lists(
        st.tuples(st.sampled_from(MODELS), st.integers(0, 3)),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one[0],
    ),
    st.lists(st.sampled_from(MODELS), max_size=3, unique=True),
    st.dictionaries(
        st.sampled_from(["rate_limit", "server_error", "timeout", "context_length"]),
        st.lists(st.sampled_from(MODELS), min_size=1, max_size=2, unique=True).map(tuple),
        max_size=2,
    ),
    st.integers(1, 6),
).map(
    lambda given: a_route(
        "r", *given[0], fallbacks=tuple(given[1]), fallbacks_for=given[2], attempts=given[3]
    )
)
scenarios = st.tuples(
    st.sampled_from([name for name, _ in FAILURES]), st.sampled_from(MODELS), st.integers(0, 100)
).map(lambda given: Scenario(given[0], name=given[1], percent=given[2]))


@given(route=routes, scenario=scenarios, rate=st.sampled_from([10.0, 1e6]))
@tries(300)
def test_no_call_is_lost_or_made_up(route, scenario, rate):
    kinds = (Kind(rate, used=USED), Kind(rate / 3, tokens=90_000, used=USED))
    outcome = foreseen(route, scenario, kinds=kinds, times={"a": [(3e6, 5), (2e7, 1)]})
    ended = sum(outcome.answered.values()) + outcome.failures + outcome.last_resort
    assert ended == pytest.approx(outcome.calls)
    assert outcome.attempts <= route.attempts * outcome.calls * (1 + 1e-9)


@given(route=routes, percent=st.sampled_from([30, 60, 100]), seed=st.integers(0, 2**32))
@tries(40)
def test_it_is_what_calls_one_by_one_come_to(route, percent, seed):
    """Against the plan itself, thrown dice for each attempt. Too few calls a second for a breaker."""
    scenario = Scenario(ERRORS, name="a", percent=percent)
    outcome = foreseen(route, scenario, calls=1.0)
    view = View(
        a_snapshot(
            keys={KEY: (key := a_key())},
            routes=[route],
            models=[a_model(name, f"p-{name}") for name in MODELS],
            providers=[a_provider(f"p-{name}") for name in MODELS],
        )
    )
    dice, answered, calls = random.Random(seed), dict.fromkeys((*MODELS, ""), 0), 2_000
    for _ in range(calls):
        plan = Plan(view.resolve(key, "r"), view.snapshot, Breakers(), 1e6)
        try:
            step = plan.first(0.0)
        except ConsoleError:
            step = None
        while step is not None:
            if step.target.slug != "a" or dice.random() * 100 >= percent:
                break
            step = plan.after(Failure(STATUS, "", status=503), 0.0)
        answered[step.target.slug if step else ""] += 1
    for name in MODELS:
        assert answered[name] / calls == pytest.approx(outcome.answered.get(name, 0.0), abs=0.07)
    assert answered[""] / calls == pytest.approx(outcome.failures, abs=0.07)


def test_every_failure_can_be_asked():
    for name, _ in FAILURES:
        outcome = foreseen(a_route("r", "a", fallbacks=("b",)), Scenario(name, name="a"))
        assert outcome.calls == 1_000 and (name != NOTHING or not outcome.opened)
