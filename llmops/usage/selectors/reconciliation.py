"""The ledger beside what providers say: tokens and money by provider, model and day."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

from django.db.models import Sum

from llmops.providers.models import ModelConfig
from llmops.usage.models import ProviderFigure, Rollup

#: Beyond this the ledger and a provider do not agree.
BOUND_PERCENT = 1.0
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(slots=True)
class Drift:
    """One model on one day. ``model`` is the provider's name for it (empty: all of them, where costs are not told by
    model), ``slugs`` what it is called here. ``stated_...`` is None where no import speaks of it. Tokens are input and output.
    ``..._open``: the import came before the day was over, so the figure is shown and not judged, as no alert is raised.
    """

    day: date
    model: str
    slugs: list[str] = field(default_factory=list)
    calls: int = 0
    ledger_tokens: int = 0
    ledger_nano: int = 0
    stated_requests: int | None = None
    stated_tokens: int | None = None
    stated_nano: int | None = None
    tokens_open: bool = False
    cost_open: bool = False

    @property
    def token_percent(self) -> float | None:
        return percent(self.ledger_tokens, self.stated_tokens)

    @property
    def cost_percent(self) -> float | None:
        return percent(self.ledger_nano, self.stated_nano)

    @property
    def judged(self) -> list[float]:
        """The drifts, in percent, of those figures that an import states of a day that was over."""
        told = (self.tokens_open, self.token_percent), (self.cost_open, self.cost_percent)
        return [found for still_open, found in told if not still_open and found is not None]

    @property
    def drifting(self) -> int:
        """How many of them are beyond the bound."""
        return sum(abs(found) > BOUND_PERCENT for found in self.judged)

    @property
    def drifts(self) -> bool:
        return self.drifting > 0


def percent(ledger: int, stated: int | None) -> float | None:
    """By how much the ledger is above (or below) what a provider states, in percent of the latter."""
    if stated is None:
        return None
    if not stated:
        return 100.0 if ledger else 0.0
    return 100 * (ledger - stated) / abs(stated)


def drifts(provider: str, first: date, last: date) -> list[Drift]:
    """Every model of a provider on the days from ``first`` to ``last`` that an import covers, by day."""
    tokens, costs = _stated(provider, first, last)
    covered = {day for day, _ in tokens} | {day for day, _ in costs}
    if not covered:
        return []
    found = {key: drift for key, drift in _ledger(provider, first, last).items() if key[0] in covered}
    names = {day: [model for at, model in found if at == day] for day in covered}
    for figures in (tokens, costs):
        for (day, model), figure in figures.items():
            if not model and figures is tokens:
                continue
            key = (day, _known(model, names[day]))
            if key not in found:
                found[key] = Drift(day, model)
                if not model:
                    _whole(found, day)
            _state(found[key], figure, tokens=figures is tokens)
    uncounted = _without_requests(tokens)
    open_days = [{day for (day, _), figure in held.items() if _early(figure)} for held in (tokens, costs)]
    for drift in found.values():
        drift.tokens_open, drift.cost_open = (drift.day in days for days in open_days)
        # What an import covers and does not name was not used, as far as its provider knows.
        if drift.stated_tokens is None and drift.model and any(day == drift.day for day, _ in tokens):
            drift.stated_tokens, drift.stated_requests = 0, 0
        told_by_model = any(day == drift.day and model for day, model in costs)
        if drift.stated_nano is None and drift.model and told_by_model:
            drift.stated_nano = 0
        if drift.day in uncounted:
            drift.stated_requests = None
    shown = (drift for drift in found.values() if drift.model or drift.stated_nano is not None)
    return sorted(shown, key=lambda drift: (drift.day, drift.model))


def _state(drift: Drift, figure: ProviderFigure, *, tokens: bool) -> None:
    if tokens:
        drift.stated_tokens = (drift.stated_tokens or 0) + figure.input_tokens + figure.output_tokens
        drift.stated_requests = (drift.stated_requests or 0) + figure.requests
    elif figure.cost_nano is not None:
        drift.stated_nano = (drift.stated_nano or 0) + figure.cost_nano


def _early(figure: ProviderFigure) -> bool:
    return figure.day >= figure.statement.imported_at.astimezone(UTC).date()


def _without_requests(tokens: Mapping[tuple[date, str], ProviderFigure]) -> set[date]:
    """Days of imports that state tokens and not one request: such a file does not tell requests at all."""
    used = {row.statement_id for row in tokens.values() if row.input_tokens or row.output_tokens}
    counted = {row.statement_id for row in tokens.values() if row.requests}
    return {day for (day, _), row in tokens.items() if row.statement_id in used - counted}


def _whole(found: dict[tuple[date, str], Drift], day: date) -> None:
    """Costs that are not told by model stand beside those of all models."""
    total = found[day, ""]
    for (at, model), drift in found.items():
        if at == day and model:
            total.calls += drift.calls
            total.ledger_tokens += drift.ledger_tokens
            total.ledger_nano += drift.ledger_nano


def _known(stated: str, names: Iterable[str]) -> str:
    """The name under which the ledger has a model: providers name a snapshot where an alias was called, and vice versa."""
    known = list(names)
    if stated in known:
        return stated
    plain = _DATED.sub("", stated)
    alike = [name for name in known if name == plain or _DATED.sub("", name) == stated]
    return alike[0] if len(alike) == 1 else stated


_Figures = dict[tuple[date, str], ProviderFigure]


def _stated(provider: str, first: date, last: date) -> tuple[_Figures, _Figures]:
    """What holds of the imports, apart for tokens and money: for each day its newest import that speaks of them."""
    rows = (
        ProviderFigure.objects.filter(provider=provider, day__gte=first, day__lte=last)
        .select_related("statement")
        .order_by("statement_id", "pk")
    )
    newest: dict[tuple[date, bool], int] = {}
    for row in rows:
        for money, speaks in ((False, row.statement.has_tokens), (True, row.statement.has_cost)):
            if speaks:
                newest[row.day, money] = row.statement_id
    held: tuple[_Figures, _Figures] = ({}, {})
    for row in rows:
        for money in (False, True):
            if newest.get((row.day, money)) == row.statement_id:
                held[money][row.day, row.model] = row
    return held


def _ledger(provider: str, first: date, last: date) -> dict[tuple[date, str], Drift]:
    start = datetime.combine(first, time(), tzinfo=UTC)
    end = datetime.combine(last, time(), tzinfo=UTC) + timedelta(days=1)
    versions: dict[str, list[tuple[datetime, str, str]]] = defaultdict(list)
    for slug, made, kept_by, upstream in ModelConfig.objects.order_by("model__slug", "version").values_list(
        "model__slug", "created_at", "provider__slug", "upstream_model"
    ):
        versions[slug].append((made, kept_by, upstream))
    rows = (
        Rollup.objects.filter(granularity=Rollup.DAY, bucket__gte=start, bucket__lt=end)
        .exclude(model="")
        .order_by()
        .values_list("bucket", "model")
        .annotate(Sum("calls"), Sum("input_tokens"), Sum("output_tokens"), Sum("cost_nano"))
    )
    found: dict[tuple[date, str], Drift] = {}
    for bucket, slug, calls, asked, answered, cost in rows:
        known = versions.get(slug)
        if not known:
            continue
        until = bucket + timedelta(days=1)
        _, kept_by, upstream = next((one for one in reversed(known) if one[0] < until), known[0])
        if kept_by != provider:
            continue
        day = bucket.astimezone(UTC).date()
        drift = found.setdefault((day, upstream), Drift(day, upstream))
        drift.slugs.append(slug)
        drift.calls += calls
        drift.ledger_tokens += asked + answered
        drift.ledger_nano += cost
    return found
