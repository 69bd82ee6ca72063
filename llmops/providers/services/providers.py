"""Providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from llmops.audit.services import record
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.providers.models import Credential, Model, Provider
from llmops.providers.rules import (
    passthrough_problem,
    proxy_problem,
    reads_keys,
    shared_objects_problem,
    url_problem,
)
from llmops.providers.services import draft

KIND = "providers.provider"
FIELDS = (
    "name",
    "kind",
    "base_url",
    "connect_timeout_ms",
    "read_timeout_ms",
    "write_timeout_ms",
    "pool_timeout_ms",
    "max_connections",
    "proxy_url",
    "organization",
    "provider_project",
    "allow_private_network",
    "passthrough",
    "shared_objects",
)


def create_provider(
    actor: Actor, *, slug: str, kind: str, base_url: str, fields: Mapping[str, Any] | None = None
) -> Provider:
    """A new provider; ``fields`` are any of ``FIELDS``, time-outs in milliseconds.

    Raises ``InvalidRequest`` naming the field.
    """
    with transaction.atomic():
        draft.editing()
        provider = Provider(slug=slug, kind=kind, base_url=base_url)
        draft.assign(provider, fields or {}, allowed=FIELDS)
        _check(provider)
        draft.inserted(provider)
        record(
            actor,
            action="provider.created",
            object_type=KIND,
            object_id=provider.pk,
            object_name=provider.slug,
            after=draft.values(provider, ("slug", *FIELDS)),
        )
    return provider


def update_provider(actor: Actor, *, provider: Provider, changes: Mapping[str, Any]) -> Provider:
    """Change fields of a provider; served once published. Without a difference nothing is written."""
    with transaction.atomic():
        draft.editing()
        stored = draft.locked(provider)
        before = draft.values(stored, FIELDS)
        draft.assign(stored, changes, allowed=FIELDS)
        _check(stored)
        old, new = draft.difference(before, draft.values(stored, FIELDS))
        if not new:
            return stored
        if "proxy_url" in new:
            _refuse_proxy_that_reads_keys(stored)
        stored.save()
        record(
            actor,
            action="provider.changed",
            object_type=KIND,
            object_id=stored.pk,
            object_name=stored.slug,
            before=old,
            after=new,
        )
    return stored


def archive_provider(actor: Actor, *, provider: Provider) -> Provider:
    """Put a provider away. Refused while a model that is not archived is called through it."""
    with transaction.atomic():
        draft.editing()
        users = list(
            Model.objects.filter(archived_at=None, current__provider=provider)
            .order_by("slug")
            .values_list("slug", flat=True)[:6]
        )
        if users:
            raise Conflict(
                f"{provider.slug} serves the models {', '.join(users[:5])}{' and others' if len(users) > 5 else ''}. "
                "Archive them or move them to another provider first."
            )
        return draft.set_archived(actor, draft.locked(provider), kind=KIND, archived=True)


def unarchive_provider(actor: Actor, *, provider: Provider) -> Provider:
    with transaction.atomic():
        draft.editing()
        return draft.set_archived(actor, draft.locked(provider), kind=KIND, archived=False)


def pause_provider(actor: Actor, *, provider: Provider, reason: str) -> Provider:
    """Send nothing to this provider from now on; routes use their other targets and fallbacks."""
    with transaction.atomic():
        return draft.throw(actor, draft.locked(provider), draft.PAUSED, kind=KIND, on=True, reason=reason)


def resume_provider(actor: Actor, *, provider: Provider, reason: str = "") -> Provider:
    with transaction.atomic():
        return draft.throw(actor, draft.locked(provider), draft.PAUSED, kind=KIND, on=False, reason=reason)


def _refuse_proxy_that_reads_keys(provider: Provider) -> None:
    """A key is for the place that it was given for, and over plain http a proxy is another one that reads it."""
    keys = Credential.objects.filter(provider=provider).exclude(state="revoked")
    if reads_keys(provider.base_url, provider.proxy_url) and keys.exists():
        raise InvalidRequest(
            f"proxy_url: {provider.proxy_url} would read the keys of {provider.slug}, since its base URL is plain http. Use https "
            "there, or revoke the keys first and give them anew.",
            param="proxy_url",
        )


def _check(provider: Provider) -> None:
    if isinstance(provider.base_url, str):
        provider.base_url = provider.base_url.rstrip("/")
        if problem := url_problem(provider.base_url, allow_private=provider.allow_private_network is True):
            raise InvalidRequest(f"base_url: {problem}.", param="base_url")
    if isinstance(provider.proxy_url, str) and (problem := proxy_problem(provider.proxy_url)):
        raise InvalidRequest(f"proxy_url: {problem}.", param="proxy_url")
    if problem := passthrough_problem(provider.passthrough):
        raise InvalidRequest(f"passthrough: {problem}.", param="passthrough")
    if problem := shared_objects_problem(provider.shared_objects):
        raise InvalidRequest(f"shared_objects: {problem}.", param="shared_objects")
    draft.checked(provider)
