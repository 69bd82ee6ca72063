"""What calls cost, by whatever finance asks for, from rollups alone. Amounts are nanodollars, and add up exactly.

Ranges are whole hours in UTC: their whole days come from rollups of days, what hangs over from those of hours. End users
and tags are counted by whole days. A cost centre is the one that a project has today.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import MAXYEAR, UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Case, F, IntegerField, Q, QuerySet, Sum, Value, When

from llmops.access.models import Project, ServiceKey
from llmops.core.errors import InvalidRequest
from llmops.usage.models import AttributionRollup, Call, Rollup
from llmops.usage.movement import Volume

_DAY = timedelta(days=1)
LONGEST = timedelta(days=800)
PROJECT, FEATURE, MODEL, ROUTE, KEY = "project", "feature", "model", "route", "key"
USER, TAG, COST_CENTRE, DAY, ENDPOINT = "user", "tag", "cost_centre", "day", "endpoint"
#: What spend can be grouped by -> the column of ``Rollup`` that says it; None where another table does.
DIMENSIONS: dict[str, str | None] = {
    PROJECT: "project_id",
    FEATURE: "feature",
    MODEL: "model",
    ROUTE: "route",
    KEY: "key_id",
    USER: None,
    TAG: None,
    COST_CENTRE: "project_id",
    DAY: "bucket",
    ENDPOINT: "endpoint",
}
#: In these the groups are found in ``AttributionRollup``, largest first and only so many.
ATTRIBUTED = (USER, TAG)
MOST_ATTRIBUTED = 500
#: A tag is the same whoever gives it; an end user's digest is made with the project, and means nothing without.
_IDENTITY = {USER: ("value", "project_id"), TAG: ("value",)}


@dataclass(frozen=True, slots=True)
class Span:
    """``[start, end)`` in whole hours, UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise InvalidRequest("to: the range is empty, because it ends before it begins.", param="to")
        if self.end - self.start > LONGEST:
            raise InvalidRequest(f"from: at most {LONGEST.days} days can be asked for at once.", param="from")
        if self.end.year == MAXYEAR:
            raise InvalidRequest("to: after this moment there are no days.", param="to")
        for name, at in (("from", self.start), ("to", self.end)):
            if at.astimezone(UTC).replace(minute=0, second=0, microsecond=0) != at:
                raise InvalidRequest(f"{name}: spend is kept by whole hours (UTC).", param=name)

    @property
    def days(self) -> tuple[datetime, datetime]:
        """Widened to whole days."""
        return midnight(self.start), midnight(self.end + _DAY - timedelta(microseconds=1))


@dataclass(frozen=True, slots=True)
class SpendFilters:
    """``project_ids`` is what the reader may see (None: everything); None and empty elsewhere do not narrow.

    ``nameless`` names the dimensions of which only calls without a value count.
    """

    project_ids: Collection[UUID] | None = None
    key_id: UUID | None = None
    route: str = ""
    model: str = ""
    feature: str = ""
    nameless: frozenset[str] = frozenset()

    @property
    def beyond_projects(self) -> tuple[str, ...]:
        """Names of what narrows within a project; end users and tags cannot be narrowed by it."""
        named = {"key": self.key_id, "route": self.route, "model": self.model, "feature": self.feature}
        return tuple(name for name, value in named.items() if value or name in self.nameless)


@dataclass(slots=True)
class Sums:
    """``calls`` are all, ``refused`` those of them that the console refused; ``input_tokens`` includes cached ones."""

    calls: int = 0
    refused: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_nano: int = 0
    saved_nano: int = 0
    cache_hits: int = 0

    def add(self, other: Sums) -> None:
        for name in SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def less(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, name) - getattr(other, name) for name in SUMMED))

    @property
    def served(self) -> int:
        """Calls that went through: what a cost per call is divided by."""
        return self.calls - self.refused

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def per_call_nano(self) -> int | None:
        return _ratio(self.cost_nano, self.served)

    @property
    def per_thousand_tokens_nano(self) -> int | None:
        return _ratio(self.cost_nano * 1000, self.tokens)


