"""Spend in FOCUS 1.2, the FinOps Open Cost and Usage Specification (https://focus.finops.org/focus-specification/v1-2/).

A row is a day of one project, service key, feature, route and model. The console knows list prices and no contract, so the
four costs are the same; what a provider grants beside its list shows when its invoice is compared. The provider's account is
named by the provider as it is configured here, the project is the sub-account. Columns of our own begin with ``x_``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Sum

from llmops.access.models import Project, ServiceKey
from llmops.providers.models import ModelConfig
from llmops.usage.exports.cells import text, usd
from llmops.usage.selectors import Span, SpendFilters
from llmops.usage.selectors.spend import rollups_of

#: Columns that FOCUS 1.2 requires of every data set of cost and usage, in its alphabetical order.
MANDATORY = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
)
COLUMNS = (
    *MANDATORY,
    "ChargeFrequency",
    "ConsumedQuantity",
    "ConsumedUnit",
    "PricingCategory",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceSubcategory",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_Calls",
    "x_CachedInputTokens",
    "x_CostCentre",
    "x_Feature",
    "x_InputTokens",
    "x_OutputTokens",
    "x_Route",
    "x_ServiceKey",
)
_NAMES = {"openai": "OpenAI", "azure": "Microsoft"}
_DAY = timedelta(days=1)


def rows(span: Span, filters: SpendFilters) -> Iterator[Sequence[Sequence[Any]]]:
    """A chunk a day."""
    projects = {project.pk: project for project in Project.objects.all()}
    keys = dict(ServiceKey.objects.values_list("pk", "name"))
    providers = _providers()
    at = span.start
    while at < span.end:
        until = min(at.replace(hour=0) + _DAY, span.end)
        found: Any = (
            rollups_of(Span(at, until), filters)
            .order_by()
            .values_list("project_id", "key_id", "feature", "route", "model")
            .annotate(
                Sum("calls"),
                Sum("input_tokens"),
                Sum("cached_input_tokens"),
                Sum("output_tokens"),
                Sum("cost_nano"),
            )
            .order_by("project_id", "key_id", "feature", "route", "model")
        )
        chunk = []
        for project_id, key_id, feature, route, model, calls, tokens_in, cached, tokens_out, cost in found:
            if not cost and not tokens_in and not tokens_out:
                # Refused, or answered from the console's cache: nothing that a provider charges.
                continue
            project = projects.get(project_id)
            account, account_name, provider, publisher = providers.get(model, ("unknown",) * 4)
            tokens = tokens_in + tokens_out
            amount = usd(int(cost))
            tags = {"service_key": keys.get(key_id, str(key_id))}
            centre = project.cost_center if project else ""
            tags |= {
                name: value
                for name, value in (("cost_centre", centre), ("feature", feature), ("route", route))
                if value
            }
            quantity, unit = (tokens, "Tokens") if tokens else (calls, "Requests")
            chunk.append(
                [
                    amount,
                    text(account),
                    text(account_name),
                    "USD",
                    _moment(_month_after(at)),
                    _moment(at.replace(day=1, hour=0)),
                    "Usage",
                    "",
                    text(f"{model or 'No model'} called by {project.name if project else project_id}"),
                    _moment(until),
                    _moment(at),
                    amount,
                    amount,
                    text(provider),
                    amount,
                    quantity,
                    unit,
                    text(provider),
                    text(publisher),
                    "AI and Machine Learning",
                    text(f"{provider} API"),
                    "Usage-Based",
                    quantity,
                    unit,
                    "Standard",
                    text(model),
                    text(model),
                    "Model",
                    "Generative AI",
                    project_id,
                    text(project.name if project else "deleted project"),
                    "Project",
                    json.dumps(tags, sort_keys=True),
                    calls,
                    cached,
                    text(centre),
                    text(feature),
                    tokens_in,
                    tokens_out,
                    text(route),
                    text(keys.get(key_id, "")),
                ]
            )
        yield chunk
        at = until


def _providers() -> dict[str, tuple[str, str, str, str]]:
    """model -> (account, its name, who provides and invoices it, who publishes it), as the model stands today."""
    found = {}
    for config in ModelConfig.objects.filter(current_of__isnull=False).select_related("provider", "model"):
        provider = config.provider
        name = _NAMES.get(provider.kind, provider.name or provider.slug)
        publisher = "OpenAI" if provider.kind == "azure" else name
        found[config.model.slug] = (provider.slug, provider.name or provider.slug, name, publisher)
    return found


def _month_after(at: datetime) -> datetime:
    return (at.replace(day=1, hour=0) + timedelta(days=32)).replace(day=1)


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
