"""Models: immutable versions, and dated prices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from llmops.audit.services import record
from llmops.core.actors import Actor
from llmops.core.digests import digest
from llmops.core.errors import Conflict, InvalidRequest
from llmops.core.money import format_usd
from llmops.providers.catalogue import shipped
from llmops.providers.models import Model, ModelConfig, Price, Provider, Route
from llmops.providers.rules import CAPABILITIES, looks_floating, parameters_problem
from llmops.providers.services import draft
from llmops.providers.services.price_lists import insert_prices, plan_prices

KIND = "providers.model"
VERSION_FIELDS = (
    "upstream_model",
    "floats",
    "floats_reason",
    "context_window",
    "max_output_tokens",
    "default_max_output_tokens",
    "parameters",
    "capabilities",
)


def create_model(
    actor: Actor,
    *,
    slug: str,
    provider: Provider,
    upstream_model: str,
    context_window: int,
    max_output_tokens: int,
    default_max_output_tokens: int,
    parameters: Mapping[str, Any] | None = None,
    capabilities: list[str] | None = None,
    floats_reason: str = "",
    note: str = "",
    load_prices: bool = False,
) -> Model:
    """A new model with its first version; token counts in tokens. ``load_prices`` gives it what the shipped price list
    knows of the model it is pinned to, if anything.

    Raises ``InvalidRequest`` naming the field; a floating alias of OpenAI or Azure needs ``floats_reason``.
    """
    with transaction.atomic():
        draft.editing()
        model = Model(slug=slug)
        draft.checked(model)
        draft.inserted(model)
        version = _add_version(
            actor,
            model,
            number=1,
            fields={
                "provider": provider,
                "upstream_model": upstream_model,
                "context_window": context_window,
                "max_output_tokens": max_output_tokens,
                "default_max_output_tokens": default_max_output_tokens,
                "parameters": dict(parameters or {}),
                "capabilities": list(capabilities or []),
                "floats_reason": floats_reason,
                "note": note,
            },
        )
        after = described(version)
        if load_prices:
            after["prices"] = insert_prices(actor, plan_prices(shipped(), models=[model]))
        record(
            actor,
            action="model.created",
            object_type=KIND,
            object_id=model.pk,
            object_name=model.slug,
            after=after,
            reason=note,
        )
    return model


def pin_model(actor: Actor, *, model: Model, changes: Mapping[str, Any], note: str = "") -> ModelConfig:
    """A new immutable version of ``model``: the current one with ``changes`` (members of ``VERSION_FIELDS`` and
    ``provider``). Without a difference the current version is returned and nothing is written.
    """
    with transaction.atomic():
        draft.editing()
        stored = draft.locked(model)
        current = stored.current
        if current is None:
            raise Conflict(f"{stored.slug} has no version to start from.")
        fields: dict[str, Any] = {
            name: getattr(current, name) for name in ("provider", *VERSION_FIELDS) if name != "floats"
        }
        # An acknowledgement is for the name it was given for.
        if changes.get("upstream_model", current.upstream_model) != current.upstream_model:
            fields["floats_reason"] = ""
        for name, value in changes.items():
            if name not in fields:
                raise InvalidRequest(
                    f"{name}: this is not part of a model version. Members: {', '.join(fields)}.", param=name
                )
            fields[name] = value
        number = (stored.versions.aggregate(Max("version"))["version__max"] or 0) + 1
        before = described(current)
        version = _build_version(stored, number=number, fields={**fields, "note": note})
        if version.digest == current.digest:
            return current
        _keep_version(actor, stored, version)
        old, new = draft.difference(before, described(version))
        record(
            actor,
            action="model.pinned",
            object_type=KIND,
            object_id=stored.pk,
            object_name=stored.slug,
            before=old,
            after=new,
            reason=note,
        )
    return version


def archive_model(actor: Actor, *, model: Model) -> Model:
    """Put a model away. Refused while a route that is not archived leads to it."""
    with transaction.atomic():
        draft.editing()
        users = list(
            Route.objects.filter(
                Q(targets__model=model) | Q(larger_model=model) | Q(summary_model=model), archived_at=None
            )
            .order_by("slug")
            .values_list("slug", flat=True)
            .distinct()[:6]
        )
        if users:
            raise Conflict(
                f"{model.slug} is used by the routes {', '.join(users[:5])}{' and others' if len(users) > 5 else ''}. "
                "Take it out of them first."
            )
        return draft.set_archived(actor, draft.locked(model), kind=KIND, archived=True)


def unarchive_model(actor: Actor, *, model: Model) -> Model:
    with transaction.atomic():
        draft.editing()
        return draft.set_archived(actor, draft.locked(model), kind=KIND, archived=False)


def add_price(
    actor: Actor,
    *,
    model: Model,
    token_class: str,
    nano_per_million: int,
    effective_from: datetime | None = None,
    source: str = "",
) -> Price:
    """What a token class costs from a moment on (now by default), in nanodollars per million tokens.

    Prices are never edited: a correction is a later one. Raises ``InvalidRequest`` or ``Conflict``.
    """
    if isinstance(nano_per_million, bool) or not isinstance(nano_per_million, int):
        raise InvalidRequest("price: a price is a whole number of nanodollars.", param="price")
    if effective_from is not None and timezone.is_naive(effective_from):
        raise InvalidRequest("effective_from: give the time zone as well.", param="effective_from")
    with transaction.atomic():
        draft.editing()
        stored = draft.locked(model)
        price = Price(
            model=stored,
            token_class=token_class,
            nano_per_million=nano_per_million,
            effective_from=effective_from or timezone.now(),
            source=source,
            created_by=actor.name[:200],
        )
        draft.checked(price)
        before = (
            stored.prices.filter(token_class=token_class, effective_from__lte=price.effective_from)
            .order_by("-effective_from")
            .first()
        )
        draft.inserted(price)
        record(
            actor,
            action="price.added",
            object_type="providers.price",
            object_id=price.pk,
            object_name=f"{stored.slug} {token_class}",
            before={"usd_per_million": format_usd(before.nano_per_million)} if before else None,
            after={
                "token_class": token_class,
                "usd_per_million": format_usd(nano_per_million),
                "effective_from": price.effective_from,
                "source": source,
            },
        )
    return price


def described(version: ModelConfig) -> dict[str, Any]:
    """A version for the audit trail."""
    return {
        "version": version.version,
        "provider": version.provider.slug,
        **{name: getattr(version, name) for name in VERSION_FIELDS},
        "digest": version.digest,
    }


def _add_version(actor: Actor, model: Model, *, number: int, fields: Mapping[str, Any]) -> ModelConfig:
    version = _build_version(model, number=number, fields=fields)
    _keep_version(actor, model, version)
    return version


def _keep_version(actor: Actor, model: Model, version: ModelConfig) -> None:
    version.created_by = actor.name[:200]
    draft.inserted(version)
    model.current = version
    model.save(update_fields=["current", "updated_at"])


def _build_version(model: Model, *, number: int, fields: Mapping[str, Any]) -> ModelConfig:
    # As stored: what the caller holds may be older than the archiving.
    provider = Provider.objects.get(pk=fields["provider"].pk)
    version = ModelConfig(model=model, version=number, created_by="-", **{**fields, "provider": provider})
    if provider.archived_at is not None:
        raise InvalidRequest(f"provider: {version.provider.slug} is archived.", param="provider")
    if (
        not isinstance(version.upstream_model, str)
        or version.upstream_model != version.upstream_model.strip()
    ):
        raise InvalidRequest("upstream_model: leave out white space around the name.", param="upstream_model")
    version.floats = looks_floating(version.provider.kind, version.upstream_model)
    version.floats_reason = str(version.floats_reason).strip() if version.floats else ""
    if version.floats and not version.floats_reason:
        raise InvalidRequest(
            f"upstream_model: {version.upstream_model!r} is an alias whose meaning the provider may change. Pin a dated "
            "snapshot, such as gpt-4o-2024-08-06, or say why it may float (floats_reason).",
            param="upstream_model",
        )
    version.capabilities = _capabilities(version.capabilities)
    if problem := parameters_problem(version.parameters):
        raise InvalidRequest(f"parameters: {problem}.", param="parameters")
    version.digest = _version_digest(version)
    draft.checked(version)
    return version


def _version_digest(version: ModelConfig) -> str:
    return digest(
        {
            "provider": version.provider.slug,
            **{name: getattr(version, name) for name in VERSION_FIELDS},
        }
    )


def _capabilities(given: object) -> list[str]:
    if not isinstance(given, list | tuple) or not all(isinstance(item, str) for item in given):
        raise InvalidRequest("capabilities: give a list of names.", param="capabilities")
    if unknown := sorted(set(given) - set(CAPABILITIES)):
        raise InvalidRequest(
            f"capabilities: {unknown[0]!r} is not one of {', '.join(CAPABILITIES)}.", param="capabilities"
        )
    return sorted(set(given))
