"""Memberships: who holds which role where. Only who holds everything a role allows may give it."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from llmops.access.models import Membership, Project
from llmops.access.rules import ROLES
from llmops.access.selectors import powers_of_actor, powers_of_roles
from llmops.access.services._administrators import somebody_must_remain
from llmops.access.services._rows import locked
from llmops.audit.services import record_about
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied


@transaction.atomic
def add_member(actor: Actor, *, user: Any, project: Project | None, role: str) -> Membership:
    """Give ``user`` the ``role`` in ``project`` (None: in the whole organisation)."""
    _must_hold(actor, project, role)
    if not user.is_active:
        raise Conflict(f"{user.get_username()} is deactivated; activate the account first.", param="user")
    if project is not None and project.archived_at is not None:
        raise Conflict(f"The project {project.slug} is archived; restore it first.", param="project")
    _refuse_second(user, project, role)
    membership = Membership(user=user, project=project, role=role)
    membership.full_clean()
    membership.save(force_insert=True)
    record_about(actor, membership, action="member.added", after=_shown(membership))
    return membership


@transaction.atomic
def change_role(actor: Actor, *, membership: Membership, role: str) -> Membership:
    """Replace the role of a membership by another."""
    with somebody_must_remain():
        stored = locked(membership)
        _must_hold(actor, stored.project, role)
        _must_hold(actor, stored.project, stored.role)
        if role != stored.role:
            _refuse_second(stored.user, stored.project, role)
        before = _shown(stored)
        stored.role = role
        stored.full_clean()
        stored.save()
    record_about(actor, stored, action="member.role_changed", before=before, after=_shown(stored))
    return stored


@transaction.atomic
def remove_member(actor: Actor, *, membership: Membership, reason: str = "") -> None:
    """Take a role away."""
    with somebody_must_remain():
        stored = locked(membership)
        _must_hold(actor, stored.project, stored.role)
        gone = Membership(
            pk=stored.pk, user_id=stored.user_id, project_id=stored.project_id, role=stored.role
        )
        stored.delete()
    record_about(actor, gone, action="member.removed", before=_shown(gone), reason=reason)


def _shown(membership: Membership) -> dict[str, Any]:
    return {
        "user": membership.user.get_username(),
        "project": membership.project.slug if membership.project else None,
        "role": membership.role,
    }


def _must_hold(actor: Actor, project: Project | None, role: str) -> None:
    """Refuse whoever does not manage members there, or would give or take more than they hold themselves."""
    if role not in ROLES:
        raise InvalidRequest(f"There is no role {role!r}. Roles are {', '.join(ROLES)}.", param="role")
    powers = powers_of_actor(actor)
    place = project.pk if project is not None else None
    where = f"the project {project.slug}" if project is not None else "the whole organisation"
    if not powers.allow("member.manage", place):
        raise PermissionDenied(f"Only administrators of {where} manage its members.", param="project")
    if not powers.cover(powers_of_roles({place: [role]})):
        raise PermissionDenied(f"You do not hold all that the role {role!r} allows in {where}.", param="role")


def _refuse_second(user: Any, project: Project | None, role: str) -> None:
    if Membership.objects.filter(user=user, project=project, role=role).exists():
        where = f"in {project.slug}" if project is not None else "in the whole organisation"
        raise Conflict(f"{user.get_username()} is {role} {where} already.", param="role")
