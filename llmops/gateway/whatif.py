"""Where calls would go, if something failed: stored traffic led through the data plane's own routing, plan and prices.

Not on the path of a request. ``attempts.resilience.Plan`` decides, as it does for a call; here it is told of failures that are
supposed. A chain of attempts has one way on, the next attempt after a failure, so that one walk down a plan gives the exact
shares of all its ends: at each step what answers leaves, and the rest goes on. Targets are taken one by one with their weights.

What is supposed beside the scenario: calls come evenly, so many a second as the traffic had; another model uses as many tokens
as the one that answered; failures of attempts do not depend on each other. A breaker that would open is open for the share of
calls that its cool-down covers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import msgspec

from llmops.core.errors import ConsoleError
from llmops.gateway.attempts.breakers import Breakers
from llmops.gateway.attempts.failures import CONNECT, STATUS, TIMEOUT, TOO_LONG, Failure
from llmops.gateway.attempts.resilience import Plan, Step
from llmops.gateway.routing import Resolution, Target, View
from llmops.providers.pricing import Prices
from llmops.providers.rules import DROP_OLDEST, LARGER_MODEL, NO_LAST_RESORT, STATIC_ANSWER, SUMMARIZE
from llmops.serving.snapshot import (
    CredentialEntry,
    KeyEntry,
    LiveState,
    RevisionDocument,
    RouteEntry,
    Snapshot,
    TargetEntry,
)
from llmops.serving.validation.problems import purpose_of
from llmops.serving.whatif.shapes import (
    CLASSES,
    DOWN,
    ERRORS,
    PROVIDER,
    RATE_LIMITED,
    SLOW,
    Asked,
    Kind,
    Named,
    Outcome,
    Scenario,
    Standing,
)

#: Everything may be called: what keys allow is not in question here.
_KEY = KeyEntry(
    id="whatif",
    name="whatif",
    prefix="",
    project="",
    project_id="",
    scopes=frozenset(),
    allowed_routes=frozenset({"*"}),
    allowed_models=frozenset({"*"}),
)
#: Seconds until an attempt has failed that finds no connection, or is refused at once.
_AT_ONCE_S = 0.1
#: A share of calls that is not followed further.
_LEAST = 1e-9
#: Breakers that are told apart; with more of them all open and close together.
_MOST_BREAKERS = 4
#: Steps of a plan; a plan ends by itself, this guards the page.
_MOST_STEPS = 100

#: (model, index of the kind) -> calls
_Answered = dict[tuple[str, int], float]

_REFUSED = "a model that cannot answer this kind of request"
_LONG = "an input longer than the context window"


def whatif(asked: Asked) -> list[Outcome]:
    """What becomes of each name of the traffic. ``settings.ROUTE_WHATIF`` points here."""
    return [_of_name(asked, named) for named in asked.traffic.names]


def _of_name(asked: Asked, named: Named) -> Outcome:
    outcome = Outcome(named.name, named.calls)
    document, standing = asked.document, asked.standing
    route = next((one for one in document.routes if one.slug == named.name), None)
    snapshot = _snapshot(document, standing, route)
    try:
        whole = View(snapshot).resolve(_KEY, named.name)
    except ConsoleError as refused:
        outcome.failed[_why_refused(refused)] = named.calls
        return outcome
    causes = _Causes(asked.scenario, named, whole)
    walks = [
        (share, View(_snapshot(document, standing, chosen)).resolve(_KEY, named.name))
        for share, chosen in _first_targets(named.name, whole)
    ]
    closed = _pass(walks, snapshot, named, causes, open_ones=())
    opening = list(_opening(whole, causes, closed.tried, asked.traffic.seconds))
    outcome.opened = tuple(target.slug for target, _ in opening)
    answered: _Answered = {}
    for share, open_ones in _states(opening):
        tally = _pass(walks, snapshot, named, causes, open_ones=open_ones) if open_ones else closed
        _add(outcome, answered, tally, share)
    _price(outcome, answered, named, whole, standing.now)
    return outcome


# --- what fails ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cause:
    """Why an attempt fails, with which probability, and after how many seconds; ``why`` in words."""

    chance: float
    failure: Failure
    took: float
    why: str


class _Causes:
    """Of each target and kind of call: what may go wrong."""

    def __init__(self, scenario: Scenario, named: Named, resolution: Resolution) -> None:
        self.scenario = scenario
        self._total = resolution.route.total_timeout_ms / 1000
        self._times = named.times
        #: models that answered what there was: they can, whatever is written about them
        self._able = frozenset(named.answered)
        self._streamed = min(1.0, named.streamed / named.calls) if named.calls else 0.0
        everything = [time for times in named.times.values() for time in times]
        self._usual = _mean(everything)

    def hit(self, target: Target) -> bool:
        name = target.provider.slug if self.scenario.kind == PROVIDER else target.slug
        return name == self.scenario.name

    def seconds(self, target: Target) -> float:
        """How long an answer of the target takes, in the mean of those that come in time."""
        if not (self.scenario.failure == SLOW and self.hit(target)):
            return _mean(self._times.get(target.slug, ())) or self._usual
        silent = self._total if self._streamed > 0.5 else target.provider.read_timeout_ms / 1000
        limit = min(self._total, silent) * 1e6 / self.scenario.factor
        times = self._times.get(target.slug) or [one for many in self._times.values() for one in many]
        return _mean([time for time in times if time[0] <= limit]) * self.scenario.factor

    def of(self, target: Target, kind: Kind, left: float) -> list[_Cause]:
        """What may happen to an attempt, with ``left`` seconds until the deadline. Certain ones stand alone."""
        found = list(self._by_nature(target, kind))
        return found or list(self.by_scenario(target, left))

    def _by_nature(self, target: Target, kind: Kind) -> Iterator[_Cause]:
        able = target.entry.capabilities if target.slug not in self._able else ()
        if able and (kind.purpose != purpose_of(target.entry) or not kind.needs <= set(able)):
            yield _Cause(1.0, Failure(STATUS, "", status=400, body=b"{}"), _AT_ONCE_S, _REFUSED)
        elif kind.tokens > target.entry.context_window:
            yield _Cause(1.0, Failure(STATUS, "", status=400, body=b"{}", code=TOO_LONG), _AT_ONCE_S, _LONG)

    def by_scenario(self, target: Target, left: float) -> Iterator[_Cause]:
        scenario = self.scenario
        if not self.hit(target):
            return
        share = scenario.percent / 100
        if scenario.failure == DOWN:
            yield _Cause(1.0, Failure(CONNECT, ""), _AT_ONCE_S, f"no connection to {target.slug}")
        elif scenario.failure == RATE_LIMITED:
            yield _Cause(
                share, Failure(STATUS, "", status=429), _AT_ONCE_S, f"the rate limit of {target.slug}"
            )
        elif scenario.failure == ERRORS:
            yield _Cause(share, Failure(STATUS, "", status=503), _AT_ONCE_S, f"errors of {target.slug}")
        elif scenario.failure == SLOW:
            # Whole answers must come within the provider's longest silence; streams show signs of life.
            silent = min(left, target.provider.read_timeout_ms / 1000)
            late = (1 - self._streamed) * self._later(target, silent) + self._streamed * self._later(
                target, left
            )
            if late > 0:
                yield _Cause(late, Failure(TIMEOUT, "", billed=None), silent, f"time-outs of {target.slug}")

    def _later(self, target: Target, limit: float) -> float:
        """The share of the target's answers that take longer than ``limit`` seconds when they are slowed down."""
        times = self._times.get(target.slug) or [one for many in self._times.values() for one in many]
        total = sum(calls for _, calls in times)
        late = sum(calls for took, calls in times if took * self.scenario.factor > limit * 1e6)
        return late / total if total else 0.0


