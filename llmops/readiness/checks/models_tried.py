"""Every model in use has answered."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from llmops.providers.models import ModelTrial
from llmops.readiness.facts import models_in_use
from llmops.readiness.finding import TESTING, Check, Finding, every
from llmops.usage.models import Rollup


def look() -> Finding:
    slugs = models_in_use()
    since = timezone.now() - timedelta(days=30)
    called = set(
        Rollup.objects.filter(granularity=86_400, bucket__gte=since, status="ok", model__in=slugs)
        .values_list("model", flat=True)
        .distinct()
    )
    called |= set(
        ModelTrial.objects.filter(state=ModelTrial.ANSWERED, model__slug__in=slugs).values_list(
            "model__slug", flat=True
        )
    )
    return every(
        slugs,
        [slug for slug in slugs if slug not in called],
        "models in use",
        "answered nothing within a month",
    )


CHECK = Check(
    "models-tried",
    TESTING,
    "Every model in use has answered",
    fix="Press Test on the model's page, or call it.",
    link="providers.model",
    look=look,
)
