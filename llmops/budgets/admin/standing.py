"""Where a budget stands, above its form: a bar, when it starts anew, and what one can do once it is used up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llmops.budgets.admin.leads import calls_of
from llmops.budgets.models import Budget
from llmops.budgets.selectors import Gauge, current_window, gauges_of, open_raises
from llmops.core.money import NANO, format_usd
from llmops.core.shares import share_text

#: From this share on it is worth a look.
_NEARLY = 80


@dataclass(frozen=True, slots=True)
class Standing:
    """Widths are thousandths of the bar; moments are elements that the browser puts into the viewer's zone."""

    word: str
    share: str
    tone: str
    amounts: str
    percent: int
    settled_width: int
    held_width: int
    hard: bool
    #: without raises, and without what was carried over
    limit: str
    raised: list[tuple[str, SafeString]]
    resets_at: SafeString | str
    refused_at: SafeString | str
    refusals: SafeString | str
    advice: str


def standing_of(budget: Budget, holds: Callable[[str], bool]) -> Standing:
    """``holds`` tells whether whoever looks has a permission on the budget."""
    now = timezone.now()
    gauge = gauges_of([budget], now)[budget.pk]
    window = current_window(budget, now) if gauge.used_up else None
    limit = gauge.limit_nano
    settled = min(1000, 1000 * gauge.settled_nano // limit) if limit else 1000
    percent = 100 if gauge.percent is None else gauge.percent
    return Standing(
        word=_word(gauge),
        share=share_text(gauge.used_nano, limit) if limit else "no money",
        tone="bad" if gauge.used_up else "warn" if percent >= _NEARLY else "",
        amounts=f"${usd_text(gauge.settled_nano)} settled and ${usd_text(gauge.held_nano)} held of ${usd_text(limit)}",
        percent=min(100, percent),
        settled_width=settled,
        held_width=min(1000 - settled, 1000 * gauge.held_nano // limit) if limit else 0,
        hard=budget.hard,
        limit=f"${usd_text(budget.limit_nano)}",
        raised=[(f"${usd_text(most)}", moment(until)) for most, until in _raised(budget, now)],
        resets_at=moment(gauge.resets_at) if gauge.resets_at else "",
        refused_at=moment(gauge.refused_at) if gauge.used_up and gauge.refused_at else "",
        refusals=calls_of(window, "Show refused calls", refused=True) if window else "",
        advice=_advice(budget, holds) if gauge.used_up else "",
    )


def _word(gauge: Gauge) -> str:
    if not gauge.used_up:
        return "Used or held"
    if gauge.at_limit_route:
        return f"Used up: calls go to the route {gauge.at_limit_route}, or are refused"
    return "Used up: calls are refused"


def _advice(budget: Budget, holds: Callable[[str], bool]) -> str:
    """What whoever looks can do, so that calls are answered again before the next period."""
    if budget.archived_at is not None:
        return ""
    may_raise, may_ask = holds("budget.manage"), holds("budget.request")
    asking = "Ask for a raise: it holds for a while, and once another person has approved it."
    if may_raise and not budget.second_person:
        return "Raise the limit below: it works at once, for the present period too."
    if may_ask and budget.second_person:
        return f"A higher limit takes a second person. {asking} For good: Ask to loosen."
    if may_ask:
        return asking
    where = f"in the project {budget.project.slug}" if budget.project else "of the whole organisation"
    return f"Ask somebody who manages budgets {where} for a higher limit."


def _raised(budget: Budget, now: datetime) -> list[tuple[int, datetime]]:
    """``(limit, until)`` for as long as raises are in force: as they end one by one, without what was carried over."""
    inside = [one for one in open_raises([budget]).get(budget.pk, ()) if one.starts_at <= now]
    ends = sorted({one.ends_at for one in inside})
    return [
        (budget.limit_nano + sum(one.amount_nano for one in inside if one.ends_at >= end), end)
        for end in ends
    ]


def moment(at: datetime) -> SafeString:
    """A moment that the browser turns into the viewer's zone, and names it."""
    return format_html(
        '<time datetime="{}" data-as="moment">{} UTC</time>',
        at.isoformat(),
        f"{at.astimezone(UTC):%d %b %Y %H:%M}",
    )


def gauge_text(settled: int, held: int, limit: int) -> str:
    """Such as ``12.50 + 0.75 of 50.00 (26.5 %)``."""
    percent = f" ({share_text(settled + held, limit)})" if limit else ""
    return f"{usd_text(settled)} + {usd_text(held)} of {usd_text(limit)}{percent}"


def usd_text(nano: int) -> str:
    """To the cent, or to a millionth where it is less than a dollar; what is exact stands in titles and exports."""
    return format_usd(nano, places=2) if abs(nano) >= NANO else format_usd(round(nano, -3))