def _mean(times: Sequence[tuple[float, int]]) -> float:
    """Seconds."""
    total = sum(calls for _, calls in times)
    return sum(took * calls for took, calls in times) / total / 1e6 if total else 0.0


# --- one pass of all calls -------------------------------------------------------------------------------------------


class _Tally:
    """What came of one pass, each number in calls."""

    __slots__ = ("answered", "attempts", "failed", "last_resort", "shortened", "tried", "unknown", "waited")

    def __init__(self) -> None:
        self.answered: _Answered = {}
        self.tried: dict[str, float] = {}
        self.failed: dict[str, float] = {}
        self.attempts = self.last_resort = self.shortened = self.unknown = self.waited = 0.0


def _pass(
    walks: Sequence[tuple[float, Resolution]],
    snapshot: Snapshot,
    named: Named,
    causes: _Causes,
    *,
    open_ones: Sequence[Target],
) -> _Tally:
    tally = _Tally()
    for index, kind in enumerate(named.kinds):
        for share, resolution in walks:
            if kind.calls * share > 0:
                _walk(tally, resolution, snapshot, index, kind, kind.calls * share, causes, open_ones)
    return tally


def _walk(
    tally: _Tally,
    resolution: Resolution,
    snapshot: Snapshot,
    index: int,
    kind: Kind,
    calls: float,
    causes: _Causes,
    open_ones: Sequence[Target],
) -> None:
    """One plan from its first attempt to its last; ``calls`` is how many are on it, and grows less at each answer."""
    route = resolution.route
    breakers = Breakers()
    for target in open_ones:
        breakers.of(route, target, resolution.key.project).open_until = math.inf
    deadline = route.total_timeout_ms / 1000
    plan = Plan(resolution, snapshot, breakers, deadline)
    now, fits = 0.0, False
    try:
        step: Step | None = plan.first(now)
    except ConsoleError as refused:
        _ends(tally, route, _why_refused(refused), calls)
        return
    why = ""
    for _ in range(_MOST_STEPS):
        if step is None or calls < _LEAST:
            break
        target = step.target
        if kind.tokens > target.entry.context_window and route.context_strategy == LARGER_MODEL:
            step = plan.larger(step, now) or step
            target = step.target
        now += step.delay
        tally.attempts += calls
        tally.tried[target.slug] = tally.tried.get(target.slug, 0.0) + calls
        found = causes.of(target, kind, max(0.0, deadline - now))
        if found and found[0].why == _LONG and route.context_strategy in (DROP_OLDEST, SUMMARIZE):
            # The input is shortened until it fits.
            found, fits = list(causes.by_scenario(target, max(0.0, deadline - now))), True
        cause = found[0] if found else None
        good = calls * (1 - (cause.chance if cause else 0.0))
        if good > 0:
            key = (target.slug, index)
            tally.answered[key] = tally.answered.get(key, 0.0) + good
            tally.waited += good * (now + causes.seconds(target))
            tally.shortened += good if fits else 0.0
        if cause is None:
            calls = 0.0
            break
        calls *= cause.chance
        now += cause.took
        tally.unknown += calls if cause.failure.billed is None else 0.0
        why = cause.why
        step = plan.after(cause.failure, now)
    if calls >= _LEAST:
        tally.waited += calls * now
        _ends(tally, route, why, calls)


