"""Where a request of a route goes, step by step, in words and shares. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmops.providers.rules import (
    CACHED_ANSWER,
    DROP_OLDEST,
    FAILURE_CLASSES,
    LARGER_MODEL,
    STATIC_ANSWER,
    SUMMARIZE,
)
from llmops.serving.snapshot import ModelEntry, RouteEntry


@dataclass(frozen=True, slots=True)
class Stop:
    """A model on the way; ``share`` in per cent where it has one, ``width`` of its bar out of 1000."""

    model: str
    provider: str = ""
    share: str = ""
    width: int = 0
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """``title`` says when, ``stops`` where to; ``ordered``: one after the other, not by share."""

    title: str
    text: str = ""
    stops: tuple[Stop, ...] = ()
    ordered: bool = False
    kind: str = ""


def picture(route: RouteEntry, models: Mapping[str, ModelEntry]) -> list[Step]:
    """From the call to the last answer. ``models`` are those in use."""

    def stop(slug: str) -> Stop:
        found = models.get(slug)
        return Stop(slug, found.provider if found else "", gone=found is None)

    steps = [Step(f"A call of {route.slug or 'this route'}", _before(route), kind="in")]
    total = sum(target.weight for target in route.targets)
    steps.append(
        Step(
            "goes to" if len(route.targets) < 2 else "goes to one of",
            "" if route.targets else "No model yet: add a target.",
            tuple(
                Stop(
                    target.model,
                    stop(target.model).provider,
                    share_of(target.weight, total),
                    round(1_000 * target.weight / total) if total else 0,
                    stop(target.model).gone,
                )
                for target in route.targets
            ),
            kind="targets",
        )
    )
    if long := _long(route, stop):
        steps.append(long)
    if len(route.targets) > 1 or route.attempts > 1:
        again = "It is tried again" + (", at the other targets too" if len(route.targets) > 1 else "")
        steps.append(
            Step(
                "If that fails",
                f"{again}: {route.attempts} attempts in all, within {route.total_timeout_ms / 1000:g} s."
                if route.attempts > 1
                else "No other attempt is made.",
                kind="again",
            )
        )
    if route.fallbacks and route.attempts > 1:
        steps.append(Step("Then, in this order", "", tuple(map(stop, route.fallbacks)), True, "fallbacks"))
    for name, label in FAILURE_CLASSES:
        if chosen := route.fallbacks_for.get(name):
            steps.append(Step(f"After: {label.lower()}", "", tuple(map(stop, chosen)), True, "fallbacks"))
    steps.append(Step("If nothing answers", _last(route), kind="last"))
    return steps


def share_of(weight: int, total: int) -> str:
    """In per cent, with as many places as it takes to tell it from nothing."""
    if not total:
        return "0 %"
    share = 100 * weight / total
    return f"{share:.0f} %" if share == round(share) else f"{share:.1f} %" if share >= 0.1 else "< 0.1 %"


def _before(route: RouteEntry) -> str:
    parts = []
    if route.policies:
        parts.append(f"must pass {', '.join(route.policies)}")
    if route.cache_ttl_s:
        parts.append(
            f"is answered from the cache if the same was asked in the last {_span(route.cache_ttl_s)}"
        )
    text = " and ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _long(route: RouteEntry, stop: object) -> Step | None:
    assert callable(stop)
    if route.context_strategy == LARGER_MODEL and route.larger_model:
        return Step("If its input is too long", "", (stop(route.larger_model),), True, "long")
    if route.context_strategy == DROP_OLDEST:
        return Step("If its input is too long", "the oldest turns are left out.", kind="long")
    if route.context_strategy == SUMMARIZE and route.summary_model:
        return Step(
            "If its input is too long", f"{route.summary_model} summarises the oldest turns.", kind="long"
        )
    return None


def _last(route: RouteEntry) -> str:
    if route.last_resort == STATIC_ANSWER:
        return "the caller gets the fixed answer."
    if route.last_resort == CACHED_ANSWER:
        return "the caller gets an earlier answer to the same request, or the error."
    return "the caller gets the error."


def _span(seconds: int) -> str:
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            number = seconds // size
            return f"{number} {unit}s" if number > 1 else unit
    return f"{seconds} seconds"
