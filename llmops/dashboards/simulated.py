"""Which answers come from a simulated provider, so that nobody takes them for a real model's."""

from __future__ import annotations

from llmops.providers.models import ModelConfig, Provider


def simulated_providers() -> frozenset[str]:
    return frozenset(Provider.objects.filter(kind="simulator").values_list("slug", flat=True))


def simulated_models() -> frozenset[str]:
    """Slugs of models whose present version is served by a simulated provider."""
    return frozenset(
        ModelConfig.objects.filter(provider__kind="simulator", current_of__isnull=False).values_list(
            "model__slug", flat=True
        )
    )