def _ends(tally: _Tally, route: RouteEntry, why: str, calls: float) -> None:
    """Nothing more is tried: a fixed answer where the route has one, or an error. Whether an earlier answer was kept nobody
    knows beforehand, so that it does not count as an answer."""
    if route.last_resort == STATIC_ANSWER and why != _REFUSED:
        tally.last_resort += calls
    else:
        reason = (
            why
            if route.last_resort in (NO_LAST_RESORT, STATIC_ANSWER)
            else f"{why}, unless an earlier answer is kept"
        )
        tally.failed[reason] = tally.failed.get(reason, 0.0) + calls


def _why_refused(refused: ConsoleError) -> str:
    return _REFUSALS.get(refused.code, refused.message)


_REFUSALS = {
    "route_paused": "the route is paused",
    "route_degraded": "the route is degraded and has no fallback",
    "provider_paused": "the provider is paused",
    "upstream_auth_failed": "no credential of the provider is in use",
    "circuit_open": "every target is left alone by its breaker",
    "model_not_found": "a name that is not published",
}


# --- weights and breakers --------------------------------------------------------------------------------------------


def _first_targets(name: str, resolution: Resolution) -> Iterator[tuple[float, RouteEntry | None]]:
    """Each target that may be the first one, as the route would be if it always were, and its share of calls."""
    total = sum(resolution.weights)
    if len(resolution.targets) == 1 or not total or not name or resolution.route.slug != name:
        yield 1.0, resolution.route if resolution.route.slug == name else None
        return
    for target, weight in zip(resolution.targets, resolution.weights, strict=True):
        if weight:
            entries = tuple(TargetEntry(one.slug, 1 if one is target else 0) for one in resolution.targets)
            yield weight / total, msgspec.structs.replace(resolution.route, targets=entries)


