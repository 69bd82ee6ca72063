"""Routes that nobody has saved or published yet: what they would be among everything that is configured. Reads, changes nothing.

Only what routing knows is compiled here (providers, models, routes), so that it can be asked with every stroke of a key.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from django.db.models import Prefetch

from llmops.budgets.models import Budget
from llmops.policies.models import Policy
from llmops.providers.models import Credential, Model, Price, Provider, Route, RouteTarget
from llmops.serving.compile import model_entry, provider_entry, route_entry
from llmops.serving.snapshot import (
    FORMAT,
    PolicyEntry,
    RevisionDocument,
    RouteEntry,
)
from llmops.serving.validation import Facts, Problem, validate
from llmops.serving.whatif.traffic import switched


def draft_document() -> RevisionDocument:
    """Providers, models and routes as they are configured, without prompts and policies."""
    routes = (
        Route.objects.filter(archived_at=None)
        .select_related("larger_model", "summary_model")
        .prefetch_related(
            Prefetch(
                "targets", RouteTarget.objects.select_related("model").order_by("position", "model__slug")
            )
        )
        .order_by("slug")
    )
    return msgspec.structs.replace(_ground(), routes=tuple(route_entry(row) for row in routes))


def with_route(document: RevisionDocument, route: RouteEntry) -> RevisionDocument:
    """The document with ``route`` in the place of the one of its name."""
    others = [one for one in document.routes if one.slug != route.slug]
    return msgspec.structs.replace(document, routes=tuple(sorted([*others, route], key=lambda one: one.slug)))


def problems_of(route: RouteEntry, *, now: datetime) -> list[Problem]:
    """What publishing would find wrong with a route and with the models and providers that it leads to, errors first."""
    named = {
        *(target.model for target in route.targets),
        *route.fallbacks,
        *(slug for chosen in route.fallbacks_for.values() for slug in chosen),
        *filter(None, (route.larger_model, route.summary_model)),
    }
    ground = _ground(named | {route.slug})
    providers = {model.provider for model in ground.models}
    policies = Policy.objects.filter(slug__in=route.policies)
    archived = frozenset(policies.filter(archived_at__isnull=False).values_list("slug", flat=True))
    document = msgspec.structs.replace(
        ground,
        providers=tuple(one for one in ground.providers if one.slug in providers),
        routes=(route,),
        policies=tuple(
            PolicyEntry(slug, 0, ())
            for slug in policies.filter(archived_at=None).order_by("slug").values_list("slug", flat=True)
        ),
    )
    models = Model.objects.filter(slug__in=named)
    facts = Facts(
        now=now.timestamp(),
        archived_models=frozenset(models.filter(archived_at__isnull=False).values_list("slug", flat=True)),
        versionless_models=frozenset(
            models.filter(archived_at=None, current=None).values_list("slug", flat=True)
        ),
        archived_providers=frozenset(
            Provider.objects.filter(archived_at__isnull=False).values_list("slug", flat=True)
        ),
        archived_policies=archived,
        paused_routes=switched(Route, "paused_at", "pause_reason"),
        degraded_routes=switched(Route, "degraded_at", "degrade_reason"),
        paused_providers=switched(Provider, "paused_at", "pause_reason"),
        providers_with_keys=frozenset(
            Credential.objects.filter(state="active").values_list("provider__slug", flat=True)
        ),
        hard_budgets=Budget.objects.filter(archived_at=None, hard=True).exists(),
    )
    about = {
        ("route", route.slug),
        *(("model", slug) for slug in named),
        *(("provider", one) for one in providers),
    }
    return [one for one in validate(document, facts) if (one.kind, one.slug) in about]


def _ground(slugs: set[str] | None = None) -> RevisionDocument:
    """Providers and models in use; of models only those of ``slugs`` where they are given."""
    models = Model.objects.filter(archived_at=None, current__isnull=False)
    if slugs is not None:
        models = models.filter(slug__in=slugs)
    rows = (
        models.select_related("current__provider")
        .prefetch_related(Prefetch("prices", Price.objects.order_by("effective_from", "id")))
        .order_by("slug")
    )
    return RevisionDocument(
        format=FORMAT,
        providers=tuple(
            provider_entry(row) for row in Provider.objects.filter(archived_at=None).order_by("slug")
        ),
        models=tuple(model_entry(row, row.current) for row in rows if row.current is not None),
        routes=(),
    )
