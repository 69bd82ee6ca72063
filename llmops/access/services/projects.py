"""Projects: made, changed, archived. A project is never removed, because its calls and its spend stay."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.module_loading import import_string

from llmops.access.models import Project
from llmops.access.services._rows import apply, check_limits, locked, seen
from llmops.audit.services import record_about
from llmops.base.live import LIVE_STATE, touch
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest

#: The slug is not among them: budgets and calls of the past name it.
CHANGEABLE = (
    "name",
    "owner",
    "cost_center",
    "default_route",
    "rpm",
    "tpm",
    "concurrency",
    "keep_texts_percent",
    "keep_texts_days",
    "keep_texts_readable",
)
_SHOWN = ("slug", *CHANGEABLE)


@transaction.atomic
def create_project(
    actor: Actor,
    *,
    slug: str,
    name: str = "",
    owner: str = "",
    cost_center: str = "",
    default_route: str = "",
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
    keep_texts_percent: int = 0,
    keep_texts_days: int = 7,
    keep_texts_readable: bool = False,
) -> Project:
    """A new project. ``name`` defaults to the slug; limits are requests and tokens per minute and calls at once over all
    its keys, None for none. Raises ``Conflict`` where the slug is taken.
    """
    if Project.objects.filter(slug=slug).exists():
        raise Conflict(f"There is already a project {slug!r}.", param="slug")
    project = Project(
        slug=slug,
        name=name or slug,
        owner=owner,
        cost_center=cost_center,
        default_route=default_route,
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        keep_texts_percent=keep_texts_percent,
        keep_texts_days=keep_texts_days,
        keep_texts_readable=keep_texts_readable,
    )
    _check(project, before="")
    project.save(force_insert=True)
    touch(LIVE_STATE)
    record_about(actor, project, action="project.created", after=seen(project, _SHOWN), project_id=project.pk)
    return project


@transaction.atomic
def update_project(actor: Actor, *, project: Project, **changes: Any) -> Project:
    """Change any of ``CHANGEABLE``; limits and the default route are felt by every data plane within a second."""
    stored = locked(project)
    before = seen(stored, CHANGEABLE)
    apply(stored, changes, allowed=CHANGEABLE)
    _check(stored, before=before["default_route"])
    stored.save()
    touch(LIVE_STATE)
    record_about(
        actor,
        stored,
        action="project.changed",
        before=before,
        after=seen(stored, CHANGEABLE),
        project_id=stored.pk,
    )
    return stored


def _check(project: Project, *, before: str) -> None:
    """Raises ``ValidationError`` or ``InvalidRequest``; a default route that stays may have been archived since."""
    check_limits(project)
    project.full_clean()
    if project.default_route != before and project.default_route and not _route_exists(project.default_route):
        raise InvalidRequest(
            f"default_route: there is no route {project.default_route!r}; add it first.",
            param="default_route",
        )


def _route_exists(slug: str) -> bool:
    """Asks the room of the routes, which lies above this one: ``settings.ROUTE_EXISTS``."""
    return bool(import_string(settings.ROUTE_EXISTS)(slug))


def archive_project(actor: Actor, *, project: Project, reason: str = "") -> Project:
    """Close a project: its keys stop working at once, everything recorded stays readable."""
    return _set_archived(actor, project, archived=True, reason=reason)


def restore_project(actor: Actor, *, project: Project, reason: str = "") -> Project:
    """Open an archived project again; its keys that were not revoked work again."""
    return _set_archived(actor, project, archived=False, reason=reason)


@transaction.atomic
def _set_archived(actor: Actor, project: Project, *, archived: bool, reason: str) -> Project:
    stored = locked(project)
    if (stored.archived_at is not None) == archived:
        raise Conflict(f"The project {stored.slug} is {'already' if archived else 'not'} archived.")
    stored.archived_at = timezone.now() if archived else None
    stored.save(update_fields=["archived_at", "updated_at"])
    touch(LIVE_STATE)
    record_about(
        actor,
        stored,
        action="project.archived" if archived else "project.restored",
        before={"archived": not archived},
        after={"archived": archived},
        reason=reason,
        project_id=stored.pk,
    )
    return stored
