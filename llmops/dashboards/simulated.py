"""Which answers come from a simulated provider, so that nobody takes them for a real model's."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.providers.models import ModelConfig, Provider
from llmops.usage.models import Rollup
from llmops.usage.selectors import Span, SpendFilters


def simulated_providers() -> frozenset[str]:
    return frozenset(Provider.objects.filter(kind="simulator").values_list("slug", flat=True))


def simulated_models() -> frozenset[str]:
    """Slugs of models whose present version is served by a simulated provider."""
    return frozenset(
        ModelConfig.objects.filter(provider__kind="simulator", current_of__isnull=False).values_list(
            "model__slug", flat=True
        )
    )


def simulated_in_words(models: Sequence[str]) -> str:
    if not models:
        return ""
    return f"Some answers of this time come from a simulated provider, not from a real model ({', '.join(models)})"


def simulated_spend(span: Span, filters: SpendFilters) -> str:
    """Whether something of what was spent was spent on simulated models, in words; costs a query where there are none."""
    models = simulated_models()
    if not models:
        return ""
    start, end = span.days
    rows = Rollup.objects.filter(granularity=Rollup.DAY, bucket__gte=start, bucket__lt=end, model__in=models)
    if filters.project_ids is not None:
        rows = rows.filter(project_id__in=list(filters.project_ids))
    return simulated_in_words(sorted(set(rows.order_by().values_list("model", flat=True).distinct())))