SUMMED = tuple(Sums.__dataclass_fields__)


@dataclass(slots=True)
class Group:
    """One value of a dimension. ``value`` is its text in an address, ``name`` what people read; both empty: no value.

    ``project_id`` says whose end user it is. ``models`` is model -> [tokens, cost].
    """

    value: str
    name: str
    sums: Sums = field(default_factory=Sums)
    models: dict[str, list[int]] = field(default_factory=dict)
    project_id: UUID | None = None

    def volume(self) -> Volume:
        models = {name: (tokens, cost) for name, (tokens, cost) in self.models.items()}
        return Volume(self.sums.served, self.sums.tokens, self.sums.cost_nano, models or None)


@dataclass(frozen=True, slots=True)
class Spend:
    """``groups`` are largest first; ``rest`` is what they leave of ``total`` (negative where calls carry several tags)."""

    total: Sums
    groups: list[Group]
    rest: Sums
    #: How many groups there are beside those listed is not known, only that there are some.
    more: bool = False


def midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def spend_by(dimension: str, span: Span, filters: SpendFilters, *, most: int = MOST_ATTRIBUTED) -> Spend:
    """Groups of ``dimension`` with their sums. One query, and one for names; end users and tags take three."""
    if dimension not in DIMENSIONS:
        raise InvalidRequest(f"group_by: choose one of {', '.join(DIMENSIONS)}.", param="group_by")
    if dimension in ATTRIBUTED:
        return _attributed(dimension, span, filters, most)
    column = DIMENSIONS[dimension]
    groups: dict[Any, Group] = {}
    total = Sums()
    for (value, model), sums in _grouped(rollups_of(span, filters), (column or "", "model")):
        group = groups.get(value)
        if group is None:
            group = groups[value] = Group(_text(value), _text(value))
        group.sums.add(sums)
        total.add(sums)
        mix = group.models.setdefault(model, [0, 0])
        mix[0] += sums.tokens
        mix[1] += sums.cost_nano
    found = _named(dimension, groups)
    if dimension == DAY:
        found.sort(key=lambda group: group.value)
    else:
        found.sort(key=lambda group: (-group.sums.cost_nano, -group.sums.calls, group.name))
    return Spend(total, found, Sums())


def spend_total(span: Span, filters: SpendFilters) -> Sums:
    total = Sums()
    for _, sums in _grouped(rollups_of(span, filters), ("granularity",)):
        total.add(sums)
    return total


def spend_days(start: datetime, end: datetime, filters: SpendFilters) -> dict[date, Sums]:
    """What each whole day of ``[start, end)`` cost; days without a call are not there. One query."""
    found: dict[date, Sums] = {}
    for (bucket,), sums in _grouped(rollups_of(Span(start, end), filters), ("bucket",)):
        found.setdefault(bucket.date(), Sums()).add(sums)
    return found


def spend_of(
    dimension: str, values: Iterable[Group], span: Span, filters: SpendFilters
) -> dict[tuple[UUID | None, str], Sums]:
    """Sums of these end users or tags in another span, by (project, value)."""
    wanted = {(group.project_id, group.value) for group in values}
    start, end = span.days
    rows = _attribution_rows(dimension, start, end, filters.project_ids)
    found: dict[tuple[UUID | None, str], Sums] = {}
    names = {value for _, value in wanted}
    for key, sums in _attribution_sums(rows.filter(value__in=names), _IDENTITY[dimension], None):
        value, project = (*key, None)[:2]
        if (project, value) in wanted:
            found[project, value] = sums
    return found


def in_whole_months(span: Span) -> bool:
    """Whether end users and tags of the span are read by month: a row a value, and not one for each of its days."""
    start, end = span.days
    return start.day == 1 and (end.day == 1 or end > midnight(datetime.now(UTC)))


