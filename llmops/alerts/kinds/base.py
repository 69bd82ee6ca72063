"""What a kind of rule is: a title, numbers that can be set, and a function that looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from llmops.alerts.figures import Figures, Measured, Scope

#: A condition that began to hold goes on until the figure is this much better than its bound.
EASE = 0.9


@dataclass(frozen=True, slots=True)
class Setting:
    """``unit`` is what people type: ``%``, ``s``, ``USD``, ``x`` or empty."""

    name: str
    label: str
    default: float
    unit: str = ""
    least: float = 0.0
    most: float = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rule asks its kind."""

    settings: Mapping[str, float]
    scope: Scope
    slug: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """``holds``: the condition is met. Otherwise it is near enough that what is open stays open.

    ``subject`` names what it is about, within the rule. ``value`` and ``bound`` are in the same unit. ``facts`` narrows the
    list of calls (``route``, ``model``, ``feature``, ``error``, ``status``), or says where to look (``url``: a name of one).
    """

    subject: str
    title: str
    says: str
    value: float = 0.0
    bound: float = 0.0
    holds: bool = True
    calls: int = 0
    project_id: UUID | None = None
    severity: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Look(Protocol):
    def __call__(self, asked: Asked, figures: Figures) -> Iterable[Finding]: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """``narrows``: which of project, route, model and feature a rule of it may name. ``runbook`` is a file's name in
    ``docs/runbooks``. ``every_s``: looked at no more often."""

    name: str
    title: str
    says: str
    look: Look
    runbook: str
    settings: tuple[Setting, ...] = ()
    narrows: tuple[str, ...] = ()
    every_s: int = 0
    #: The figure of a bucket of time, where a preview of the last days can be made of it.
    measure: Callable[[Measured, Mapping[str, float]], tuple[float, bool] | None] | None = None


WINDOW = Setting("window_s", "Looks back", 300, "s", 60, 86_400)
MIN_CALLS = Setting("min_calls", "From so many calls on", 20, "", 1)


def place(scope: Scope, route: str = "") -> tuple[str, str]:
    """The subject of a finding, and how it reads in a sentence."""
    if scope.feature:
        return f"feature:{scope.feature}", f"feature {scope.feature}"
    if route or scope.route:
        return f"route:{route or scope.route}", f"route {route or scope.route}"
    if scope.model:
        return f"model:{scope.model}", f"model {scope.model}"
    return "all", "all calls"


def places(asked: Asked, figures: Figures) -> Iterator[tuple[str, str, str, Measured]]:
    """(subject, in words, route, figures) of each route, or of the one place that the rule names."""
    scope, seconds = asked.scope, int(asked.settings["window_s"])
    if scope.route or scope.model or scope.feature:
        yield (*place(scope), scope.route, figures.over(seconds, scope))
        return
    for route, measured in sorted(figures.by_route(seconds, scope).items()):
        if route:
            yield (*place(scope, route), route, measured)
        else:
            yield "by-name", "calls that name a model", "", measured


def threshold(
    *,
    name: str,
    title: str,
    says: str,
    runbook: str,
    bound: Setting,
    value: Callable[[Measured], float | None],
    weight: Callable[[Measured], int],
    what: str,
    show: Callable[[float], str],
    facts: Mapping[str, str] | None = None,
    others: tuple[Setting, ...] = (WINDOW, MIN_CALLS),
    narrows: tuple[str, ...] = ("project", "route", "model", "feature"),
) -> Kind:
    """A kind that holds while a figure of a route is at its bound or above. ``weight``: the calls that it is a figure of."""

    def figure(measured: Measured, settings: Mapping[str, float]) -> tuple[float, bool] | None:
        found = value(measured)
        if found is None or weight(measured) < settings["min_calls"]:
            return None
        return found, found >= settings[bound.name]

    def look(asked: Asked, figures: Figures) -> Iterator[Finding]:
        limit = asked.settings[bound.name]
        for subject, words, route, measured in places(asked, figures):
            found = figure(measured, asked.settings)
            if found is None or found[0] < limit * EASE:
                continue
            failures = measured.failures() if (facts or {}).get("status") == "failed" else ()
            codes = ", ".join(f"{one.code} ({one.calls:,})" for one in failures[:3])
            calls = weight(measured)
            yield Finding(
                subject=subject,
                title=f"{title}: {words}",
                says=f"{what} is {show(found[0])} over the last {int(asked.settings['window_s']) // 60} min "
                f"(bound {show(limit)}), in {calls:,} {'call' if calls == 1 else 'calls'}"
                + (f": {codes}." if codes else "."),
                value=found[0],
                bound=limit,
                holds=found[1],
                calls=calls,
                project_id=asked.scope.project_id,
                facts={
                    **(facts or {}),
                    **narrowing(asked.scope, route),
                    **({"error": failures[0].code} if failures else {}),
                },
            )

    return Kind(
        name=name,
        title=title,
        says=says,
        look=look,
        runbook=runbook,
        settings=(bound, *others),
        narrows=narrows,
        measure=figure,
    )


def narrowing(scope: Scope, route: str = "") -> dict[str, str]:
    """What narrows the list of calls to those of a place."""
    found = {
        "project": str(scope.project_id or ""),
        "route": route or scope.route,
        "model": scope.model,
        "feature": scope.feature,
    }
    return {name: value for name, value in found.items() if value}


def share(part: int, whole: int) -> float | None:
    """Percent; None of nothing."""
    return 100.0 * part / whole if whole else None


def percent(value: float) -> str:
    return f"{value:.1f} %" if value < 10 else f"{value:.0f} %"


def seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def usd(value: float) -> str:
    return f"${value:,.2f}"


def times(value: float) -> str:
    return f"{value:.1f}x"