def _opening(
    resolution: Resolution, causes: _Causes, tried: dict[str, float], seconds: float
) -> Iterator[tuple[Target, float]]:
    """Targets whose breaker would open, and the share of calls that meet it open."""
    route = resolution.route
    for target in dict.fromkeys(resolution.everything()):
        found = list(causes.by_scenario(target, route.total_timeout_ms / 1000))
        if not found or not found[0].failure.counts or seconds <= 0:
            continue
        chance, rate = found[0].chance, tried.get(target.slug, 0.0) / seconds
        if (
            chance * 100 < route.breaker_failure_percent
            or rate * route.breaker_window_s < route.breaker_min_calls
        ):
            continue
        # Between two cool-downs: the probe, and where it succeeds as many calls as it takes to open again.
        closed = 1 + (1 - chance) * route.breaker_min_calls
        away = rate * route.breaker_cooldown_s
        yield target, away / (away + closed)


def _states(opening: Sequence[tuple[Target, float]]) -> Iterator[tuple[float, tuple[Target, ...]]]:
    """Which breakers are open, and how often that is so. With many of them all open and close together."""
    if len(opening) > _MOST_BREAKERS:
        together = sum(share for _, share in opening) / len(opening)
        yield 1 - together, ()
        yield together, tuple(target for target, _ in opening)
        return
    for states in product((False, True), repeat=len(opening)):
        share = math.prod(
            part if is_open else 1 - part for (_, part), is_open in zip(opening, states, strict=True)
        )
        if share > 0:
            yield (
                share,
                tuple(target for (target, _), is_open in zip(opening, states, strict=True) if is_open),
            )


# --- adding up -------------------------------------------------------------------------------------------------------


def _add(outcome: Outcome, answered: _Answered, tally: _Tally, share: float) -> None:
    for key, calls in tally.answered.items():
        answered[key] = answered.get(key, 0.0) + share * calls
    for why, calls in tally.failed.items():
        outcome.failed[why] = outcome.failed.get(why, 0.0) + share * calls
    outcome.attempts += share * tally.attempts
    outcome.last_resort += share * tally.last_resort
    outcome.shortened += share * tally.shortened
    outcome.unknown_bills += share * tally.unknown
    outcome.waited += share * tally.waited


def _price(outcome: Outcome, answered: _Answered, named: Named, resolution: Resolution, now: float) -> None:
    """Amounts: what all calls of a kind would cost at a model, by the share of them that it answers."""
    targets = {target.slug: target for target in resolution.everything()}
    unpriced = set()
    for (model, index), calls in answered.items():
        outcome.answered[model] = outcome.answered.get(model, 0.0) + calls
        kind = named.kinds[index]
        prices: Prices | None = targets[model].prices.at(now)
        if prices is None:
            unpriced.add(model)
            continue
        whole = prices.cost(_Used(kind))
        outcome.cost[model] = outcome.cost.get(model, 0.0) + whole * calls / kind.calls
    outcome.unpriced = tuple(sorted(unpriced))


class _Used:
    """The sums of a kind as ``pricing.Billed`` and ``pricing.Media`` name them."""

    def __init__(self, kind: Kind) -> None:
        found = {name: int(kind.used.get(name, 0)) for name in CLASSES}
        self.input = found["input_tokens"]
        self.cached = found["cached_input_tokens"]
        self.cache_write = found["cache_write_tokens"]
        self.output = found["output_tokens"]
        self.reasoning = found["reasoning_tokens"]
        self.audio_input = found["audio_input_tokens"]
        self.image_input = found["image_input_tokens"]
        self.audio_output = found["audio_output_tokens"]
        self.image_output = found["image_output_tokens"]
        self.characters = found["characters"]
        self.seconds = found["seconds"]
        self.images = found["images"]

    @property
    def media(self) -> _Used:
        return self


def _snapshot(document: RevisionDocument, standing: Standing, route: RouteEntry | None) -> Snapshot:
    """As a data plane holds it, with one route at most. Policies are left out: they say nothing of where a call goes."""
    routes = (msgspec.structs.replace(route, policies=()),) if route is not None else ()
    return Snapshot(
        revision=0,
        digest="",
        document=msgspec.structs.replace(document, routes=routes, policies=(), prompts=()),
        live=LiveState(
            keys={},
            budgets=(),
            credentials={
                provider: tuple(
                    CredentialEntry(f"{provider}-{number}", f"{provider}-{number}", provider, "")
                    for number in range(how_many)
                )
                for provider, how_many in standing.credentials.items()
            },
            paused_routes=dict(standing.paused_routes),
            degraded_routes=dict(standing.degraded_routes),
            paused_providers=dict(standing.paused_providers),
        ),
        revision_version=0,
        live_version=0,
    )
