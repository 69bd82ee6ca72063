"""Routes: weighted targets and ordered fallbacks under one public name, and what is done when none of them can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from llmops.access.models import Project
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.live import LIVE_STATE, touch
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.providers.models import Model, Route, RouteTarget
from llmops.providers.rules import FAILURE_CLASSES, policies_problem
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
    "cache_tools",
    "clamp_output",
    "context_strategy",
    "larger_model",
    "summary_model",
    "last_resort",
    "static_answer",
    "max_concurrency",
    "queue_size",
    "queue_timeout_ms",
    "keep_alive_s",
    "policies",
)
#: Fields of ``FIELDS`` that refer to a model.
MODEL_FIELDS = ("larger_model", "summary_model")
_CLASSES = [name for name, _ in FAILURE_CLASSES]

#: Fallbacks after failures of one class, by its name.
FallbacksFor = Mapping[str, Sequence[Model]]


def create_route(
    actor: Actor,
    *,
    slug: str,
    targets: Sequence[tuple[Model, int]],
    fallbacks: Sequence[Model] = (),
    fallbacks_for: FallbacksFor | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Route:
    """A new route; ``targets`` are ``(model, weight)``, ``fallbacks`` in the order in which they are tried,
    ``fallbacks_for`` those that are tried instead after failures of a class.

    Raises ``InvalidRequest`` naming the field. A route without targets can be kept as a draft, not published.
    """
    with transaction.atomic():
        draft.editing()
        route = Route(slug=slug)
        draft.assign(route, fields or {}, allowed=FIELDS)
        _check(route, changed=fields or {})
        draft.inserted(route)
        _write_targets(route, targets, fallbacks, fallbacks_for or {})
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
    fallbacks_for: FallbacksFor | None = None,
    as_of: str = "",
) -> Route:
    """Change fields, and the targets, fallbacks or fallbacks by class as a whole where they are given; served once
    published. Without a difference nothing is written.

    Raises ``Conflict`` when the route's ``updated_at`` is not ``as_of`` (ISO 8601; empty: whatever it is) any more.
    """
    with transaction.atomic():
        draft.editing()
        stored = draft.locked(route)
        if as_of and stored.updated_at.isoformat() != as_of:
            raise Conflict(
                "Somebody changed this route while you were editing; nothing of yours was saved. Open it in another window, "
                "compare, and make your change again there."
            )
        before = {**draft.values(stored, FIELDS), **_described_targets(stored)}
        draft.assign(stored, changes or {}, allowed=FIELDS)
        _check(stored, changed=changes or {}, known=before["policies"])
        if targets is not None or fallbacks is not None or fallbacks_for is not None:
            present = list(stored.targets.select_related("model").order_by("position", "id"))
            by_class: dict[str, list[Model]] = {}
            for row in present:
                if row.fallback:
                    by_class.setdefault(row.failure_class, []).append(row.model)
            general = by_class.pop("", [])
            _write_targets(
                stored,
                [(row.model, row.weight) for row in present if not row.fallback]
                if targets is None
                else targets,
                general if fallbacks is None else fallbacks,
                by_class if fallbacks_for is None else fallbacks_for,
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
    """Leave a route out of what is published next; until then it is served as before. Refused while a project in use
    sends the requests to it that name no model.
    """
    with transaction.atomic():
        draft.editing()
        stored = draft.locked(route)
        users = list(
            Project.objects.filter(default_route=stored.slug, archived_at=None)
            .order_by("slug")
            .values_list("slug", flat=True)[:6]
        )
        if users:
            raise Conflict(
                f"{stored.slug} is the default route of the projects {', '.join(users[:5])}"
                f"{' and others' if len(users) > 5 else ''}. Give them another one first."
            )
        return draft.set_archived(actor, stored, kind=KIND, archived=True)


def unarchive_route(actor: Actor, *, route: Route) -> Route:
    with transaction.atomic():
        draft.editing()
        return draft.set_archived(actor, draft.locked(route), kind=KIND, archived=False)


def pause_route(actor: Actor, *, route: Route, reason: str) -> Route:
    """Refuse calls of this route from now on, without publishing; callers are told the reason."""
    return _throw(actor, route, draft.PAUSED, on=True, reason=reason)


def resume_route(actor: Actor, *, route: Route, reason: str = "") -> Route:
    return _throw(actor, route, draft.PAUSED, on=False, reason=reason)


def degrade_route(actor: Actor, *, route: Route, reason: str) -> Route:
    """Pass over the targets of this route from now on, without publishing: its fallbacks answer, then its last resort."""
    return _throw(actor, route, draft.DEGRADED, on=True, reason=reason)


def recover_route(actor: Actor, *, route: Route, reason: str = "") -> Route:
    """Use the targets of a degraded route again."""
    return _throw(actor, route, draft.DEGRADED, on=False, reason=reason)


def reset_breakers_route(actor: Actor, *, route: Route, reason: str = "") -> Route:
    """Have every data plane close this route's breakers and forget what made them open; felt within a second."""
    if len(reason) > 300:
        raise InvalidRequest("reason: at most 300 characters are kept.", param="reason")
    with transaction.atomic():
        stored = draft.locked(route)
        before = stored.breakers_reset_at
        # Each reset is a moment of its own, whatever the clock says.
        now = database_now()
        stored.breakers_reset_at = (
            now if before is None or now > before else before + timedelta(microseconds=1)
        )
        stored.save(update_fields=["breakers_reset_at"])
        touch(LIVE_STATE)
        record(
            actor,
            action="route.breakers_reset",
            object_type=KIND,
            object_id=stored.pk,
            object_name=stored.slug,
            before={"breakers_reset_at": before.isoformat() if before else None},
            after={"breakers_reset_at": stored.breakers_reset_at.isoformat()},
            reason=reason.strip(),
        )
    return stored