def cost_centres(project_ids: Collection[UUID] | None) -> list[str]:
    projects = Project.objects.exclude(cost_center="")
    if project_ids is not None:
        projects = projects.filter(pk__in=list(project_ids))
    return list(projects.order_by("cost_center").values_list("cost_center", flat=True).distinct())


def projects_of_cost_centre(name: str, project_ids: Collection[UUID] | None) -> list[UUID]:
    """Projects that the cost centre pays for, among those that may be seen; the empty name: those without one."""
    projects = Project.objects.filter(cost_center=name)
    if project_ids is not None:
        projects = projects.filter(pk__in=list(project_ids))
    return list(projects.values_list("pk", flat=True))


# --- rollups ---------------------------------------------------------------------------------------------------------


def rollups_of(span: Span, filters: SpendFilters) -> QuerySet[Rollup]:
    """Rows of rollups that cover the span once, narrowed."""
    first = midnight(span.start + _DAY - timedelta(microseconds=1))
    last = midnight(span.end)
    if first < last:
        when = Q(granularity=Rollup.DAY, bucket__gte=first, bucket__lt=last)
        for start, end in ((span.start, first), (last, span.end)):
            if start < end:
                when |= Q(granularity=Rollup.HOUR, bucket__gte=start, bucket__lt=end)
    else:
        when = Q(granularity=Rollup.HOUR, bucket__gte=span.start, bucket__lt=span.end)
    rows = Rollup.objects.filter(when)
    if filters.project_ids is not None:
        rows = rows.filter(project_id__in=list(filters.project_ids))
    exact = {
        "key_id": filters.key_id,
        "route": filters.route,
        "model": filters.model,
        "feature": filters.feature,
    }
    rows = rows.filter(**{name: value for name, value in exact.items() if value})
    return rows.filter(**dict.fromkeys(filters.nameless, ""))


def _grouped(rows: QuerySet[Rollup], by: tuple[str, ...]) -> Iterable[tuple[tuple[Any, ...], Sums]]:
    refused = Case(When(status=Call.REFUSED, then=F("calls")), default=Value(0), output_field=IntegerField())
    found: Any = (
        rows.order_by()
        .values_list(*by)
        .annotate(
            sum_calls=Sum("calls"),
            sum_refused=Sum(refused),
            **{f"sum_{name}": Sum(name) for name in SUMMED[2:]},
        )
    )
    for row in found:
        yield row[: len(by)], Sums(*map(int, row[len(by) :]))


def _named(dimension: str, groups: Mapping[Any, Group]) -> list[Group]:
    if dimension in (PROJECT, COST_CENTRE):
        projects = {project.pk: project for project in Project.objects.filter(pk__in=list(groups))}
        if dimension == PROJECT:
            for pk, group in groups.items():
                group.project_id = pk
                group.name = projects[pk].slug if pk in projects else f"deleted project {str(pk)[:8]}"
            return list(groups.values())
        centres: dict[str, Group] = {}
        for pk, group in groups.items():
            name = projects[pk].cost_center if pk in projects else ""
            _merge(centres.setdefault(name, Group(name, name)), group)
        return list(centres.values())
    if dimension == KEY:
        keys = ServiceKey.objects.filter(pk__in=list(groups)).values_list("pk", "project__slug", "name")
        named = {pk: f"{slug} / {name}" for pk, slug, name in keys}
        for pk, group in groups.items():
            group.name = named.get(pk, f"deleted key {str(pk)[:8]}")
    elif dimension == DAY:
        days: dict[str, Group] = {}
        for bucket, group in groups.items():
            name = bucket.date().isoformat()
            _merge(days.setdefault(name, Group(name, name)), group)
        return list(days.values())
    return list(groups.values())


def _merge(into: Group, group: Group) -> None:
    into.sums.add(group.sums)
    for model, (tokens, cost) in group.models.items():
        mix = into.models.setdefault(model, [0, 0])
        mix[0] += tokens
        mix[1] += cost


# --- end users and tags ----------------------------------------------------------------------------------------------


