"""Service keys: issued, changed, rotated, revoked. A secret leaves this module once, in the ``IssuedKey`` it made."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from llmops.access import secrets
from llmops.access.models import Project, ServiceKey
from llmops.access.rules import INTERACTIVE, SCOPE_PERMISSIONS, SCOPES, WIDE_SCOPES
from llmops.access.selectors import (
    addresses_of_administrators,
    grace_in_words,
    graces_that_end_soon,
    powers_of_actor,
)
from llmops.access.services._rows import apply, check_limits, locked, seen
from llmops.audit.services import record_about
from llmops.base.live import LIVE_STATE, touch
from llmops.core.actors import Actor
from llmops.core.digests import sha256_hex
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.core.texts import text_problem

log = logging.getLogger(__name__)

CHANGEABLE = (
    "name",
    "scopes",
    "allowed_routes",
    "allowed_models",
    "rpm",
    "tpm",
    "concurrency",
    "priority",
    "expires_at",
)
DEFAULT_GRACE = timedelta(hours=24)
LONGEST_GRACE = timedelta(days=30)
_MOST_NAMES, _LONGEST_NAME = 200, 200
# The model's own validation takes an empty list for a missing one.
_CHECKED_HERE = ("scopes", "allowed_routes", "allowed_models")


@dataclass(frozen=True)
class IssuedKey:
    """A key and its secret, which is shown now or never."""

    key: ServiceKey
    secret: str = field(repr=False)


@transaction.atomic
def create_service_key(
    actor: Actor,
    *,
    project: Project,
    name: str,
    scopes: Sequence[str] = ("inference",),
    allowed_routes: Sequence[str] = ("*",),
    allowed_models: Sequence[str] = (),
    rpm: int | None = None,
    tpm: int | None = None,
    concurrency: int | None = None,
    priority: str = INTERACTIVE,
    expires_at: datetime | None = None,
    secret: str | None = None,
    held_by_console: bool = False,
) -> IssuedKey:
    """Issue a key for ``project``. ``secret`` declares it (see ``access.secrets``); otherwise it is made at random.
    ``held_by_console``: whoever calls this keeps the secret sealed and shows it to nobody.

    Limits are requests and tokens per minute and calls at once; None means unlimited. Raises ``PermissionDenied`` for
    scopes that the actor does not hold there, ``Conflict`` for a name that is taken.
    """
    if project.archived_at is not None:
        raise Conflict(f"The project {project.slug} is archived; restore it first.", param="project")
    key = ServiceKey(
        project=project,
        name=name,
        scopes=_scopes(scopes),
        allowed_routes=_names(allowed_routes, "allowed_routes"),
        allowed_models=_names(allowed_models, "allowed_models"),
        rpm=rpm,
        tpm=tpm,
        concurrency=concurrency,
        priority=priority,
        expires_at=_ahead(expires_at),
        held_by_console=held_by_console,
    )
    _must_hold(actor, project, key.scopes)
    plain = secrets.new_secret() if secret is None else secrets.check_declared(secret)
    _refuse_taken(key, plain)
    key.prefix, key.secret_hash = secrets.prefix_of(plain), sha256_hex(plain.encode())
    check_limits(key)
    key.full_clean(exclude=_CHECKED_HERE)
    key.save(force_insert=True)
    touch(LIVE_STATE)
    record_about(
        actor, key, action="service_key.created", after={"prefix": key.prefix, **seen(key, CHANGEABLE)}
    )
    return IssuedKey(key, plain)


@transaction.atomic
def update_service_key(actor: Actor, *, key: ServiceKey, **changes: Any) -> ServiceKey:
    """Change limits, scopes, allowed routes and models, name or expiry; felt by every data plane within a second."""
    stored = _usable(key)
    before = seen(stored, CHANGEABLE)
    if "scopes" in changes:
        changes["scopes"] = _scopes(changes["scopes"])
    _must_hold(actor, stored.project, set(changes.get("scopes", ())) - set(stored.scopes))
    for name in ("allowed_routes", "allowed_models"):
        if name in changes:
            changes[name] = _names(changes[name], name)
    if changes.get("expires_at") != stored.expires_at:
        _ahead(changes.get("expires_at"))
    apply(stored, changes, allowed=CHANGEABLE)
    if stored.name != before["name"]:
        _refuse_taken(stored, None)
    check_limits(stored)
    stored.full_clean(exclude=_CHECKED_HERE)
    stored.save()
    touch(LIVE_STATE)
    record_about(actor, stored, action="service_key.changed", before=before, after=seen(stored, CHANGEABLE))
    return stored


@transaction.atomic
def rotate_service_key(
    actor: Actor,
    *,
    key: ServiceKey,
    grace: timedelta = DEFAULT_GRACE,
    secret: str | None = None,
    reason: str = "",
) -> IssuedKey:
    """Give ``key`` a new secret. Until ``grace`` is over the present one works too; zero ends it at once.

    A secret still in grace from an earlier rotation ends now: at most two work at any time. Whoever rotates learns the
    new secret, so they must hold everything the key may do.
    """
    if not timedelta(0) <= grace <= LONGEST_GRACE:
        raise InvalidRequest(
            f"grace is between 0 and {LONGEST_GRACE.days} days; for longer, issue a second key.",
            param="grace",
        )
    stored = _usable(key)
    if stored.held_by_console:
        raise Conflict(
            f"The key {stored.name} is the console's own, and nobody is shown its secret. Revoke it; the console asks for "
            "another one when it needs it."
        )
    _must_hold(actor, stored.project, stored.scopes)
    plain = secrets.new_secret() if secret is None else secrets.check_declared(secret)
    _refuse_taken(stored, plain)
    before = {"prefix": stored.prefix}
    stored.previous_prefix = stored.prefix if grace else ""
    stored.rotated_at = timezone.now()
    stored.previous_last_used_at = stored.grace_reminded_at = None
    stored.previous_hash = stored.secret_hash if grace else None
    stored.previous_valid_until = timezone.now() + grace if grace else None
    stored.prefix, stored.secret_hash = secrets.prefix_of(plain), sha256_hex(plain.encode())
    stored.save()
    touch(LIVE_STATE)
    record_about(
        actor,
        stored,
        action="service_key.rotated",
        before=before,
        after={"prefix": stored.prefix, "previous_valid_until": stored.previous_valid_until},
        reason=reason,
    )
    return IssuedKey(stored, plain)


@transaction.atomic
def revoke_service_key(actor: Actor, *, key: ServiceKey, reason: str = "") -> ServiceKey:
    """End ``key`` and its predecessor for good; felt by every data plane within a second."""
    stored = _usable(key)
    _must_hold(actor, stored.project, ())
    stored.revoked_at = timezone.now()
    _end_predecessor(stored)
    stored.save()
    touch(LIVE_STATE)
    record_about(
        actor,
        stored,
        action="service_key.revoked",
        before={"revoked": False},
        after={"revoked": True},
        reason=reason,
    )
    return stored


def pause_service_key(actor: Actor, *, key: ServiceKey, reason: str) -> ServiceKey:
    """Refuse calls with ``key`` from now on, until it is resumed; callers are told the reason."""
    if not reason.strip():
        raise InvalidRequest(
            "reason: say why the key is paused; callers and on-call read it.", param="reason"
        )
    return _throw(actor, key, on=True, reason=reason)


def resume_service_key(actor: Actor, *, key: ServiceKey, reason: str = "") -> ServiceKey:
    return _throw(actor, key, on=False, reason=reason)


@transaction.atomic
def _throw(actor: Actor, key: ServiceKey, *, on: bool, reason: str) -> ServiceKey:
    reason = reason.strip()
    if len(reason) > 300:
        raise InvalidRequest("reason: at most 300 characters are kept.", param="reason")
    if problem := text_problem(reason):
        raise InvalidRequest(f"reason: {problem}.", param="reason")
    stored = _usable(key)
    _must_hold(actor, stored.project, ())
    if (stored.paused_at is not None) == on:
        raise Conflict(f"{stored.name} is {'already' if on else 'not'} paused.")
    stored.paused_at, stored.pause_reason = (timezone.now(), reason) if on else (None, "")
    stored.save()
    touch(LIVE_STATE)
    record_about(
        actor,
        stored,
        action="service_key.paused" if on else "service_key.resumed",
        before={"paused": not on},
        after={"paused": on},
        reason=reason,
    )
    return stored


@transaction.atomic
def end_grace(actor: Actor, *, key: ServiceKey, reason: str = "") -> ServiceKey:
    """End the predecessor of ``key`` before its time; felt by every data plane within a second."""
    stored = _usable(key)
    _must_hold(actor, stored.project, ())
    until = stored.previous_valid_until
    if stored.previous_hash is None or until is None or until <= timezone.now():
        raise Conflict(f"No earlier secret of {stored.name} works any more.")
    before = {"previous_prefix": stored.previous_prefix, "previous_valid_until": until}
    _end_predecessor(stored)
    stored.save()
    touch(LIVE_STATE)
    record_about(
        actor,
        stored,
        action="service_key.grace_ended",
        before=before,
        after={"previous_prefix": "", "previous_valid_until": None},
        reason=reason,
    )
    return stored


def remind_of_graces(*, now: datetime | None = None) -> int:
    """E-mail owners of projects about secrets that end soon and were used since they were replaced; how many it told of.

    Each is told of once. Observations, like a key's last use: no audit event.
    """
    now = now or timezone.now()
    told = 0
    for key in graces_that_end_soon(now):
        if key.grace_reminded_at is not None:
            continue
        with transaction.atomic():
            claimed = ServiceKey.objects.filter(pk=key.pk, grace_reminded_at=None).update(
                grace_reminded_at=now
            )
            if not claimed:
                continue
            told += 1
            addresses = [key.project.owner] if key.project.owner else addresses_of_administrators()
            subject = f"The old secret of {key.name} ends at {key.previous_valid_until:%Y-%m-%d %H:%M} UTC"
            text = (
                f"{grace_in_words(key, now)}\n\nWhoever still calls with it is refused then. Give them the new secret, or "
                f"rotate with a longer grace.\n\n{settings.PUBLIC_URL}/admin/access/servicekey/{key.pk}/change/\n"
            )
            transaction.on_commit(partial(_send, subject, text, addresses))
    return told


def note_old_secrets(used: Mapping[UUID, datetime]) -> None:
    """Earlier secrets were sent in calls at these moments, by key; inside the caller's transaction. Not about a secret that was
    replaced since."""
    for pk, at in sorted(used.items()):
        ServiceKey.objects.filter(
            Q(previous_last_used_at=None) | Q(previous_last_used_at__lt=at),
            pk=pk,
            previous_hash__isnull=False,
            rotated_at__lte=at,
        ).update(previous_last_used_at=at)


def _send(subject: str, text: str, addresses: list[str]) -> None:
    for one in addresses:
        try:
            send_mail(subject, text, None, [one])
        except Exception:
            log.exception("an e-mail about the grace of a service key was not sent")


def _end_predecessor(key: ServiceKey) -> None:
    key.previous_hash = key.previous_valid_until = key.previous_last_used_at = None
    key.previous_prefix = ""


def _usable(key: ServiceKey) -> ServiceKey:
    stored = locked(key)
    if stored.revoked_at is not None:
        raise Conflict(
            f"The key {stored.name} was revoked at {stored.revoked_at:%Y-%m-%d %H:%M} UTC; issue a new one."
        )
    return stored


def _must_hold(actor: Actor, project: Project, scopes: Collection[str]) -> None:
    """Refuse whoever does not manage keys there, and scopes that reach further than they do, lest a key be a way up."""
    powers = powers_of_actor(actor)
    if not powers.allow("service_key.manage", project.pk):
        raise PermissionDenied(f"You do not manage the keys of the project {project.slug}.", param="project")
    wide = sorted(WIDE_SCOPES.intersection(scopes))
    if wide and not powers.allow("service_key.manage", None):
        raise PermissionDenied(
            f"Only who manages keys of the whole organisation may give the scope {wide[-1]!r}.",
            param="scopes",
        )
    place = None if "organisation" in scopes else project.pk
    for scope in sorted(scopes):
        wanted = SCOPE_PERMISSIONS[scope]
        held = (
            powers.everywhere
            if place is None
            else powers.everywhere | powers.by_project.get(place, frozenset())
        )
        if lacking := sorted(wanted - held):
            raise PermissionDenied(
                f"You cannot give the scope {scope!r}: it allows {', '.join(lacking)}, which you may not do "
                + ("in the whole organisation." if place is None else f"in the project {project.slug}."),
                param="scopes",
            )


def _refuse_taken(key: ServiceKey, secret: str | None) -> None:
    others = ServiceKey.objects.exclude(pk=key.pk)
    if others.filter(project=key.project, name=key.name).exists():
        raise Conflict(f"The project {key.project.slug} already has a key {key.name!r}.", param="name")
    if secret is None:
        return
    hashed = sha256_hex(secret.encode())
    # Its own hashes count too: rotating to the secret one has would rotate nothing.
    if ServiceKey.objects.filter(Q(secret_hash=hashed) | Q(previous_hash=hashed)).exists():
        raise Conflict("This secret is in use already; declare another one.", param="secret")


def _scopes(given: Sequence[str]) -> list[str]:
    unknown = sorted(set(given) - set(SCOPES))
    if unknown:
        raise InvalidRequest(
            f"There is no scope {unknown[0]!r}. Scopes are {', '.join(SCOPES)}.", param="scopes"
        )
    if not set(given) - {"organisation"}:
        raise InvalidRequest(
            "A key needs at least one scope beside 'organisation', such as 'inference'.", param="scopes"
        )
    return [scope for scope in SCOPES if scope in given]


def _names(given: Sequence[str], param: str) -> list[str]:
    names = list(dict.fromkeys(given))
    if len(names) > _MOST_NAMES:
        raise InvalidRequest(f'{param} holds at most {_MOST_NAMES} names; use "*" for all.', param=param)
    for name in names:
        if not isinstance(name, str) or not name.strip() or len(name) > _LONGEST_NAME or "\0" in name:
            raise InvalidRequest(f'{param} is a list of names or "*".', param=param)
    return names


def _ahead(expires_at: datetime | None) -> datetime | None:
    if expires_at is None:
        return None
    if timezone.is_naive(expires_at):
        raise InvalidRequest(
            "expires_at needs a time zone, such as 2027-01-31T00:00:00Z.", param="expires_at"
        )
    if expires_at <= timezone.now():
        raise InvalidRequest("expires_at lies in the past; revoke the key to end it now.", param="expires_at")
    return expires_at
