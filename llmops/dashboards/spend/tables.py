"""The breakdown and the days of the Spend page, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from llmops.dashboards import formats
from llmops.dashboards.spend.links import Links
from llmops.dashboards.spend.query import SpendQuery, one_of
from llmops.dashboards.spend.shapes import Amount, DayRow, Row, View
from llmops.usage.forecast import LEVEL, Forecast
from llmops.usage.selectors import Group, Span, Spend, Sums
from llmops.usage.selectors.spend import ATTRIBUTED, TAG, USER, midnight

_DAY = timedelta(days=1)
#: How a call is said to have one of what only some carry, and the header in which services say it.
_CARRIED = {USER: ("named an end user", "x-llmops-user"), TAG: ("carried a tag", "x-llmops-tags")}
#: Rows of the breakdown; the rest are added up in one line.
MOST_ROWS = 100


def breakdown(
    view: View, query: SpendQuery, now: Spend, before: Spend | None, links: Links, names: Mapping[UUID, str]
) -> None:
    listed = now.groups if query.by == "day" else now.groups[:MOST_ROWS]
    rest = now.total.less(Sums())
    for group in listed:
        rest = rest.less(group.sums)
    total = now.total
    places = formats.places_for(total.cost_nano)
    several = query.by == TAG
    amounts = [group.sums.cost_nano for group in listed]
    shown = (
        formats.apportioned(amounts, places)
        if several
        else formats.apportioned([*amounts, rest.cost_nano], places)
    )
    per_call_places = formats.places_for(max((group.sums.per_call_nano or 0 for group in listed), default=0))
    per_thousand_places = formats.places_for(
        max((group.sums.per_thousand_tokens_nano or 0 for group in listed), default=0)
    )
    saved_places = formats.places_for(max(total.saved_nano, 0))
    most = max((abs(amount) for amount in amounts), default=0)
    earlier = {(group.project_id, group.value): group.sums for group in before.groups} if before else {}

    def row(name: str, note: str, sums: Sums, cost: int, was: Sums | None, href: str, into: str) -> Row:
        change, direction = formats.change(sums.cost_nano, was.cost_nano if was else None)
        if before is not None and sums.cost_nano and not (was and was.cost_nano):
            change, direction = "new", "flat"
        return Row(
            name=name,
            note=note,
            href=href,
            into=into,
            spend=Amount(formats.usd_places(cost, places), formats.usd_exact(sums.cost_nano)),
            share=formats.percent(sums.cost_nano, total.cost_nano),
            width=max(2, 1000 * sums.cost_nano // most) if most and sums.cost_nano > 0 else 0,
            change=change,
            change_tone={"up": "poor", "down": "good"}.get(direction, ""),
            calls=formats.count(sums.calls),
            refused=formats.count(sums.refused) if sums.refused else "",
            per_call=formats.usd_places(sums.per_call_nano, per_call_places),
            per_thousand=formats.usd_places(sums.per_thousand_tokens_nano, per_thousand_places),
            tokens=formats.short_count(sums.tokens),
            saved=formats.usd_places(sums.saved_nano, saved_places) if sums.saved_nano else "",
        )

    for group, cost in zip(listed, shown, strict=False):
        was = earlier.get((group.project_id, group.value))
        owner = names.get(group.project_id, "") if group.project_id and query.by in ATTRIBUTED else ""
        view.rows.append(
            row(
                _name(group, query),
                owner,
                group.sums,
                cost,
                was,
                links.of_group(group),
                links.into(group),
            )
        )
    if not several and (rest.calls or rest.cost_nano):
        words, href = _rest_words(query, now, len(listed), links)
        view.rest = row(words, "", rest, shown[-1], None, href, "")
        view.rest = _without_change(view.rest)
    view.total = row(
        "All calls" if not query.narrowed() else "All of these calls",
        "",
        total,
        formats.rounded(total.cost_nano, places),
        before.total if before else None,
        links.calls(Span(*query.span.days)) if query.by in ATTRIBUTED else links.calls(),
        "",
    )
    if not view.rows:
        view.nothing = _nothing(query, total)
    if several:
        view.note = (
            "A call with several tags counts under each of them, and one without a tag under none, so this column does not "
            "add up to all calls."
        )
    elif query.by in ATTRIBUTED:
        view.note = (
            "End users are shown as the digests under which calls keep them; they are counted by whole days."
        )


def days(
    view: View,
    query: SpendQuery,
    now: Mapping[date, Sums],
    before: Mapping[date, Sums],
    outlook: Forecast | None,
    links: Links,
) -> None:
    """The table behind both charts, and what they draw."""
    start, end = query.span.days
    whole_end = query.whole.end if query.whole and outlook else end
    dates = [(start + number * _DAY).date() for number in range((whole_end - start).days)]
    before_dates = _dates_of(query.before)
    today = midnight(query.now).date()
    places = formats.places_for(max((sums.cost_nano for sums in now.values()), default=0))
    known = [day for day in dates if day < end.date() and day <= today]
    shown = dict(
        zip(
            known,
            formats.apportioned([now.get(day, Sums()).cost_nano for day in known], places),
            strict=True,
        )
    )
    so_far, so_far_before = 0, 0
    course: list[int | None] = []
    course_before: list[int | None] = []
    was: list[int | None] = []
    for index, day in enumerate(dates):
        past = before_dates[index] if index < len(before_dates) else None
        cost_before = before.get(past, Sums()).cost_nano if past else None
        was.append(cost_before)
        so_far_before += cost_before or 0
        course_before.append(so_far_before if past else None)
        if day not in shown:
            course.append(None)
            continue
        sums = now.get(day, Sums())
        so_far += sums.cost_nano
        course.append(so_far)
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
        view.days.append(
            DayRow(
                day=f"{day:%a} {day.day} {day:%b}" + (", so far" if day == today and query.open else ""),
                href=links.calls(Span(moment, moment + _DAY)),
                spend=Amount(formats.usd_places(shown[day], places), formats.usd_exact(sums.cost_nano)),
                calls=formats.count(sums.calls),
                before=formats.usd_places(cost_before, places),
                so_far=formats.usd_places(so_far, places),
            )
        )
    view.days.reverse()
    low, likely, high = _band(dates, today, so_far, outlook)
    view.chart_data = {
        "days": [day.isoformat() for day in dates],
        "spend": [now.get(day, Sums()).cost_nano if day in shown else None for day in dates],
        "before": was,
        "course": course,
        "courseBefore": course_before,
        "low": low,
        "likely": likely,
        "high": high,
        "href": links.calls(),
        "beforeLabel": query.before_words,
    }
    dearest = max(now.items(), key=lambda item: item[1].cost_nano, default=None)
    view.days_spoken = f"Bar chart of spend per day in {query.words}" + (
        f": most on {dearest[0].day} {dearest[0]:%B}, {formats.usd(dearest[1].cost_nano)}."
        if dearest
        else "."
    )
    view.course_spoken = f"Line chart of spend added up over {query.words}: {formats.usd(so_far)} so far"
    if outlook is not None and query.whole is not None:
        last = query.whole.end - _DAY
        view.forecast_words = (
            f"{formats.usd(outlook.expected_nano)} by {last.day} {last:%B}, and with {LEVEL}\u2009% likelihood "
            f"between {formats.usd(outlook.low_nano)} and {formats.usd(outlook.high_nano)}, if the days to come are like the "
            f"{outlook.days} complete days behind: their mean by working day and weekend, and how far they scatter. It knows "
            "nothing of launches, price changes or holidays ahead."
        )
        view.course_spoken += f", forecast {formats.usd(outlook.expected_nano)}"
    view.course_spoken += "."


def _name(group: Group, query: SpendQuery) -> str:
    if query.by == "day" and group.value:
        day = date.fromisoformat(group.value)
        return f"{day:%a} {day.day} {day:%b %Y}"
    return group.name or f"Without {one_of(query.by)}"


def _nothing(query: SpendQuery, total: Sums) -> str:
    """Why the breakdown has no row, and what to do."""
    if query.by in ATTRIBUTED and total.calls:
        carried, header = _CARRIED[query.by]
        return (
            f"No call {carried} in {query.words}{' in what you chose' if query.narrowed() else ''}: "
            f"{formats.usd(total.cost_nano)} was spent without. Services say it of their calls in the header {header}."
        )
    if query.narrowed():
        return f"Nothing was spent in {query.words} on what you chose. Choose other days or clear a filter."
    return f"Nothing was spent in {query.words}. Choose other days."


def _rest_words(query: SpendQuery, now: Spend, listed: int, links: Links) -> tuple[str, str]:
    if query.by in ATTRIBUTED:
        if now.more:
            return f"Beyond the first {listed}, and without {one_of(query.by)}", ""
        return f"Without {one_of(query.by)}", links.without(query.by)
    return f"{formats.count(len(now.groups) - listed)} others", ""


def _without_change(row: Row) -> Row:
    return Row(**{name: getattr(row, name) for name in Row.__slots__} | {"change": "", "change_tone": ""})


def _dates_of(span: Span | None) -> list[date]:
    if span is None:
        return []
    first, last = span.days
    return [(first + number * _DAY).date() for number in range((last - first).days)]


def _band(
    dates: list[date], today: date, so_far: int, outlook: Forecast | None
) -> tuple[list[int | None], list[int | None], list[int | None]]:
    """From what is spent today in straight lines to the ends of the range."""
    if outlook is None:
        return [], [], []
    ahead = sum(1 for day in dates if day > today) or 1
    lines: tuple[list[int | None], ...] = ([], [], [])
    step = 0
    for day in dates:
        if day > today:
            step += 1
        for line, end in zip(
            lines, (outlook.low_nano, outlook.expected_nano, outlook.high_nano), strict=True
        ):
            line.append(None if day < today else so_far + (end - so_far) * step // ahead)
    return lines[0], lines[1], lines[2]
