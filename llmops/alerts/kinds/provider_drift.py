"""The ledger and a provider's own figures differ."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind, Setting
from llmops.core.money import format_usd
from llmops.usage.models import DriftAlert


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    since = figures.now - timedelta(hours=asked.settings["hours"])
    found: dict[str, list[DriftAlert]] = {}
    for alert in DriftAlert.objects.filter(raised_at__gte=since)[:500]:
        found.setdefault(alert.provider, []).append(alert)
    for provider, alerts in sorted(found.items()):
        first = alerts[0]
        yield Finding(
            subject=f"provider:{provider}",
            title=f"The ledger and a provider differ: {provider}",
            says=f"{len(alerts)} figures are more than 1 % apart; the latest: {first.what} of {first.model or 'all models'} on "
            f"{first.day}, {_shown(first.what, first.ledger)} here and {_shown(first.what, first.stated)} there.",
            value=float(len(alerts)),
            bound=1.0,
            facts={"page": "dashboards:reconciliation"},
        )


def _shown(what: str, value: int) -> str:
    return f"{value:,}" if what == DriftAlert.TOKENS else f"${format_usd(value)}"


KIND = Kind(
    name="provider_drift",
    title="The ledger and a provider differ",
    says="Figures that were more than 1 % apart when a provider's export was taken over.",
    look=_look,
    runbook="provider-drift",
    settings=(Setting("hours", "Told for", 24, "h", 1, 24 * 31),),
    every_s=60,
)
