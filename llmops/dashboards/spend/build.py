"""What the Spend page shows, as text and numbers ready for the template."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from uuid import UUID

from llmops.dashboards import formats
from llmops.dashboards.filters import NONE_GIVEN
from llmops.dashboards.overview.shapes import Figure, Tile
from llmops.dashboards.reader import Reader
from llmops.dashboards.simulated import simulated_spend
from llmops.dashboards.spend import movers, tables, units
from llmops.dashboards.spend.links import Links
from llmops.dashboards.spend.query import SpendQuery
from llmops.dashboards.spend.shapes import Amount, Step, View
from llmops.usage.forecast import LEVEL, LOOK_BACK, Forecast, forecast
from llmops.usage.models import Rollup
from llmops.usage.selectors import (
    Group,
    Savings,
    Span,
    Spend,
    SpendFilters,
    Sums,
    savings,
    spend_by,
    spend_days,
    spend_of,
    spend_total,
)
from llmops.usage.selectors.spend import ATTRIBUTED, in_whole_months, midnight, projects_of_cost_centre

_DAY = timedelta(days=1)


@dataclass(slots=True)
class Figures:
    """What one address asks of the database: amounts nanodollars, days UTC."""

    now: Spend
    before: Spend | None
    total: Sums
    total_before: Sums | None
    days: dict[date, Sums]
    days_before: dict[date, Sums]
    saved: Savings
    outlook: Forecast | None


def filters_of(reader: Reader, query: SpendQuery) -> SpendFilters:
    """What the figures are narrowed to: the address, and what the reader may see."""
    project_ids = reader.project_ids(query.project)
    if query.cost_centre:
        name = "" if query.cost_centre == NONE_GIVEN else query.cost_centre
        project_ids = projects_of_cost_centre(name, project_ids)
    texts = {name: getattr(query, name) for name in ("route", "model", "feature")}
    nameless = frozenset(name for name, value in texts.items() if value == NONE_GIVEN)
    return SpendFilters(
        project_ids=project_ids,
        key_id=query.key,
        nameless=nameless,
        **{name: "" if name in nameless else value for name, value in texts.items()},
    )


def figures(query: SpendQuery, filters: SpendFilters) -> Figures:
    now = spend_by(query.by, query.span, filters, most=tables.MOST_ROWS)
    before = _before(query, filters, now)
    today = midnight(query.now)
    history_from = today - LOOK_BACK * _DAY if _foreseeable(query) else query.span.start
    start, end = query.span.days
    every_day = spend_days(min(start, history_from), max(end, today), filters)
    days = {day: sums for day, sums in every_day.items() if start.date() <= day < end.date()}
    if query.by in ATTRIBUTED:
        total_before = spend_total(query.before, filters) if query.before else None
        total = now.total
    else:
        total, total_before = now.total, before.total if before else None
    return Figures(
        now=now,
        before=before,
        total=total,
        total_before=total_before,
        days=days,
        days_before=_by_day(query.before, filters) if query.before else {},
        saved=savings(query.span, filters),
        outlook=_outlook(query, every_day, total) if _foreseeable(query) else None,
    )


def build(reader: Reader, query: SpendQuery) -> View:
    filters = filters_of(reader, query)
    found = figures(query, filters)
    links = Links(query)
    names = {project.pk: project.slug for project in reader.projects}
    moved = movers.moved(found.now.groups, found.before.groups if found.before else [], query.by)
    earlier = found.total_before.cost_nano if found.total_before else 0
    places = formats.places_for(max(found.total.cost_nano, earlier))
    view = View(
        headline=_headline(query, found, places),
        because=movers.sentence(moved, query.by, places) if found.before else "",
        nothing_yet=not found.total.calls and not _any(filters.project_ids),
        no_project=not reader.everywhere and not reader.projects,
    )
    if view.nothing_yet:
        return view
    view.simulated = simulated_spend(query.span, filters)
    view.tiles = _tiles(query, found, links)
    tables.breakdown(view, query, found.now, found.before, links, names)
    if found.before is not None and query.by != "day":
        movers.panel(view, query, moved, found.total, found.total_before or Sums(), links, names)
    tables.days(view, query, found.days, found.days_before, found.outlook, links)
    _savings(view, found)
    view.units = units.of_features(query, filters, links)
    return view


def _before(query: SpendQuery, filters: SpendFilters, now: Spend) -> Spend | None:
    if query.before is None:
        return None
    if query.by in ATTRIBUTED and not in_whole_months(query.before):
        # Ranking every user of every day takes longer than a page may; the largest of now are looked up instead.
        before = Spend(spend_total(Span(*query.before.days), filters), [], Sums())
    else:
        before = spend_by(query.by, query.before, filters, most=tables.MOST_ROWS)
    if query.by in ATTRIBUTED:
        # Whoever is among the largest of one period is looked up in the other.
        known = {(group.project_id, group.value) for group in before.groups}
        lacking = [group for group in now.groups if (group.project_id, group.value) not in known]
        for (project, value), sums in spend_of(query.by, lacking, query.before, filters).items():
            before.groups.append(Group(value, value, sums, project_id=project))
    return before


def _by_day(span: Span, filters: SpendFilters) -> dict[date, Sums]:
    return {date.fromisoformat(group.value): group.sums for group in spend_by("day", span, filters).groups}


def _foreseeable(query: SpendQuery) -> bool:
    return query.open and query.whole is not None


def _outlook(query: SpendQuery, days: dict[date, Sums], total: Sums) -> Forecast | None:
    whole = query.whole
    if whole is None:
        return None
    today = midnight(query.now)
    first = today - LOOK_BACK * _DAY
    history = []
    for number in range(LOOK_BACK):
        day = (first + number * _DAY).date()
        history.append((day, days[day].cost_nano if day in days else 0))
    ahead = [(today + number * _DAY).date() for number in range(1, (whole.end - today).days)]
    so_far = days.get(today.date(), Sums()).cost_nano
    return forecast(
        history,
        spent_nano=total.cost_nano,
        days_ahead=ahead,
        today=today.date(),
        today_nano=so_far,
        today_left=max(0.0, 1 - (query.now - today) / _DAY),
    )


def _any(project_ids: Collection[UUID] | None) -> bool:
    rows = Rollup.objects.filter(granularity=Rollup.DAY)
    if project_ids is not None:
        rows = rows.filter(project_id__in=list(project_ids))
    return rows.exists()


def _headline(query: SpendQuery, found: Figures, places: int) -> str:
    said = f"{formats.usd_places(found.total.cost_nano, places)} spent in {query.words}"
    if found.total_before is None:
        return said + "."
    if not found.total_before.calls:
        return f"{said}; nothing was called in {query.before_words}."
    text, direction = formats.change(found.total.cost_nano, found.total_before.cost_nano)
    if direction == "flat" or not text:
        return f"{said}, about as much as in {query.before_words}."
    # The difference of what is shown, so that nobody who subtracts finds another one.
    shown, before = (formats.rounded(sums.cost_nano, places) for sums in (found.total, found.total_before))
    difference = formats.usd_places(abs(shown - before), places)
    word = "more" if direction == "up" else "less"
    return f"{said}, {difference} {word} than in {query.before_words} ({text})."


def _tiles(query: SpendQuery, found: Figures, links: Links) -> list[Tile]:
    total, before = found.total, found.total_before
    note = f"vs {query.before_words}" if before is not None and before.calls else ""
    if before is not None and not before.calls:
        note = f"no calls in {query.before_words}"
    before = before or Sums()
    tiles = [
        _tile(
            "Spend", formats.usd(total.cost_nano), total.cost_nano, before.cost_nano, note, links.calls(),
            less_is_better=True,
        )
    ]  # fmt: skip
    if found.outlook is not None and query.whole is not None:
        last = query.whole.end - _DAY
        low, high = formats.usd(found.outlook.low_nano), formats.usd(found.outlook.high_nano)
        tiles.append(
            Tile(
                f"Forecast to {last.day} {last:%B}",
                (Figure(formats.usd(found.outlook.expected_nano)),),
                change=f"{low} to {high}",
                note=f"{LEVEL} % range",
            )
        )
    else:
        length = max(1, (min(query.span.end, midnight(query.now) + _DAY) - query.span.start).days)
        per_day = total.cost_nano // length
        too_few = _foreseeable(query)
        tiles.append(
            Tile(
                "A day, on average",
                (Figure(formats.usd(per_day)),),
                note="no forecast before a week of calls" if too_few else f"over {length} days",
            )
        )
    tiles += [
        _tile("Cost per call", formats.usd(total.per_call_nano), total.per_call_nano, before.per_call_nano,
              f"{formats.count(total.served)} calls that went through", less_is_better=True),
        _tile("Per 1,000 tokens".replace(",", "\u2009"), formats.usd(total.per_thousand_tokens_nano),
              total.per_thousand_tokens_nano, before.per_thousand_tokens_nano,
              f"{formats.short_count(total.tokens)} tokens", less_is_better=True),
        Tile("Saved by caches and routing", (Figure(formats.usd(found.saved.total_nano)),),
             note=_saved_share(found), href="#savings"),
    ]  # fmt: skip
    return tiles


def _tile(
    label: str,
    text: str,
    now: int | None,
    before: int | None,
    note: str,
    href: str = "",
    *,
    less_is_better: bool = False,
) -> Tile:
    change, direction = formats.change(now, before)
    tone = {"up": "poor", "down": "good"}.get(direction, "") if less_is_better else ""
    return Tile(label, (Figure(text),), change=change, change_tone=tone, note=note, href=href)


def _saved_share(found: Figures) -> str:
    without = found.total.cost_nano + found.saved.total_nano
    if found.saved.total_nano <= 0 or without <= 0:
        return "of list prices"
    return f"{formats.percent(found.saved.total_nano, without)} of what it would have cost"


def _savings(view: View, found: Figures) -> None:
    saved, total = found.saved, found.total
    parts = [
        ("Answers from the console's cache", f"{formats.count(total.cache_hits)} calls that no provider was asked for",
         saved.answers_nano),
        ("Prompts that providers had cached", f"{formats.count(total.cached_input_tokens)} input tokens at the cached price",
         saved.prompts_nano),
        ("Routing to cheaper models", "against the dearest target of each route", saved.routing_nano),
    ]  # fmt: skip
    places = formats.places_for(max(abs(amount) for _, _, amount in parts))
    shown = formats.apportioned([amount for _, _, amount in parts], places)
    view.savings = [
        Step(label, note, Amount(formats.usd_places(text, places, signed=amount < 0), formats.usd_exact(amount)))
        for (label, note, amount), text in zip(parts, shown, strict=True)
    ]  # fmt: skip
    view.savings_total = Step(
        "Saved in all",
        "",
        Amount(formats.usd_places(sum(shown), places), formats.usd_exact(saved.total_nano)),
    )
    view.savings_share = _saved_share(found)
