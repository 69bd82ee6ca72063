"""Every model in use has a price."""

from __future__ import annotations

from llmops.providers.models import Price
from llmops.readiness.facts import models_in_use
from llmops.readiness.finding import COST, Check, Finding, every


def look() -> Finding:
    slugs = models_in_use()
    priced = set(Price.objects.filter(model__slug__in=slugs).values_list("model__slug", flat=True))
    return every(slugs, [slug for slug in slugs if slug not in priced], "models in use", "have no price")


CHECK = Check(
    "models-priced",
    COST,
    "Every model in use has a price",
    fix="Add a price on the model's page.",
    link="providers.price",
    look=look,
)
