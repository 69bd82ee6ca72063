"""What the Reconciliation page shows, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from urllib.parse import urlencode

from django.db.models import Sum
from django.urls import reverse

from llmops.dashboards import formats
from llmops.dashboards.filters import stamp
from llmops.usage.models import Call, DriftAlert, ProviderImport, Rollup
from llmops.usage.selectors.reconciliation import BOUND_PERCENT, Drift, drifts, percent
from llmops.usage.services import alert_in_words

#: Rows and alerts that one page shows.
MOST_ROWS, MOST_ALERTS, MOST_IMPORTS = 400, 12, 12


@dataclass(frozen=True, slots=True)
class Row:
    """A drift as the page shows it; ``calls_url`` leads to the ledger's calls behind it, ``waits`` says that its day was
    not over when it was imported."""

    drift: Drift
    model: str
    calls_url: str
    waits: bool
    tokens: str
    cost: str
    tokens_off: bool
    cost_off: bool
    #: calls of it that are charged at what they held, because nobody knows what they cost
    unknown: int = 0
    unknown_url: str = ""


@dataclass(slots=True)
class View:
    provider: str
    first: date
    last: date
    rows: list[Row] = field(default_factory=list)
    hidden: int = 0
    days: int = 0
    #: figures (tokens or money of a model on a day) that are judged, and how many of them drift
    figures: int = 0
    off: int = 0
    judged_days: int = 0
    #: days that were not over when they were imported
    open_days: list[date] = field(default_factory=list)
    today: date | None = None
    stated_nano: int | None = None
    ledger_nano: int = 0
    stated_tokens: int | None = None
    ledger_tokens: int = 0
    alerts: list[str] = field(default_factory=list)
    more_alerts: int = 0
    imports: Sequence[ProviderImport] = ()
    simulated: str = ""

    @property
    def cost_drift(self) -> str:
        return signed(percent(self.ledger_nano, self.stated_nano))

    @property
    def token_drift(self) -> str:
        return signed(percent(self.ledger_tokens, self.stated_tokens))

    @property
    def headline(self) -> str:
        if not self.days:
            return "Nothing to compare yet"
        if not self.judged_days:
            return self.waiting
        days = f"{self.judged_days} day{'s' if self.judged_days != 1 else ''}"
        if self.off:
            differ = "figure differs" if self.figures == 1 else "figures differ"
            return f"{self.off} of {self.figures} {differ} by more than 1 % over {days}"
        return f"The ledger and {self.provider} agree within 1 % over {days}"

    @property
    def waiting(self) -> str:
        """Why days are shown and not judged; empty if none is."""
        told = []
        for day in self.open_days:
            if self.today is not None and day >= self.today:
                told.append(f"{day} is not over: not judged yet")
            else:
                told.append(f"{day} was not over when it was imported: not judged, import that day again")
        return "; ".join(told)


def build(provider: str, first: date, last: date, *, today: date, only_off: bool) -> View:
    view = View(provider, first, last, today=today)
    found = drifts(provider, first, last) if provider else []
    view.days = len({drift.day for drift in found})
    view.judged_days = len({drift.day for drift in found if drift.judged})
    view.figures = sum(len(drift.judged) for drift in found)
    view.off = sum(drift.drifting for drift in found)
    view.open_days = sorted({drift.day for drift in found if _waits(drift)})
    for drift in found:
        # A day that goes on would blur what the others add up to.
        if drift.stated_nano is not None and not (drift.cost_open and view.judged_days):
            view.stated_nano = (view.stated_nano or 0) + drift.stated_nano
            view.ledger_nano += drift.ledger_nano
        if drift.stated_tokens is not None and not (drift.tokens_open and view.judged_days):
            view.stated_tokens = (view.stated_tokens or 0) + drift.stated_tokens
            view.ledger_tokens += drift.ledger_tokens
    shown = [drift for drift in reversed(found) if drift.drifts or not only_off]
    unknown = _unknown(first, last) if view.off else {}
    view.rows = [_row(drift, unknown) for drift in shown[:MOST_ROWS]]
    view.hidden = max(0, len(shown) - MOST_ROWS)
    view.imports = list(ProviderImport.objects.filter(provider=provider)[:MOST_IMPORTS])
    newest = view.imports[0].pk if view.imports else None
    alerts = list(
        DriftAlert.objects.filter(statement_id=newest).order_by("day", "model", "what")[: MOST_ALERTS + 1]
    )
    view.alerts = [alert_in_words(alert) for alert in alerts[:MOST_ALERTS]]
    view.more_alerts = (
        DriftAlert.objects.filter(statement_id=newest).count() - len(view.alerts) if alerts else 0
    )
    return view


def signed(value: float | None) -> str:
    if value is None:
        return formats.NONE
    return "0 %" if abs(value) < 0.005 else f"{value:+.2f} %"


def _unknown(first: date, last: date) -> dict[tuple[date, str], int]:
    """(day, slug of a model) -> calls whose process died before their outcome was written down."""
    start = datetime.combine(first, time(), tzinfo=UTC)
    end = datetime.combine(last, time(), tzinfo=UTC) + timedelta(days=1)
    rows = Rollup.objects.filter(
        granularity=Rollup.DAY, bucket__gte=start, bucket__lt=end, status=Call.UNKNOWN
    ).order_by()
    return {
        (bucket.astimezone(UTC).date(), model): calls
        for bucket, model, calls in rows.values_list("bucket", "model").annotate(Sum("calls"))
    }


def _row(drift: Drift, unknown: Mapping[tuple[date, str], int]) -> Row:
    start = datetime.combine(drift.day, time(), tzinfo=UTC)
    query = {"from": stamp(start), "to": stamp(start + timedelta(days=1))}
    if len(drift.slugs) == 1:
        query["model"] = drift.slugs[0]
    lost = sum(unknown.get((drift.day, slug), 0) for slug in drift.slugs) if drift.drifts else 0
    at = reverse("dashboards:calls")
    return Row(
        drift=drift,
        model=drift.model or "all models",
        waits=_waits(drift),
        calls_url=f"{at}?{urlencode(query)}" if drift.calls else "",
        tokens=signed(drift.token_percent),
        cost=signed(drift.cost_percent),
        tokens_off=not drift.tokens_open and _off(drift.token_percent),
        cost_off=not drift.cost_open and _off(drift.cost_percent),
        unknown=lost,
        unknown_url=f"{at}?{urlencode({**query, 'status': Call.UNKNOWN})}" if lost else "",
    )


def _waits(drift: Drift) -> bool:
    return (drift.tokens_open and drift.stated_tokens is not None) or (
        drift.cost_open and drift.stated_nano is not None
    )


def _off(value: float | None) -> bool:
    return value is not None and abs(value) > BOUND_PERCENT
