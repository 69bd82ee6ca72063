"""The ledger was held against the provider's figures within a month."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from llmops.readiness.finding import COST, Check, Finding, lacking, met
from llmops.usage.models import ProviderImport


def look() -> Finding:
    last = ProviderImport.objects.order_by("-imported_at").first()
    if last is None:
        return lacking("It never was.")
    said = f"Last on {last.imported_at:%Y-%m-%d}, for {last.provider}."
    return met(said) if last.imported_at > timezone.now() - timedelta(days=35) else lacking(said)


CHECK = Check(
    "spend-reconciled",
    COST,
    "The ledger was held against the provider's figures within a month",
    fix="Import the provider's usage on the Reconciliation page, or have it fetched every day.",
    link="dashboards:reconciliation",
    look=look,
)
