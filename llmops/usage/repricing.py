"""What the traffic there was would cost at other prices: sums of tokens out of rollups, priced anew.

Calls of a service tier have prices of their own; they are few, and counted from the ledger by an index that holds only
them. A price is applied to the sums of a route and project, so that it differs from what calls cost one by one by less than
a nanodollar a call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, time, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, QuerySet, Sum

from llmops.access.models import Project
from llmops.base.clock import database_now
from llmops.providers.models import Model
from llmops.providers.previews import DAYS, NewPrice, Preview, PreviewLine
from llmops.providers.pricing import PriceBook, Prices
from llmops.usage.models import Call, Rollup

_Place = tuple[UUID, str]


@dataclass(slots=True)
class Used:
    """Sums of what calls used, in the shape that prices are applied to."""

    calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    characters: int = 0
    seconds: int = 0
    images: int = 0
    cost_nano: int = 0

    def add(self, other: Used, sign: int = 1) -> None:
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + sign * getattr(other, name))

    # The names that ``pricing.Billed`` and ``pricing.Media`` go by.
    @property
    def input(self) -> int:
        return self.input_tokens

    @property
    def cached(self) -> int:
        return self.cached_input_tokens

    @property
    def cache_write(self) -> int:
        return self.cache_write_tokens

    @property
    def output(self) -> int:
        return self.output_tokens

    @property
    def reasoning(self) -> int:
        return self.reasoning_tokens

    @property
    def audio_input(self) -> int:
        return self.audio_input_tokens

    @property
    def image_input(self) -> int:
        return self.image_input_tokens

    @property
    def audio_output(self) -> int:
        return self.audio_output_tokens

    @property
    def image_output(self) -> int:
        return self.image_output_tokens

    @property
    def media(self) -> Used:
        return self


_NAMES = tuple(field.name for field in fields(Used))


@dataclass(frozen=True, slots=True)
class _Row:
    """A dated price as ``pricing.PriceBook`` takes it."""

    token_class: str
    since: int
    nano_per_million: int


def preview(prices: Sequence[NewPrice], *, now: datetime | None = None) -> Preview:
    """What the last whole days would have cost at the prices in force now, and with ``prices`` beside them."""
    now = now or database_now()
    end = datetime.combine(now.date(), time(), tzinfo=now.tzinfo)
    start = end - timedelta(days=DAYS)
    by_model: dict[str, list[NewPrice]] = defaultdict(list)
    for price in prices:
        by_model[price.model.slug].append(price)
    lines, recorded = [], 0
    names: dict[UUID, str] = dict(Project.objects.values_list("pk", "slug"))
    for slug, changes in sorted(by_model.items()):
        before, after = _books(changes[0].model, changes, now)
        for (project, route), by_tier in _used(slug, start, end).items():
            recorded += sum(used.cost_nano for used in by_tier.values())
            lines.append(
                PreviewLine(
                    model=slug,
                    route=route,
                    project=names.get(project, str(project)),
                    calls=sum(used.calls for used in by_tier.values()),
                    before_nano=_cost(before, by_tier),
                    after_nano=_cost(after, by_tier),
                )
            )
    lines.sort(
        key=lambda line: (-abs(line.change_nano), -line.after_nano, line.model, line.route, line.project)
    )
    return Preview(start.date(), (end - timedelta(days=1)).date(), lines, recorded)


def _books(model: Model, changes: Iterable[NewPrice], now: datetime) -> tuple[Prices | None, Prices | None]:
    stored = [
        _Row(price.token_class, int(price.effective_from.timestamp()), price.nano_per_million)
        for price in model.prices.all()
    ]
    changed = [(one, int(one.effective_from.timestamp())) for one in changes]
    at = max([now.timestamp(), *(since for _, since in changed)])
    new = [_Row(one.token_class, since, one.nano_per_million) for one, since in changed]
    return PriceBook(stored).at(now.timestamp()), PriceBook([*stored, *new]).at(at)


def _cost(prices: Prices | None, by_tier: dict[str, Used]) -> int:
    if prices is None:
        return 0
    return sum(prices.of_tier(tier).cost(used) for tier, used in by_tier.items())


def _used(model: str, start: datetime, end: datetime) -> dict[_Place, dict[str, Used]]:
    """(project, route) -> service tier -> what was used; the empty tier is the standard one."""
    found: dict[_Place, dict[str, Used]] = {}
    days = Rollup.objects.filter(granularity=Rollup.DAY, bucket__gte=start, bucket__lt=end, model=model)
    for place, _, used in _sums(days, calls=Sum("calls")):
        found[place] = {"": used}
    tiered = Call.objects.filter(model=model, started_at__gte=start, started_at__lt=end).exclude(
        service_tier=""
    )
    for place, tier, used in _sums(tiered, "service_tier", calls=Count("pk")):
        by_tier = found.setdefault(place, {"": Used()})
        by_tier[tier] = used
        by_tier[""].add(used, -1)
    return found


def _sums(rows: QuerySet[Any], *by: str, calls: Any) -> Iterable[tuple[_Place, str, Used]]:
    sums = {f"sum_{name}": Sum(name) for name in _NAMES if name != "calls"} | {"sum_calls": calls}
    for row in rows.order_by().values("project_id", "route", *by).annotate(**sums):
        used = Used(**{name: row[f"sum_{name}"] or 0 for name in _NAMES})
        yield (row["project_id"], row["route"]), row[by[0]] if by else "", used
