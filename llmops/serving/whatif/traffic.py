"""The traffic there was, as routing would meet it again: sums out of rollups, and a sample that tells kinds of calls apart.

Rollups hold every call and are few. What they do not hold, how long inputs were and what a model had to be able to do, is told
by a sample: some calls from each of so many stretches of the time, by the index of their time, however many there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F, Sum

from llmops.core.histogram import value_of
from llmops.providers.models import Credential, Provider, Route
from llmops.serving.whatif.shapes import CLASSES, MADE, Kind, Named, Standing, Traffic
from llmops.usage.models import Call, LatencyRollup, Rollup

#: Stretches of the time, and calls that are looked at in each of them at most.
STRETCHES, EACH = 24, 250
#: What endpoints that only some models serve are for; what is not here takes text.
_PURPOSES = {
    "embeddings": "embeddings",
    "images": "images",
    "audio.speech": "speech",
    "audio.transcriptions": "transcription",
    "audio.translations": "transcription",
}
_SEEN = (
    "route",
    "model",
    "endpoint",
    "tools",
    "input_tokens",
    "output_tokens",
    "image_input_tokens",
    "audio_input_tokens",
)


def standing(now: datetime) -> Standing:
    """Switches and credentials as they are now."""
    credentials: dict[str, int] = defaultdict(int)
    for slug in Credential.objects.filter(state="active").values_list("provider__slug", flat=True):
        credentials[slug] += 1
    return Standing(
        now=now.timestamp(),
        credentials=dict(credentials),
        paused_routes=switched(Route, "paused_at", "pause_reason"),
        degraded_routes=switched(Route, "degraded_at", "degrade_reason"),
        paused_providers=switched(Provider, "paused_at", "pause_reason"),
    )


def traffic(
    *, days: int, now: datetime, projects: Collection[UUID] | None = None, route: str = ""
) -> Traffic:
    """The calls of the last ``days`` days (UTC, today included) that reached a provider or would have: not those that this
    console refused, nor those that its cache answered. ``projects`` None: all; ``route`` empty: every route, and models that
    were called by their own names.
    """
    start = datetime.combine(now.astimezone(UTC).date(), time(), tzinfo=UTC) - timedelta(days=days - 1)
    names = _sums(start, projects, route)
    seen = _sample(start, now, projects, route) if names else {}
    times = _times(start, projects, route) if names else {}
    return Traffic(
        seconds=(now - start).total_seconds(),
        names=tuple(
            Named(
                name,
                kinds=_kinds(found, seen.get(name, ())),
                cost_nano=found.cost_nano,
                answered=dict(sorted(found.answered.items())),
                streamed=found.streamed,
                times=times.get(name, {}),
            )
            for name, found in sorted(names.items())
        ),
        sampled=sum(len(rows) for rows in seen.values()),
    )


class _Found:
    """Sums of one name."""

    __slots__ = ("answered", "calls", "cost_nano", "endpoints", "streamed", "used")

    def __init__(self) -> None:
        self.calls = self.cost_nano = self.streamed = 0
        self.used: dict[str, int] = dict.fromkeys(CLASSES, 0)
        self.answered: dict[str, int] = defaultdict(int)
        self.endpoints: dict[str, int] = defaultdict(int)


def _sums(start: datetime, projects: Collection[UUID] | None, route: str) -> dict[str, _Found]:
    rows = Rollup.objects.filter(granularity=Rollup.DAY, bucket__gte=start).exclude(status=Call.REFUSED)
    rows = _narrowed(rows, projects, route)
    found: dict[str, _Found] = {}
    sums = {f"sum_{name}": Sum(name) for name in (*CLASSES, "cost_nano", "streamed")}
    grouped = rows.order_by().values("route", "model", "endpoint", "status")
    for row in grouped.annotate(reached=Sum(F("calls") - F("cache_hits")), **sums):
        name, calls = row["route"] or row["model"], row["reached"] or 0
        if not name or calls <= 0:
            continue
        one = found.setdefault(name, _Found())
        one.calls += calls
        one.cost_nano += row["sum_cost_nano"] or 0
        one.streamed += row["sum_streamed"] or 0
        one.endpoints[row["endpoint"]] += calls
        for token_class in CLASSES:
            one.used[token_class] += row[f"sum_{token_class}"] or 0
        if row["status"] == Call.OK and row["model"]:
            one.answered[row["model"]] += calls
    return found


def _sample(
    start: datetime, now: datetime, projects: Collection[UUID] | None, route: str
) -> dict[str, list[dict[str, Any]]]:
    """Some calls of each stretch of the time, by name."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    step = (now - start) / STRETCHES
    for number in range(STRETCHES):
        first = start + step * number
        rows = Call.objects.filter(started_at__gte=first, started_at__lt=first + step)
        if projects is not None:
            rows = rows.filter(project_id__in=projects)
        # Whatever their route: to look for a rare one could mean to look at every call.
        for row in rows.order_by("started_at", "id").values(*_SEEN, "status", "cache")[:EACH]:
            name = row["route"] or row["model"]
            reached = row["status"] != Call.REFUSED and row["cache"] in ("", "miss")
            if name and reached and route in ("", row["route"]):
                found[name].append(row)
    return found


