"""People: accounts of the console. An account is deactivated, never removed: the trail speaks of it."""

from __future__ import annotations

from copy import copy
from typing import Any

from axes.models import AccessAttempt
from django.contrib.auth import get_user_model
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction

from llmops.access.selectors import powers_of, powers_of_actor
from llmops.access.services._administrators import somebody_must_remain
from llmops.access.services._rows import apply, locked, seen
from llmops.audit.services import record_about
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied

CHANGEABLE = ("email", "first_name", "last_name", "is_superuser")
_SHOWN = ("username", *CHANGEABLE, "is_active")


@transaction.atomic
def create_user(
    actor: Actor,
    *,
    username: str,
    password: str | None = None,
    email: str = "",
    first_name: str = "",
    last_name: str = "",
    is_superuser: bool = False,
) -> Any:
    """An account without any role. Without a ``password`` nobody can sign in with it until one is set."""
    User = get_user_model()  # noqa: N806
    must_manage(actor)
    _must_be_superuser(actor, is_superuser)
    if User.objects.filter(username__iexact=username).exists():
        raise Conflict(f"There is already an account {username!r}.", param="username")
    user = User(
        username=User.normalize_username(username),
        email=User.objects.normalize_email(email),
        first_name=first_name,
        last_name=last_name,
        is_superuser=is_superuser,
        is_staff=True,
    )
    _give_password(user, password)
    user.full_clean(exclude=["password"])
    user.save(force_insert=True)
    record_about(actor, user, action="user.created", after=seen(user, _SHOWN))
    return user


@transaction.atomic
def update_user(actor: Actor, *, user: Any, **changes: Any) -> Any:
    """Change ``email``, ``first_name``, ``last_name`` or ``is_superuser`` (superusers only)."""
    must_manage(actor)
    with somebody_must_remain():
        stored = locked(user)
        must_outrank(actor, stored)
        before = seen(stored, CHANGEABLE)
        if changes.get("is_superuser", stored.is_superuser) != stored.is_superuser:
            _must_be_superuser(actor, True)
        apply(stored, changes, allowed=CHANGEABLE)
        stored.full_clean(exclude=["password"])
        stored.save(update_fields=list(CHANGEABLE))
    record_about(actor, stored, action="user.changed", before=before, after=seen(stored, CHANGEABLE))
    return stored


def deactivate_user(actor: Actor, *, user: Any, reason: str = "") -> Any:
    """Close an account: its sessions end with their next request."""
    return _set_active(actor, user, active=False, reason=reason)


def activate_user(actor: Actor, *, user: Any, reason: str = "") -> Any:
    return _set_active(actor, user, active=True, reason=reason)


@transaction.atomic
def _set_active(actor: Actor, user: Any, *, active: bool, reason: str) -> Any:
    must_manage(actor)
    with somebody_must_remain():
        stored = locked(user)
        if stored.is_active == active:
            raise Conflict(f"{stored.get_username()} is {'already' if active else 'not'} active.")
        must_outrank(actor, stored)
        stored.is_active = active
        stored.save(update_fields=["is_active"])
    record_about(
        actor,
        stored,
        action="user.activated" if active else "user.deactivated",
        before={"is_active": not active},
        after={"is_active": active},
        reason=reason,
    )
    return stored


@transaction.atomic
def set_password(actor: Actor, *, user: Any, password: str) -> Any:
    """Set somebody else's password; every session of theirs ends."""
    must_manage(actor)
    stored = locked(user)
    must_outrank(actor, stored)
    _give_password(stored, password)
    stored.save(update_fields=["password"])
    record_about(actor, stored, action="user.password_set", after={"usable": stored.has_usable_password()})
    return stored


@transaction.atomic
def change_own_password(actor: Actor, *, user: Any, password: str) -> Any:
    """Whoever acts changes their own password; the surface has checked the old one."""
    if actor.kind != "user" or actor.identifier != str(user.pk):
        raise PermissionDenied("This changes one's own password only.")
    stored = locked(user)
    _give_password(stored, password)
    stored.save(update_fields=["password"])
    record_about(actor, stored, action="user.password_changed")
    return stored


@transaction.atomic
def unlock_user(actor: Actor, *, user: Any, reason: str = "") -> int:
    """Lift the pause after failed attempts to sign in; answers how many addresses were waiting."""
    must_manage(actor)
    removed, _ = AccessAttempt.objects.filter(username__iexact=user.get_username()).delete()
    record_about(actor, user, action="user.unlocked", before={"addresses": removed}, reason=reason)
    return removed


def _give_password(user: Any, password: str | None) -> None:
    if password is None:
        user.set_unusable_password()
        return
    try:
        validate_password(password, user)
    except ValidationError as refused:
        raise InvalidRequest(" ".join(refused.messages), param="password") from None
    user.set_password(password)


def must_manage(actor: Actor) -> None:
    if not powers_of_actor(actor).allow("member.manage", None):
        raise PermissionDenied("Only administrators of the whole organisation manage accounts.")


def must_outrank(actor: Actor, user: Any) -> None:
    """Whoever changes an account could act as it; so they must hold everything it holds."""
    _must_be_superuser(actor, user.is_superuser)
    when_active = copy(user)
    when_active.is_active = True
    if not powers_of_actor(actor).cover(powers_of(when_active)):
        raise PermissionDenied(f"{user.get_username()} may do things that you may not; ask somebody who may.")


def _must_be_superuser(actor: Actor, concerned: bool) -> None:
    if not concerned or actor.kind in ("command", "job", "system"):
        return
    if (
        actor.kind != "user"
        or not get_user_model()
        .objects.filter(pk=actor.identifier, is_active=True, is_superuser=True)
        .exists()
    ):
        raise PermissionDenied("Only a superuser makes or changes superusers.", param="is_superuser")
