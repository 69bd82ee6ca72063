"""Prices out of a price list: what would be added, and adding it. Nothing that is there is edited."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.audit.services import record
from llmops.core.actors import Actor
from llmops.core.money import format_usd
from llmops.providers.catalogue import PriceList
from llmops.providers.models import Model, Price
from llmops.providers.services import draft


@dataclass(frozen=True, slots=True)
class PlannedPrice:
    """A price that is to be added; ``before`` is what the class costs until then, None when it has no price."""

    model: Model
    token_class: str
    before: int | None
    nano_per_million: int
    effective_from: datetime
    source: str


def plan_prices(
    price_list: PriceList, *, models: Iterable[Model] | None = None, now: datetime | None = None
) -> list[PlannedPrice]:
    """What of ``price_list`` differs from the prices of ``models`` (all that are in use) and is to be added.

    A model is found by the name that its current version is pinned to, at a provider of the list's kind. A price that says
    from when it holds is added for that moment, every other from ``now`` on.
    """
    now = now or timezone.now()
    if models is None:
        models = Model.objects.filter(archived_at=None).order_by("slug")
    planned = []
    for model in models:
        current = model.current
        if current is None or current.provider.kind != price_list.provider:
            continue
        stored = list(model.prices.all())
        for listed in price_list.of(current.upstream_model):
            since = listed.since or now
            before = _in_force(stored, listed.token_class, since)
            if before == listed.nano_per_million:
                continue
            if any(one.token_class == listed.token_class and one.effective_from == since for one in stored):
                # That moment has a price already, which stays: a correction is a later one.
                continue
            planned.append(
                PlannedPrice(model, listed.token_class, before, listed.nano_per_million, since, listed.source)
            )
    return planned


def add_prices(actor: Actor, planned: Sequence[PlannedPrice], *, reason: str = "") -> None:
    """Add planned prices, all or none, with one audit event. Nothing is written for an empty plan."""
    if not planned:
        return
    with transaction.atomic():
        draft.editing()
        after = insert_prices(actor, planned)
        record(
            actor,
            action="prices.updated",
            object_type="providers.model",
            object_id=planned[0].model.pk,
            object_name=", ".join(sorted({one.model.slug for one in planned}))[:200],
            before={"prices": [_told(one, one.before) for one in planned if one.before is not None]},
            after={"prices": after},
            reason=reason,
        )


def insert_prices(actor: Actor, planned: Sequence[PlannedPrice]) -> list[dict[str, Any]]:
    """Add planned prices inside the caller's transaction, which records them: as the answer tells them."""
    for one in planned:
        price = Price(
            model=draft.locked(one.model),
            token_class=one.token_class,
            nano_per_million=one.nano_per_million,
            effective_from=one.effective_from,
            source=one.source,
            created_by=actor.name[:200],
        )
        draft.checked(price)
        draft.inserted(price)
    return [_told(one, one.nano_per_million) for one in planned]


def _told(one: PlannedPrice, nano: int) -> dict[str, Any]:
    return {
        "model": one.model.slug,
        "token_class": one.token_class,
        "usd_per_million": format_usd(nano),
        "effective_from": one.effective_from,
        "source": one.source,
    }


def _in_force(prices: Iterable[Price], token_class: str, moment: datetime) -> int | None:
    dated = [one for one in prices if one.token_class == token_class and one.effective_from <= moment]
    return max(dated, key=lambda one: one.effective_from).nano_per_million if dated else None