def _kinds(found: _Found, seen: Iterable[dict[str, Any]]) -> tuple[Kind, ...]:
    """The calls of a name by what they need and how long they are; sums are theirs by what was seen of each kind."""
    groups: dict[tuple[str, frozenset[str], int], list[dict[str, Any]]] = defaultdict(list)
    rows = list(seen)
    for row in rows:
        tokens = row["input_tokens"] + row["output_tokens"]
        # Lengths by powers of two: the longest of each stands for its kind.
        groups[_purpose(row["endpoint"]), _needs(row), tokens.bit_length()].append(row)
    if not groups:
        endpoint = max(found.endpoints, key=lambda name: found.endpoints[name], default="")
        return (Kind(float(found.calls), purpose=_purpose(endpoint), used=found.used),)
    asked, made = _total(rows, "input_tokens"), _total(rows, "output_tokens")
    return tuple(
        Kind(
            calls=found.calls * len(group) / len(rows),
            purpose=purpose,
            needs=needs,
            tokens=max(row["input_tokens"] + row["output_tokens"] for row in group),
            used={
                name: round(
                    amount
                    * (
                        _share(group, rows, "output_tokens", made)
                        if name in MADE
                        else _share(group, rows, "input_tokens", asked)
                    )
                )
                for name, amount in found.used.items()
            },
        )
        for (purpose, needs, _), group in sorted(
            groups.items(), key=lambda item: (item[0][0], sorted(item[0][1]), item[0][2])
        )
    )


def _total(rows: list[dict[str, Any]], name: str) -> int:
    return sum(row[name] for row in rows)


def _share(group: list[dict[str, Any]], rows: list[dict[str, Any]], name: str, total: int) -> float:
    return _total(group, name) / total if total else len(group) / len(rows)


def _purpose(endpoint: str) -> str:
    endpoint = endpoint.removeprefix("/v1/").replace("/", ".")
    return next((purpose for start, purpose in _PURPOSES.items() if endpoint.startswith(start)), "")


def _needs(row: dict[str, Any]) -> frozenset[str]:
    needs = {
        "tools": bool(row["tools"]),
        "vision": row["image_input_tokens"] > 0,
        "audio": row["audio_input_tokens"] > 0 and not _purpose(row["endpoint"]),
    }
    return frozenset(name for name, needed in needs.items() if needed)


def _times(
    start: datetime, projects: Collection[UUID] | None, route: str
) -> dict[str, dict[str, list[tuple[float, int]]]]:
    """How long calls took, by name and model."""
    rows = LatencyRollup.objects.filter(granularity=Rollup.DAY, bucket__gte=start, metric=LatencyRollup.TOTAL)
    found: dict[str, dict[str, list[tuple[float, int]]]] = {}
    grouped = _narrowed(rows, projects, route).order_by().values("route", "model", "log_bucket")
    for row in grouped.annotate(sum_calls=Sum("calls")):
        name = row["route"] or row["model"]
        by_model = found.setdefault(name, {})
        by_model.setdefault(row["model"], []).append((value_of(row["log_bucket"]), row["sum_calls"]))
    return found


def _narrowed(rows: Any, projects: Collection[UUID] | None, route: str) -> Any:
    if projects is not None:
        rows = rows.filter(project_id__in=projects)
    return rows.filter(route=route) if route else rows


def switched(model: type[Route] | type[Provider], since: str, reason: str) -> dict[str, str]:
    """Rows whose live switch is on, by slug, and why."""
    return dict(model._default_manager.filter(**{f"{since}__isnull": False}).values_list("slug", reason))
