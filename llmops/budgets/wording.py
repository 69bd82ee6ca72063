"""What people are told about budgets, in words."""

from __future__ import annotations

from llmops.budgets.models import ThresholdCrossing
from llmops.budgets.selectors import Gauge, scope_text
from llmops.core.money import format_usd


def used_up_text(gauge: Gauge) -> str:
    """What happens to calls of a budget that is used up, and until when, in UTC; empty for any other."""
    if not gauge.used_up:
        return ""
    until = f"{gauge.resets_at:%Y-%m-%d %H:%M} UTC" if gauge.resets_at else "its limit is raised"
    if gauge.at_limit_route:
        return f"used up: calls go to the route {gauge.at_limit_route}, or are refused, until {until}"
    return f"used up: calls are refused until {until}"


def crossing_mail(crossing: ThresholdCrossing, console_url: str) -> tuple[str, str]:
    """``(subject, text)`` of the e-mail that tells of a crossing."""
    window = crossing.window
    budget = window.budget
    resets = (
        f"The period ends on {window.ends_at:%d %B %Y at %H:%M} UTC."
        if window.ends_at
        else "It does not reset."
    )
    if not budget.hard:
        follows = "It is a soft budget: calls go on beyond its limit."
    elif budget.at_limit_route:
        follows = f"Calls that no longer fit are served by the route {budget.at_limit_route}, as long as they fit there."
    else:
        follows = "It is a hard budget: calls that do not fit into what is left are refused."
    happened = f"has reached {crossing.percent} % of its limit."
    subject = f"Budget {budget.slug}: {crossing.percent} % spent"
    if crossing.refusing:
        happened = "has refused a call, because too little of its limit is left."
        subject = f"Budget {budget.slug}: calls are refused"
    lines = [
        f"The budget {budget.slug} ({scope_text(budget)}) {happened}",
        "",
        f"Spent:  ${format_usd(crossing.settled_nano)} of ${format_usd(crossing.limit_nano)}",
        f"When:   {crossing.crossed_at:%d %B %Y at %H:%M} UTC",
        f"Period: from {window.starts_at:%d %B %Y at %H:%M} UTC"
        if window.ends_at
        else "Period: once, for good",
        "",
        f"{follows} {resets}",
        "",
        f"{console_url}/admin/budgets/budget/{budget.pk}/change/",
    ]
    return subject, "\n".join(lines) + "\n"
