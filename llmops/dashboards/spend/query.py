"""What the Spend page shows, as its address says it. Days are UTC, as in providers' invoices.

An address with a value that cannot be understood still opens: the value is dropped and ``problems`` says which and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from llmops.dashboards.filters import EARLIEST, NONE_GIVEN
from llmops.usage.selectors import Span
from llmops.usage.selectors.spend import ATTRIBUTED, PROJECT, midnight

MONTH, LAST_MONTH, QUARTER, WEEK, DAYS_30, DAYS_90, CUSTOM = (
    "month",
    "last-month",
    "quarter",
    "7d",
    "30d",
    "90d",
    "custom",
)
RANGES = {
    MONTH: "This month",
    LAST_MONTH: "Last month",
    QUARTER: "This quarter",
    WEEK: "7 d",
    DAYS_30: "30 d",
    DAYS_90: "90 d",
}
_ROLLING = {WEEK: 7, DAYS_30: 30, DAYS_90: 90}
SAME_DAYS, BEFORE, NOTHING = "month", "before", "none"
COMPARISONS = {SAME_DAYS: "the same days a month earlier", BEFORE: "the time before", NOTHING: "nothing"}
BY_MONEY, BY_PERCENT = "money", "percent"
LONGEST_DAYS = 400
#: What the page offers to group by, in this order, with its heading.
GROUPS = {
    "project": "Project",
    "feature": "Feature",
    "model": "Model",
    "route": "Route",
    "key": "Service key",
    "user": "End user",
    "tag": "Tag",
    "cost_centre": "Cost centre",
    "day": "Day",
}
TEXTS = {"route": 63, "model": 63, "feature": 100, "cost_centre": 40}


def one_of(by: str) -> str:
    """A group in a sentence: a feature, an end user."""
    word = GROUPS[by].lower()
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


@dataclass(frozen=True, slots=True)
class SpendQuery:
    """``span`` ends with today where it is not over; ``whole`` is the calendar period it belongs to, if it does to one.

    ``before`` is what it is compared with, cut off at the same hour when ``span`` is not over; None: with nothing.
    """

    range: str
    span: Span
    whole: Span | None
    before: Span | None
    now: datetime
    compare: str
    by: str = PROJECT
    movers: str = BY_MONEY
    project: UUID | None = None
    key: UUID | None = None
    route: str = ""
    model: str = ""
    feature: str = ""
    cost_centre: str = ""
    problems: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether there is more to come."""
        return self.span.end > self.now

    @property
    def words(self) -> str:
        first, last = self.span.start, self.span.end - timedelta(days=1)
        if self.range == MONTH:
            return f"{first:%B} so far"
        if self.range == LAST_MONTH:
            return f"{first:%B %Y}"
        if self.range == QUARTER:
            return f"the {_ordinal((first.month + 2) // 3)} quarter so far"
        if self.range in _ROLLING:
            return f"the last {_ROLLING[self.range]} days"
        return _days(first, last)

    @property
    def before_words(self) -> str:
        """What it is compared with."""
        if self.before is None:
            return ""
        first, last = self.before.start, self.before.end - timedelta(microseconds=1)
        if self.compare == SAME_DAYS and self.range == LAST_MONTH:
            return f"{first:%B %Y}"
        if self.compare == SAME_DAYS and self.range == MONTH:
            return f"the same days of {first:%B}"
        if self.compare == SAME_DAYS and self.range == QUARTER:
            return "the same days of the quarter before"
        if self.compare == BEFORE and self.range in _ROLLING:
            return f"the {_ROLLING[self.range]} days before"
        return _days(first, last)

    def pairs(self) -> dict[str, str]:
        """Members of the address, without those at their default."""
        found: dict[str, str] = {}
        if self.range == CUSTOM:
            found["from"] = self.span.start.date().isoformat()
            found["to"] = (self.span.end - timedelta(days=1)).date().isoformat()
        elif self.range != MONTH:
            found["range"] = self.range
        if self.compare != default_comparison(self.range):
            found["compare"] = self.compare
        if self.by != PROJECT:
            found["by"] = self.by
        if self.movers != BY_MONEY:
            found["movers"] = self.movers
        for name in ("project", "key", "route", "model", "feature", "cost_centre"):
            if value := getattr(self, name):
                found[name] = str(value)
        return found

    def query(self, **changes: object) -> str:
        """The address's query with ``changes``; None removes a member. Empty, or begins with ``?``."""
        found = {**self.pairs(), **changes}
        if "range" in changes:
            found.pop("from", None)
            found.pop("to", None)
            # A comparison that was chosen for one range may not be what another one is for.
            found.pop("compare", None)
        text = urlencode({name: str(value) for name, value in found.items() if value not in (None, "")})
        return f"?{text}" if text else "?"

    def chosen(self) -> list[str]:
        """Names of the filters that narrow, apart from time."""
        names = ("project", "key", "route", "model", "feature", "cost_centre")
        return [name for name in names if getattr(self, name)]

    def narrowed(self) -> bool:
        return bool(self.chosen())


def default_comparison(range_name: str) -> str:
    return SAME_DAYS if range_name in (MONTH, LAST_MONTH, QUARTER) else BEFORE


