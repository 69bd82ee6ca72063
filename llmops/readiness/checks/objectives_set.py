"""It is said how well calls have to do."""

from __future__ import annotations

from llmops.alerts.models import Slo
from llmops.readiness.finding import MONITORING, Check, Finding, lacking, listed, met


def look() -> Finding:
    slos = list(Slo.objects.filter(archived_at=None).order_by("slug").values_list("slug", flat=True))
    return met(f"{listed(slos)}.") if slos else lacking("No SLO is set.")


CHECK = Check(
    "objectives-set",
    MONITORING,
    "It is said how well calls have to do",
    fix="Set an SLO for the routes that people wait for, so that a budget of errors can be spent and is watched.",
    link="alerts.slo",
    look=look,
)