def _throw(actor: Actor, route: Route, switch: draft.Switch, *, on: bool, reason: str) -> Route:
    with transaction.atomic():
        return draft.throw(actor, draft.locked(route), switch, kind=KIND, on=on, reason=reason)


def _missing_policies(names: list[str]) -> list[str]:
    """Asks the room of the policies, which lies beside this one: ``settings.MISSING_POLICIES``."""
    found: list[str] = import_string(settings.MISSING_POLICIES)(names) if names else []
    return found


def _check(route: Route, *, changed: Mapping[str, Any], known: Sequence[str] = ()) -> None:
    """``known`` are policies that the route names already; one may have been put away since it was."""
    if isinstance(route.static_answer, str):
        # A browser sends both characters of a line's end.
        route.static_answer = route.static_answer.replace("\r\n", "\n")
    if problem := policies_problem(route.policies):
        raise InvalidRequest(f"policies: {problem}.", param="policies")
    draft.checked(route, lines=("static_answer",))
    if unknown := _missing_policies([name for name in route.policies if name not in known]):
        raise InvalidRequest(
            f"policies: there is no policy {unknown[0]!r} in use; add it first.", param="policies"
        )
    # As stored: what the caller holds may be older than the archiving.
    for field in MODEL_FIELDS:
        model = changed.get(field)
        if model is not None and Model.objects.filter(pk=model.pk, archived_at__isnull=False).exists():
            raise InvalidRequest(f"{field}: the model {model.slug} is archived.", param=field)


def _write_targets(
    route: Route,
    targets: Sequence[tuple[Model, int]],
    fallbacks: Sequence[Model],
    fallbacks_for: FallbacksFor,
) -> None:
    if unknown := sorted(set(fallbacks_for) - set(_CLASSES)):
        raise InvalidRequest(
            f"fallbacks_for: {unknown[0]!r} is not a class of failure. Classes: {', '.join(_CLASSES)}.",
            param="fallbacks_for",
        )
    rows = [
        RouteTarget(route=route, model=model, weight=weight, fallback=False, position=position)
        for position, (model, weight) in enumerate(sorted(targets, key=lambda target: target[0].slug))
    ]
    rows += [
        RouteTarget(route=route, model=model, fallback=True, failure_class=name, position=position)
        for name, chosen in [("", fallbacks), *fallbacks_for.items()]
        for position, model in enumerate(chosen)
    ]
    # As stored: what the caller holds may be older than the archiving.
    archived = set(
        Model.objects.filter(pk__in=[row.model_id for row in rows], archived_at__isnull=False).values_list(
            "pk", flat=True
        )
    )
    named: list[tuple[str, str, Sequence[Model]]] = [
        ("targets", "targets", [model for model, _ in targets]),
        ("fallbacks", "fallbacks", fallbacks),
        *(("fallbacks_for", f"fallbacks_for.{name}", chosen) for name, chosen in fallbacks_for.items()),
    ]
    for field, path, chosen in named:
        seen: set[object] = set()
        for model in chosen:
            if model.pk in archived:
                raise InvalidRequest(f"{path}: the model {model.slug} is archived.", param=field)
            if model.pk in seen:
                raise InvalidRequest(f"{path}: the model {model.slug} is named twice.", param=field)
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
    by_class: dict[str, list[str]] = {}
    for row in rows:
        if row.failure_class:
            by_class.setdefault(row.failure_class, []).append(row.model.slug)
    return {
        "targets": {row.model.slug: row.weight for row in rows if not row.fallback},
        "fallbacks": [row.model.slug for row in rows if row.fallback and not row.failure_class],
        "fallbacks_for": dict(sorted(by_class.items())),
    }