def parse(given: Mapping[str, str], *, now: datetime) -> SpendQuery:
    problems: list[str] = []
    found: dict[str, Any] = {}
    name, span, whole = _span(given, now, problems)
    compare = given.get("compare", "") or default_comparison(name)
    if compare not in COMPARISONS:
        problems.append(f"compare: {compare[:20]!r} is not one of {', '.join(COMPARISONS)}.")
        compare = default_comparison(name)
    for member, choices, default in (("by", GROUPS, PROJECT), ("movers", (BY_MONEY, BY_PERCENT), BY_MONEY)):
        value = given.get(member, "") or default
        if value not in choices:
            problems.append(f"{member}: {value[:20]!r} is not one of {', '.join(choices)}.")
            value = default
        found[member] = value
    for member in ("project", "key"):
        if text := given.get(member, "").strip():
            try:
                found[member] = UUID(text)
            except ValueError:
                problems.append(f"{member}: {text[:40]!r} is not an id; choose one from the list.")
    for member, longest in TEXTS.items():
        text = given.get(member, "").strip()
        if "\x00" in text or len(text) > max(longest, len(NONE_GIVEN)):
            problems.append(f"{member}: at most {longest} plain characters.")
        elif text:
            found[member] = text
    if found["by"] in ATTRIBUTED:
        for member in ("key", "route", "model", "feature"):
            if found.pop(member, None):
                problems.append(
                    f"{member}: figures by {GROUPS[found['by']].lower()} are kept by project alone."
                )
    return SpendQuery(
        range=name,
        span=span,
        whole=whole,
        before=_before(name, span, compare, now),
        now=now,
        compare=compare,
        problems=tuple(problems),
        **found,
    )


def with_span(query: SpendQuery, span: Span) -> SpendQuery:
    """The same for another time, as when a schedule's turn comes."""
    return replace(
        query, range=CUSTOM, span=span, whole=None, before=_before(CUSTOM, span, BEFORE, query.now)
    )


def _span(given: Mapping[str, str], now: datetime, problems: list[str]) -> tuple[str, Span, Span | None]:
    today = midnight(now)
    tomorrow = today + timedelta(days=1)
    if given.get("from") or given.get("to"):
        span = _custom(given, today, problems)
        if span is not None:
            return CUSTOM, span, None
    name = given.get("range", "") or MONTH
    if name not in RANGES:
        if name != CUSTOM:
            problems.append(f"range: {name[:20]!r} is not one of {', '.join(RANGES)}.")
        name = MONTH
    if name in _ROLLING:
        return name, Span(tomorrow - timedelta(days=_ROLLING[name]), tomorrow), None
    this_month = today.replace(day=1)
    if name == LAST_MONTH:
        span = Span(_months_later(this_month, -1), this_month)
        return name, span, span
    if name == QUARTER:
        first = today.replace(month=3 * ((today.month - 1) // 3) + 1, day=1)
        return name, Span(first, tomorrow), Span(first, _months_later(first, 3))
    return name, Span(this_month, tomorrow), Span(this_month, _months_later(this_month, 1))


def _custom(given: Mapping[str, str], today: datetime, problems: list[str]) -> Span | None:
    days: dict[str, datetime] = {}
    for name in ("from", "to"):
        text = given.get(name, "").strip()
        if not text:
            continue
        try:
            day = date.fromisoformat(text[:10])
            at = datetime(day.year, day.month, day.day, tzinfo=UTC)
        except ValueError:
            problems.append(f"{name}: {text[:40]!r} is not a day such as 2026-11-21.")
            return None
        if not EARLIEST <= at <= today + timedelta(days=LONGEST_DAYS):
            problems.append(f"{name}: {text[:40]!r} lies outside of what can be shown.")
            return None
        days[name] = at
    last = days.get("to", today)
    first = days.get("from", last.replace(day=1))
    if first > last:
        problems.append("from: the first day must not lie after the last.")
        return None
    if (last - first).days >= LONGEST_DAYS:
        problems.append(f"from: at most {LONGEST_DAYS} days can be shown at once.")
        return None
    return Span(first, last + timedelta(days=1))


def _before(name: str, span: Span, compare: str, now: datetime) -> Span | None:
    if compare == NOTHING:
        return None
    # Of a day that is not over only the hours until now are compared.
    until = min(span.end, now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1))
    elapsed = until - span.start
    if elapsed <= timedelta():
        return None
    if compare == BEFORE:
        start = span.start - (span.end - span.start)
        return Span(start, min(start + elapsed, span.start))
    start = _months_later(span.start, -3 if name == QUARTER else -1)
    if name == LAST_MONTH:
        return Span(start, span.start)
    return Span(start, min(start + elapsed, span.start) if name != CUSTOM else start + elapsed)


def _months_later(day: datetime, months: int) -> datetime:
    index = day.year * 12 + day.month - 1 + months
    first = datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)
    following = (first + timedelta(days=32)).replace(day=1)
    return min(first + timedelta(days=day.day - 1), following - timedelta(days=1))


def _days(first: datetime, last: datetime) -> str:
    if first.date() == last.date():
        return f"the day of {first.day} {first:%B %Y}"
    start = f"{first.day} {first:%B}" if first.year == last.year else f"{first.day} {first:%B %Y}"
    return f"the days from {start} to {last.day} {last:%B %Y}"


def _ordinal(number: int) -> str:
    return ("first", "second", "third", "fourth")[number - 1]
