"""Passkeys of people: added, removed, and taken at sign-in. Each change is one event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from llmops.access import passkeys
from llmops.access.models import Passkey, SecondFactor
from llmops.access.services._rows import locked
from llmops.audit.services import record_about
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, NotFound, PermissionDenied

#: Of one person. More are forgotten in drawers.
MOST_PASSKEYS = 10


def known_to(user: Any) -> list[passkeys.Known]:
    return [
        passkeys.Known(one.credential_id, bytes.fromhex(one.credential), tuple(one.transports))
        for one in Passkey.objects.filter(user=user)
    ]


def offer_passkey(user: Any) -> tuple[dict[str, Any], str]:
    """What the browser is asked to make for ``user``, and the challenge to keep until it has."""
    return passkeys.registration_options(
        user_handle=f"user:{user.pk}".encode(),
        name=user.get_username(),
        shown=user.get_full_name(),
        known=known_to(user),
    )


@transaction.atomic
def add_passkey(actor: Actor, *, user: Any, name: str, answer: Mapping[str, Any], challenge: str) -> Passkey:
    """Keep the passkey that the browser made for ``challenge``, under a ``name`` by which its person knows it."""
    _must_be(actor, user)
    name = " ".join(name.split())[:80]
    if not name:
        raise InvalidRequest("name: give it a name, such as the device that it is on.", param="name")
    made = passkeys.registered(answer, challenge=challenge)
    stored = locked(user)
    own = Passkey.objects.filter(user=stored)
    if own.count() >= MOST_PASSKEYS:
        raise Conflict(f"You have {MOST_PASSKEYS} passkeys. Remove one first.")
    if own.filter(name__iexact=name).exists():
        raise Conflict(
            f"name: you have a passkey {name!r} already. Give this one another name.", param="name"
        )
    if Passkey.objects.filter(credential_id=made.credential_id).exists():
        raise Conflict("This passkey is in use already.")
    row = Passkey.objects.create(
        user=stored,
        name=name,
        credential_id=made.credential_id,
        credential=made.data.hex(),
        sign_count=made.count,
        transports=list(made.transports),
        synced=made.synced,
    )
    record_about(actor, stored, action="passkey.added", after={"name": name, "synced": made.synced})
    return row


@transaction.atomic
def remove_passkey(actor: Actor, *, user: Any, passkey: Any, must_keep_one: bool) -> str:
    """Remove one's own passkey; answers its name. ``must_keep_one``: the last second factor stays."""
    _must_be(actor, user)
    stored = locked(user)
    row = Passkey.objects.filter(pk=passkey, user=stored).first()
    if row is None:
        raise NotFound("There is no such passkey of yours; it may have been removed already.")
    if must_keep_one and factors_of(stored) == 1:
        raise Conflict(
            "Your role takes a second factor, and this is your only one. Add another before you remove it."
        )
    row.delete()
    record_about(actor, stored, action="passkey.removed", before={"name": row.name})
    return row.name


def factors_of(user: Any) -> int:
    """How many second factors somebody has: the app counts once, each passkey once."""
    return SecondFactor.objects.filter(user=user).count() + Passkey.objects.filter(user=user).count()


def ask_for_passkey(user: Any) -> tuple[dict[str, Any], str]:
    """What the browser is asked at sign-in, and the challenge to keep until it has answered."""
    return passkeys.assertion_options(known_to(user))


def take_passkey(user: Any, *, answer: Mapping[str, Any], challenge: str) -> str:
    """Check the browser's answer at sign-in: ``passkey``. Raises ``InvalidRequest`` for whatever is not so.

    A counter that did not go up says that the passkey was copied; authenticators without one send 0 always.
    """
    found = passkeys.asserted(answer, challenge=challenge, known=known_to(user))
    moves = Q(sign_count__lt=found.count) if found.count else Q(sign_count=0)
    same = Passkey.objects.filter(moves, user=user, credential_id=found.credential_id)
    # By conditional update: of two who send what one signed, one gets in.
    if not same.update(sign_count=found.count, last_used_at=timezone.now()):
        raise PermissionDenied(
            "This passkey was used elsewhere since: it may have been copied. Use another way to sign in, and remove it."
        )
    return "passkey"


def _must_be(actor: Actor, user: Any) -> None:
    if actor.kind != "user" or actor.identifier != str(user.pk):
        raise PermissionDenied("This changes one's own passkeys only.")
