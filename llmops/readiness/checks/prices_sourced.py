"""Prices say where they were read."""

from __future__ import annotations

from llmops.providers.models import Price
from llmops.readiness.facts import models_in_use
from llmops.readiness.finding import COST, Check, Finding, every


def look() -> Finding:
    prices = Price.objects.filter(model__slug__in=models_in_use())
    slugs = sorted(set(prices.values_list("model__slug", flat=True)))
    bare = sorted(set(prices.filter(source="").values_list("model__slug", flat=True)))
    return every(slugs, bare, "priced models", "have prices without a source")


CHECK = Check(
    "prices-sourced",
    COST,
    "Prices say where they were read",
    fix="Add the price again with its source: where it was read, and when.",
    link="providers.price",
    look=look,
)
