"""Unit economics: what a feature costs beside what its calls brought, as services told it."""

from __future__ import annotations

from llmops.dashboards import formats
from llmops.dashboards.filters import NONE_GIVEN
from llmops.dashboards.spend.links import Links
from llmops.dashboards.spend.query import SpendQuery
from llmops.dashboards.spend.shapes import Amount, Unit
from llmops.usage.selectors import Span, SpendFilters, spend_by
from llmops.usage.selectors.outcomes import outcomes_by

_MOST = 40
_CENT = 10**7


def of_features(query: SpendQuery, filters: SpendFilters, links: Links) -> list[Unit]:
    """A line for each kind of outcome of each feature that has any; the dearest feature first. One query without outcomes.

    All that a feature cost is set against each kind alone: a call may be resolved and have a thumb up as well.
    """
    brought = outcomes_by("feature", query.span, filters)
    if not brought:
        return []
    groups = spend_by("feature", Span(*query.span.days), filters).groups
    lines = [
        (group, one, group.sums.cost_nano // one.count)
        for group in groups
        for one in brought.get(group.value, [])
    ]
    places = formats.places_for(max((each for _, _, each in lines), default=0))
    spend_places = formats.places_for(max((group.sums.cost_nano for group, _, _ in lines), default=0))
    values = [one.value_nano for _, one, _ in lines]
    # Told in whole cents, as prices of things mostly are, they are shown so.
    value_places = formats.places_for(max(values, default=0)) if any(value % _CENT for value in values) else 2
    found, before = [], None
    for group, one, each in lines[:_MOST]:
        cost = group.sums.cost_nano
        found.append(
            Unit(
                name=group.name or "Without a feature",
                href=links.calls(Span(*query.span.days), feature=group.value or NONE_GIVEN),
                first=group is not before,
                spend=Amount(
                    formats.usd_places(formats.rounded(cost, spend_places), spend_places),
                    formats.usd_exact(cost),
                ),
                kind=one.kind.replace("_", "\u00a0"),
                outcomes=formats.count(one.count),
                outcomes_href=links.calls(
                    Span(*query.span.days), feature=group.value or NONE_GIVEN, brought=one.kind
                ),
                served=formats.count(group.sums.served),
                rate=formats.percent(one.count, group.sums.served),
                cost_each=Amount(formats.usd_places(each, places), formats.usd_exact(each)),
                value=formats.usd_places(one.value_nano, value_places) if one.value_nano else "",
                returned=_times(one.value_nano, cost),
            )
        )
        before = group
    return found


def _times(value: int, cost: int) -> str:
    """How many dollars came back for each that was spent."""
    if not value or not cost:
        return ""
    ratio = value / cost
    return f"×\u2009{ratio:,.0f}".replace(",", "\u2009") if ratio >= 100 else f"×\u2009{ratio:.1f}"