def _attributed(kind: str, span: Span, filters: SpendFilters, most: int) -> Spend:
    if narrowing := filters.beyond_projects:
        raise InvalidRequest(
            f"{narrowing[0]}: figures by {'end user' if kind == USER else 'tag'} can be narrowed to projects alone. "
            "Leave this filter out, or look at the calls.",
            param=narrowing[0],
        )
    start, end = span.days
    rows = _attribution_rows(kind, start, end, filters.project_ids)
    total = spend_total(Span(start, end), SpendFilters(project_ids=filters.project_ids))
    groups = [
        Group(key[0], key[0], sums, project_id=key[1] if len(key) > 1 else None)
        for key, sums in _attribution_sums(rows.exclude(value=""), _IDENTITY[kind], most + 1)
    ]
    more, groups = len(groups) > most, groups[:most]
    rest = total.less(Sums())
    for group in groups:
        rest = rest.less(group.sums)
    return Spend(total, groups, rest, more)


def attributed_total(kind: str, span: Span, project_ids: Collection[UUID] | None) -> Sums:
    """What calls that name any end user (or tag) add up to, each call once."""
    start, end = span.days
    total = Sums()
    rows = _attribution_rows(kind, start, end, project_ids).filter(value="")
    for _, sums in _attribution_sums(rows, ("value",), None):
        total.add(sums)
    return total


def _attribution_rows(
    kind: str, start: datetime, end: datetime, project_ids: Collection[UUID] | None
) -> QuerySet[AttributionRollup]:
    """Rows of whole months where the span has them, of days elsewhere. Nothing is called in days to come."""
    tomorrow = midnight(datetime.now(UTC)) + _DAY
    when, at = Q(pk__in=[]), start
    while at < end:
        month_end = (at.replace(day=1) + timedelta(days=32)).replace(day=1)
        until = min(month_end, end)
        whole = at.day == 1 and (until == month_end or until >= tomorrow)
        if whole:
            when |= Q(granularity=AttributionRollup.MONTH, bucket=at)
        else:
            when |= Q(granularity=AttributionRollup.DAY, bucket__gte=at, bucket__lt=until)
        at = until
    rows = AttributionRollup.objects.filter(when, kind=kind)
    return rows if project_ids is None else rows.filter(project_id__in=list(project_ids))


def _attribution_sums(
    rows: QuerySet[AttributionRollup], by: tuple[str, ...], most: int | None
) -> Iterable[tuple[tuple[Any, ...], Sums]]:
    """Largest cost first. Where only ``most`` are asked for, these are found by their cost alone: of all the others the database
    adds up one column instead of six."""
    chosen: set[tuple[Any, ...]] | None = None
    if most:
        ranked: Any = rows.order_by().values_list(*by).annotate(total_cost=Sum("cost_nano"))
        chosen = {row[: len(by)] for row in ranked.order_by("-total_cost", *by)[:most]}
        rows = rows.filter(value__in={key[by.index("value")] for key in chosen})
    found: Any = (
        rows.order_by()
        .values_list(*by)
        .annotate(
            Sum("calls"),
            Sum("refused"),
            Sum("input_tokens"),
            Sum("output_tokens"),
            total_cost=Sum("cost_nano"),
            total_saved=Sum("saved_nano"),
        )
        .order_by("-total_cost", *by)
    )
    for row in found:
        if chosen is not None and row[: len(by)] not in chosen:
            continue
        calls, refused, input_tokens, output_tokens, cost, saved = map(int, row[len(by) :])
        yield (
            row[: len(by)],
            Sums(
                calls=calls,
                refused=refused,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cost_nano=cost,
                saved_nano=saved,
            ),
        )


def _text(value: Any) -> str:
    return value.date().isoformat() if isinstance(value, datetime) else str(value)


def _ratio(amount: int, by: int) -> int | None:
    """Rounded half up; None where there is nothing to divide by."""
    return (2 * amount + by) // (2 * by) if by > 0 else None
