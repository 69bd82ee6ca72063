"""Routes: weighted targets and ordered fallbacks under one public name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from llmops.audit.services import record
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest
from llmops.providers.models import Model, Route, RouteTarget
from llmops.providers.services import draft

KIND = "providers.route"
MOST_WEIGHT = 1_000_000
FIELDS = (
    "description",
    "attempts",
    "total_timeout_ms",
    "breaker_failure_percent",
    "breaker_window_s",
    "breaker_min_calls",
    "breaker_cooldown_s",
    "cache_ttl_s",
    "clamp_output",
)


def create_route(
    actor: Actor,
    *,
    slug: str,
    targets: Sequence[tuple[Model, int]],
    fallbacks: Sequence[Model] = (),
    fields: Mapping[str, Any] | None = None,
) -> Route:
    """A new route; ``targets`` are ``(model, weight)``, ``fallbacks`` in the order in which they are tried.

    Raises ``InvalidRequest`` naming the field. A route without targets can be kept as a draft, not published.
    """
    with transaction.atomic():
        draft.editing()
        route = Route(slug=slug)
        draft.assign(route, fields or {}, allowed=FIELDS)
        draft.checked(route)
        draft.inserted(route)
        _write_targets(route, targets, fallbacks)
        record(
            actor,
            action="route.created",
            object_type=KIND,
            object_id=route.pk,
            object_name=route.slug,
            after={"slug": route.slug, **draft.values(route, FIELDS), **_described_targets(route)},
        )
    return route


def update_route(
    actor: Actor,
    *,
    route: Route,
    changes: Mapping[str, Any] | None = None,
    targets: Sequence[tuple[Model, int]] | None = None,
    fallbacks: Sequence[Model] | None = None,
) -> Route:
    """Change fields, and the targets or fallbacks as a whole where they are given; served once published.

    Without a difference nothing is written.
    """
    with transaction.atomic():
        draft.editing()
        stored = draft.locked(route)
        before = {**draft.values(stored, FIELDS), **_described_targets(stored)}
        draft.assign(stored, changes or {}, allowed=FIELDS)
        draft.checked(stored)
        if targets is not None or fallbacks is not None:
            present = list(stored.targets.select_related("model").order_by("position", "id"))
            _write_targets(
                stored,
                [(row.model, row.weight) for row in present if not row.fallback]
                if targets is None
                else targets,
                [row.model for row in present if row.fallback] if fallbacks is None else fallbacks,
            )
        old, new = draft.difference(before, {**draft.values(stored, FIELDS), **_described_targets(stored)})
        if not new:
            return stored
        stored.save()
        record(
            actor,
            action="route.changed",
            object_type=KIND,
            object_id=stored.pk,
            object_name=stored.slug,
            before=old,
            after=new,
        )
    return stored


def archive_route(actor: Actor, *, route: Route) -> Route:
    """Leave a route out of what is published next; until then it is served as before."""
    with transaction.atomic():
        draft.editing()
        return draft.set_archived(actor, draft.locked(route), kind=KIND, archived=True)


def unarchive_route(actor: Actor, *, route: Route) -> Route:
    with transaction.atomic():
        draft.editing()
        return draft.set_archived(actor, draft.locked(route), kind=KIND, archived=False)


def pause_route(actor: Actor, *, route: Route, reason: str) -> Route:
    """Refuse calls of this route from now on, without publishing; callers are told the reason."""
    with transaction.atomic():
        return draft.set_paused(actor, draft.locked(route), kind=KIND, paused=True, reason=reason)


def resume_route(actor: Actor, *, route: Route, reason: str = "") -> Route:
    with transaction.atomic():
        return draft.set_paused(actor, draft.locked(route), kind=KIND, paused=False, reason=reason)


def _write_targets(route: Route, targets: Sequence[tuple[Model, int]], fallbacks: Sequence[Model]) -> None:
    rows = [
        RouteTarget(route=route, model=model, weight=weight, fallback=False, position=position)
        for position, (model, weight) in enumerate(sorted(targets, key=lambda target: target[0].slug))
    ]
    rows += [
        RouteTarget(route=route, model=model, fallback=True, position=position)
        for position, model in enumerate(fallbacks)
    ]
    # As stored: what the caller holds may be older than the archiving.
    archived = set(
        Model.objects.filter(pk__in=[row.model_id for row in rows], archived_at__isnull=False).values_list(
            "pk", flat=True
        )
    )
    for field, chosen in (("targets", [model for model, _ in targets]), ("fallbacks", list(fallbacks))):
        seen: set[object] = set()
        for model in chosen:
            if model.pk in archived:
                raise InvalidRequest(f"{field}: the model {model.slug} is archived.", param=field)
            if model.pk in seen:
                raise InvalidRequest(f"{field}: the model {model.slug} is named twice.", param=field)
            seen.add(model.pk)
    for model, weight in targets:
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= MOST_WEIGHT:
            raise InvalidRequest(
                f"targets: the weight of {model.slug} is a whole number from 0 to {MOST_WEIGHT}.",
                param="targets",
            )
    route.targets.all().delete()
    RouteTarget.objects.bulk_create(rows)


def _described_targets(route: Route) -> dict[str, Any]:
    rows = list(route.targets.select_related("model").order_by("position", "id"))
    return {
        "targets": {row.model.slug: row.weight for row in rows if not row.fallback},
        "fallbacks": [row.model.slug for row in rows if row.fallback],
    }
