"""A small installation, made row by row: a check looks at rows, however they came about."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.utils import timezone

from llmops.access.models import Project, ServiceKey
from llmops.policies.models import Policy, PolicyVersion
from llmops.prompts.models import Prompt, PromptVersion
from llmops.providers.models import Credential, Model, ModelConfig, Provider, Route, RouteTarget
from llmops.usage.models import Journal, Rollup


def ago(**time: float) -> Any:
    return timezone.now() - timedelta(**time)


def provider(slug: str = "up") -> Provider:
    found, _ = Provider.objects.get_or_create(
        slug=slug, defaults={"kind": "compatible", "base_url": "http://127.0.0.1:9/v1"}
    )
    return found


def model(slug: str, at: str = "up", **fields: Any) -> Model:
    found = Model.objects.create(slug=slug)
    given = {"context_window": 8_000, "max_output_tokens": 1_000, "default_max_output_tokens": 100} | fields
    found.current = ModelConfig.objects.create(
        model=found, version=1, provider=provider(at), upstream_model=f"{slug}-2024-08-06",
        digest=uuid4().hex, created_by="seed", **given,
    )  # fmt: skip
    found.save()
    return found


def route(slug: str, *models: Model, **fields: Any) -> Route:
    found = Route.objects.create(slug=slug, **fields)
    for position, one in enumerate(models):
        RouteTarget.objects.create(route=found, model=one, fallback=position > 0, position=position)
    return found


def credential(name: str = "first", at: str = "up", **fields: Any) -> Credential:
    given = {"state": "active", "set_at": timezone.now()} | fields
    return Credential.objects.create(provider=provider(at), name=name, source="env", reference="X", **given)


def project(slug: str = "support", **fields: Any) -> Project:
    return Project.objects.create(slug=slug, name=slug, **fields)


def key(of: Project, name: str = "key", **fields: Any) -> ServiceKey:
    given = {"scopes": ["inference"], "allowed_routes": ["*"]} | fields
    return ServiceKey.objects.create(
        project=of, name=name, prefix=uuid4().hex[:8], secret_hash=uuid4().hex, **given
    )


def policy(slug: str, *kinds: str) -> Policy:
    found = Policy.objects.create(slug=slug, everywhere=True)
    checks = [{"kind": kind, "stage": "before", "action": "block", "settings": {}} for kind in kinds]
    found.current = PolicyVersion.objects.create(policy=found, number=1, checks=checks, created_by="seed")
    found.save()
    return found


def prompt(slug: str, renderings: list[Any]) -> Prompt:
    found = Prompt.objects.create(slug=slug)
    found.current = PromptVersion.objects.create(
        prompt=found,
        number=1,
        content={},
        renderings=renderings,
        renderer=1,
        digest=uuid4().hex,
        created_by="seed",
    )
    found.save()
    return found


def day_of_calls(status: str = "ok", model: str = "a", calls: int = 3) -> None:
    Rollup.objects.create(
        granularity=86_400, bucket=ago(days=1), project_id=uuid4(), key_id=uuid4(), endpoint="chat.completions",
        route="r", model=model, feature="", status=status, error_code="", calls=calls,
    )  # fmt: skip


def journal(**fields: Any) -> Journal:
    given = {"host": "h", "path": "/j", "opened_at": ago(hours=1), "seen_at": timezone.now()} | fields
    return Journal.objects.create(id=uuid4(), **given)
