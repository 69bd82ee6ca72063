"""The database in the words of the file: what is configured now, by kind and key, with the values ``schema`` uses.

Archived and revoked objects are in it, marked, because a file may name them again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone

from console.declarative.alert_state import alerts
from console.declarative.present import Present
from console.declarative.schema import DEFAULT_ROUTE, PUBLISHING, prompt_key, tool_key
from llmops.access.models import Project, ServiceKey
from llmops.access.services.projects import CHANGEABLE
from llmops.budgets.models import Budget
from llmops.budgets.scopes import KEY, PROJECT
from llmops.policies.models import Policy
from llmops.prompts.models import Prompt, PromptVersion
from llmops.prompts.serving import all_labels
from llmops.providers.models import Credential, Model, Provider, Route
from llmops.providers.services.models import VERSION_FIELDS
from llmops.providers.services.providers import FIELDS as PROVIDER_FIELDS
from llmops.providers.services.routes import FIELDS as ROUTE_FIELDS
from llmops.providers.services.routes import MODEL_FIELDS
from llmops.serving.selectors import publishing_rule
from llmops.serving.services.rule import rules_asked_for
from llmops.tools.models import Tool

_PROJECT_FIELDS = [name for name in CHANGEABLE if name != "default_route"]


@dataclass(frozen=True)
class Prices:
    """What a token class costs now (None: nothing yet), and what it will cost from later moments on."""

    now: int | None = None
    later: dict[datetime, int] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    at: datetime
    objects: dict[str, dict[str, Present]]

    def find(self, kind: str, key: str) -> Present | None:
        return self.objects.get(kind, {}).get(key)


def read_state(*, at: datetime | None = None) -> State:
    """Everything the file can speak of. Call it in a transaction that shows one moment."""
    now = at or timezone.now()
    return State(
        now,
        {
            "project": _projects(),
            DEFAULT_ROUTE: _default_routes(),
            PUBLISHING: {"rule": _publishing()},
            "provider": _providers(),
            "credential": _credentials(),
            "model": _models(now),
            "policy": _policies(),
            "route": _routes(),
            "prompt": _prompts(),
            "tool": _tools(),
            "service key": _service_keys(),
            "budget": _budgets(),
            **alerts(),
        },
    )


def _archived(row: Any) -> str:
    return "archived" if row.archived_at else ""


def _projects() -> dict[str, Present]:
    return {
        row.slug: Present(row.pk, {name: getattr(row, name) for name in _PROJECT_FIELDS}, _archived(row))
        for row in Project.objects.all()
    }


def _default_routes() -> dict[str, Present]:
    return {
        row.slug: Present(row.pk, {"default_route": row.default_route}, _archived(row))
        for row in Project.objects.all()
    }


def _publishing() -> Present:
    """``put_away`` are the projects of the rule that no file speaks of; ``asked`` are looser rules that wait for another person."""
    rule = publishing_rule()
    put_away = Project.objects.filter(slug__in=rule.projects, archived_at__isnull=False)
    gone = frozenset(put_away.values_list("slug", flat=True))
    return Present(
        1,
        {
            "always": rule.always,
            "projects": sorted(rule.projects - gone),
            "restore_alone": rule.restore_alone,
            "put_away": gone,
            "asked": rules_asked_for(),
        },
    )


def _providers() -> dict[str, Present]:
    return {
        row.slug: Present(row.pk, {name: getattr(row, name) for name in PROVIDER_FIELDS}, _archived(row))
        for row in Provider.objects.all()
    }


def _credentials() -> dict[str, Present]:
    return {
        f"{row.provider.slug}/{row.name}": Present(
            row.pk,
            {
                "provider": row.provider.slug,
                "name": row.name,
                "source": row.source,
                "reference": row.reference,
                "fingerprint": row.fingerprint,
                "origin": row.origin,
                "state": row.state,
            },
            "revoked" if row.state == "revoked" else "",
        )
        for row in Credential.objects.select_related("provider")
    }


def _models(now: datetime) -> dict[str, Present]:
    found: dict[str, Present] = {}
    for row in Model.objects.select_related("current__provider").prefetch_related("prices"):
        if row.current is None:
            continue
        rows = defaultdict(list)
        for price in row.prices.all():
            rows[price.token_class].append((price.effective_from, price.nano_per_million))
        prices = {}
        for token_class, dated in rows.items():
            past = [amount for since, amount in sorted(dated) if since <= now]
            prices[token_class] = Prices(
                past[-1] if past else None, {since: amount for since, amount in dated if since > now}
            )
        values = {name: getattr(row.current, name) for name in VERSION_FIELDS if name != "floats"}
        found[row.slug] = Present(
            row.pk,
            {"provider": row.current.provider.slug, **values, "prices": prices},
            _archived(row),
        )
    return found


def _policies() -> dict[str, Present]:
    return {
        row.slug: Present(
            row.pk,
            {"description": row.description, "everywhere": row.everywhere, "checks": row.current.checks},
            _archived(row),
        )
        for row in Policy.objects.select_related("current")
        if row.current is not None
    }


def _prompts() -> dict[str, Present]:
    found: dict[str, Present] = {}
    rows = Prompt.objects.select_related("project")
    versions: dict[Any, list[PromptVersion]] = defaultdict(list)
    for version in PromptVersion.objects.order_by("number"):
        versions[version.prompt_id].append(version)
    labels = all_labels()
    for row in rows:
        project = row.project.slug if row.project else None
        found[prompt_key(project, row.slug)] = Present(
            row.pk,
            {
                "slug": row.slug,
                "project": project,
                "description": row.description,
                "versions": [
                    {"note": version.note, "content": version.content} for version in versions[row.pk]
                ],
                "labels": labels.get(row.pk, {}),
            },
            _archived(row),
        )
    return found


def _tools() -> dict[str, Present]:
    return {
        tool_key(row.project.slug, row.slug): Present(
            row.pk,
            {
                "slug": row.slug,
                "project": row.project.slug,
                "definition": row.current.definition,
                "signs": bool(row.sealed),
            },
            _archived(row),
        )
        for row in Tool.objects.select_related("project", "current")
        if row.current is not None
    }


def _routes() -> dict[str, Present]:
    found: dict[str, Present] = {}
    for row in Route.objects.select_related(*MODEL_FIELDS).prefetch_related("targets__model"):
        targets = sorted(row.targets.all(), key=lambda target: (target.position, target.pk))
        by_class: dict[str, list[str]] = {}
        for target in targets:
            if target.fallback:
                by_class.setdefault(target.failure_class, []).append(target.model.slug)
        found[row.slug] = Present(
            row.pk,
            {
                **{name: getattr(row, name) for name in ROUTE_FIELDS if name not in MODEL_FIELDS},
                **{name: model.slug if (model := getattr(row, name)) else None for name in MODEL_FIELDS},
                "targets": {target.model.slug: target.weight for target in targets if not target.fallback},
                "fallbacks": by_class.pop("", []),
                "fallbacks_for": by_class,
            },
            _archived(row),
        )
    return found


def _service_keys() -> dict[str, Present]:
    return {
        f"{row.project.slug}/{row.name}": Present(
            row.pk,
            {
                "project": row.project.slug,
                "name": row.name,
                "hash": row.secret_hash,
                "scopes": sorted(row.scopes),
                "allowed_routes": sorted(row.allowed_routes),
                "allowed_models": sorted(row.allowed_models),
                "rpm": row.rpm,
                "tpm": row.tpm,
                "concurrency": row.concurrency,
                "priority": row.priority,
                "expires_at": row.expires_at,
            },
            "revoked" if row.revoked_at else "",
        )
        for row in ServiceKey.objects.select_related("project")
    }


def _budgets() -> dict[str, Present]:
    keys = {
        str(pk): f"{slug}/{name}"
        for pk, slug, name in ServiceKey.objects.values_list("pk", "project__slug", "name")
    }
    return {
        row.slug: Present(
            row.pk,
            {
                "scope_kind": row.scope_kind,
                "scope_value": keys.get(row.scope_value, row.scope_value)
                if row.scope_kind == KEY
                else row.scope_value,
                # The project of a project's or key's budget follows from the scope.
                "project": row.project.slug if row.project and row.scope_kind not in (PROJECT, KEY) else None,
                "period": row.period,
                "timezone": row.timezone,
                "limit_nano": row.limit_nano,
                "hard": row.hard,
                "thresholds": sorted(row.thresholds),
                "notify": list(row.notify),
                "at_limit_route": row.at_limit_route,
                "carry_over_nano": row.carry_over_nano,
                "second_person": row.second_person,
            },
            _archived(row),
        )
        for row in Budget.objects.select_related("project")
    }
