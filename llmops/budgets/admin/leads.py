"""Where a budget's page leads to: the calls of a period, all or those that were refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llmops.budgets.models import Window
from llmops.budgets.scopes import FEATURE, KEY, ROUTE, TAG, USER

#: The Calls list shows at most about so much at once.
_LONGEST = timedelta(days=399)
_MEMBERS = {KEY: "key", FEATURE: "feature", ROUTE: "route", TAG: "tag"}


def calls_of(window: Window, text: str, *, refused: bool = False) -> SafeString | str:
    """``text`` as a link to the calls within the budget's scope that began in the window (with ``refused`` to those that a
    budget refused); plain where the list cannot be narrowed to the scope: calls keep no end users, but digests of them."""
    budget = window.budget
    if budget.scope_kind == USER:
        return text
    end = min(window.ends_at, timezone.now()) if window.ends_at else timezone.now()
    # To the end of the minute: a call that is just booked belongs to it, too.
    end = end.replace(second=0, microsecond=0) + timedelta(minutes=1)
    if window.ends_at:
        end = min(end, window.ends_at)
    members = {"from": _stamp(max(window.starts_at, end - _LONGEST)), "to": _stamp(end)}
    if budget.project_id:
        members["project"] = str(budget.project_id)
    if budget.scope_kind in _MEMBERS:
        members[_MEMBERS[budget.scope_kind]] = budget.scope_value
    if refused:
        members |= {"status": "refused", "error": "insufficient_quota"}
    return format_html(
        '<a class="underline" href="{}?{}">{}</a>', reverse("dashboards:calls"), urlencode(members), text
    )


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
