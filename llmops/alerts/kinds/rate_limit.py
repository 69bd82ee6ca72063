"""How near a service key is to its own limits, and how often the provider's are met."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Sum

from llmops.access.models import ServiceKey
from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import EASE, Asked, Finding, Kind, Setting, percent
from llmops.providers.selectors import headroom
from llmops.usage.models import Rollup
from llmops.usage.selectors.spans import floor

#: What a provider told longer ago has filled again.
_TOLD_WITHIN = timedelta(minutes=1)


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    yield from _of_service_keys(asked, figures)
    if asked.scope.project_id is None:
        yield from _of_providers(asked)


def _of_providers(asked: Asked) -> Iterator[Finding]:
    """What providers said is left of their own limits."""
    bound = asked.settings["percent"]
    for key, row in headroom(_TOLD_WITHIN):
        share, what = row.used
        value = 100.0 * share
        if value < bound * EASE:
            continue
        yield Finding(
            subject=f"credential:{key.pk}:{row.model}",
            title=f"Near its provider's rate limit: key {key}, model {row.model}",
            says=f"{percent(value)} of the {what} that the provider allows were used when it last told. From 100 % on, it answers with "
            "429, and calls rest, go to another key or fall back.",
            value=value,
            bound=bound,
            holds=value >= bound,
            facts={"page": "admin:providers_credential_change", "object": str(key.pk)},
        )


def _of_service_keys(asked: Asked, figures: Figures) -> Iterator[Finding]:
    """The last whole minute against the key's limits of requests and tokens in a minute."""
    bound = asked.settings["percent"]
    keys = ServiceKey.objects.filter(revoked_at=None).exclude(rpm=None, tpm=None).select_related("project")
    if asked.scope.project_id is not None:
        keys = keys.filter(project_id=asked.scope.project_id)
    limits = {key.pk: key for key in keys}
    if not limits:
        return
    end = floor(figures.now, Rollup.MINUTE)
    used = (
        Rollup.objects.filter(
            granularity=Rollup.MINUTE, bucket__gte=end - timedelta(minutes=1), bucket__lt=end, key_id__in=limits
        )
        .order_by()
        .values_list("key_id")
        .annotate(Sum("calls"), Sum("input_tokens"), Sum("output_tokens"))
    )  # fmt: skip
    for key_id, calls, tokens_in, tokens_out in used:
        key = limits[key_id]
        shares = [
            (100.0 * had / limit, what)
            for had, limit, what in (
                (calls, key.rpm, "requests"),
                (tokens_in + tokens_out, key.tpm, "tokens"),
            )
            if limit
        ]
        value, what = max(shares)
        if value < bound * EASE:
            continue
        yield Finding(
            subject=f"key:{key.pk}",
            title=f"Near its rate limit: key {key.name} of {key.project.slug}",
            says=f"{percent(value)} of its {what} in a minute were used in the last one ({calls:,} calls). From 100 % on, calls "
            "are refused.",
            value=value,
            bound=bound,
            holds=value >= bound,
            calls=calls,
            project_id=key.project_id,
            facts={"key": str(key.pk)},
        )


KIND = Kind(
    name="rate_limit",
    title="Near its rate limit",
    says="The share of a service key's requests or tokens in a minute that the last whole minute used, or of a provider's own limits "
    "that its answers say is used.",
    look=_look,
    runbook="rate-limit",
    settings=(Setting("percent", "From", 80, "%", 1, 1000),),
    narrows=("project",),
)
