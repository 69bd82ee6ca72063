"""What several checks look at: routes and the models behind them, keys, people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import Q, QuerySet
from django.utils import timezone

from llmops.access.models import OidcIdentity, Passkey, Project, ServiceKey
from llmops.access.rules import ADMIN
from llmops.policies.models import Policy
from llmops.providers.models import ModelConfig, Route


@dataclass(frozen=True, slots=True)
class RouteFacts:
    slug: str
    models: frozenset[str]
    providers: frozenset[str]
    attempts: int
    total_timeout_ms: int
    last_resort: str
    context_strategy: str


def live_routes() -> list[RouteFacts]:
    """Routes that are not archived, with every model that they lead to."""
    routes = Route.objects.filter(archived_at=None).prefetch_related("targets__model__current__provider")
    return [_facts(route) for route in routes]


def _facts(route: Route) -> RouteFacts:
    models = [target.model for target in route.targets.all()]
    return RouteFacts(
        route.slug,
        frozenset(model.slug for model in models),
        frozenset(model.current.provider.slug for model in models if model.current is not None),
        route.attempts,
        route.total_timeout_ms,
        route.last_resort,
        route.context_strategy,
    )


def models_in_use() -> list[str]:
    return sorted(set().union(*(route.models for route in live_routes())))


def providers_in_use() -> list[str]:
    return sorted(set().union(*(route.providers for route in live_routes())))


def current_versions() -> list[ModelConfig]:
    """Of the models that routes lead to."""
    found = ModelConfig.objects.filter(current_of__slug__in=models_in_use())
    return list(found.select_related("model").order_by("model__slug"))


def active_projects() -> list[Project]:
    return list(Project.objects.filter(archived_at=None).order_by("slug"))


def every_key() -> QuerySet[ServiceKey]:
    """Service keys that work, those of people and machines; not those that the console holds for its own calls."""
    now = timezone.now()
    return (
        ServiceKey.objects.filter(revoked_at=None, held_by_console=False, project__archived_at=None)
        .filter(Q(expires_at=None) | Q(expires_at__gt=now))
        .select_related("project")
        .order_by("name")
    )


def service_keys() -> list[ServiceKey]:
    """Those that may call models."""
    return [key for key in every_key() if "inference" in key.scopes]


def administrators() -> Sequence[Any]:
    """People who may sign in and administer the whole organisation."""
    people = get_user_model().objects.filter(is_active=True)
    whole = Q(memberships__role=ADMIN, memberships__project=None)
    found = people.filter(Q(is_superuser=True) | whole).distinct().order_by("username")
    without_password = {
        user for table in (OidcIdentity, Passkey) for user in table.objects.values_list("user_id", flat=True)
    }
    return [
        one for one in found if one.has_usable_password() or one.is_superuser or one.pk in without_password
    ]


def checks_everywhere() -> set[str]:
    """Kinds of checks that some policy makes on every route."""
    policies = Policy.objects.filter(archived_at=None, everywhere=True).select_related("current")
    return {check["kind"] for one in policies if one.current is not None for check in one.current.checks}
