"""Second factors: one-time passwords of an app, and recovery codes. Each change is one event; no event holds a code."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from llmops.access.models import Passkey, SecondFactor
from llmops.access.sealed import factor_identity, offered_identity
from llmops.access.services._rows import locked
from llmops.access.services.people import must_manage, must_outrank
from llmops.audit.services import record_about
from llmops.base.master_keys import master_keys, usable_for_sealing
from llmops.core import one_time
from llmops.core.actors import Actor
from llmops.core.errors import ConfigurationRefused, Conflict, InvalidRequest, PermissionDenied, RateLimited

#: Wrong codes in a row, after which none is taken for a while.
MOST_FAILURES, CLOSED_FOR = 8, timedelta(minutes=15)
_WRONG = "This code is not the present one. Codes change every 30 seconds, and each works once; check the clock of the phone."


def offer_factor(user: Any) -> tuple[str, bytes]:
    """A new seed for ``user``, sealed for the form that confirms it, and plain for the page that shows it."""
    seed = one_time.new_seed()
    return usable_for_sealing().seal(seed.hex(), identity=offered_identity(user.pk)), seed


def opened_offer(user: Any, offered: str) -> bytes:
    """The seed of ``offer_factor``. Raises ``InvalidRequest`` for what was not offered to this person."""
    try:
        return bytes.fromhex(master_keys().open(offered, identity=offered_identity(user.pk)))
    except (ConfigurationRefused, ValueError):
        raise InvalidRequest("seed: this was not offered to you. Begin again.", param="seed") from None


@transaction.atomic
def add_factor(actor: Actor, *, user: Any, offered: str, code: str) -> list[str]:
    """Turn the second factor on with the first code of the app; answers the recovery codes, which are shown once."""
    _must_be(actor, user)
    seed = opened_offer(user, offered)
    step = one_time.step_of(seed, _plain(code), time.time())
    if step is None:
        raise InvalidRequest(f"code: {_WRONG}", param="code")
    stored = locked(user)
    if SecondFactor.objects.filter(user=stored).exists():
        raise Conflict("You have a second factor already. Remove it first.")
    codes = one_time.new_recovery_codes()
    factor = SecondFactor(
        user=stored, last_step=step, recovery_hashes=_hashes(codes), last_used_at=timezone.now()
    )
    factor.sealed = usable_for_sealing().seal(seed.hex(), identity=factor_identity(factor.pk))
    factor.save(force_insert=True)
    record_about(actor, stored, action="second_factor.added", after={"recovery_codes": len(codes)})
    return codes


def remove_own_factor(actor: Actor, *, user: Any, code: str, must_keep_one: bool = False) -> None:
    """Turn one's own app off; takes a code of it. A wrong one counts, so call it outside of a transaction.

    ``must_keep_one``: whoever has no passkey keeps it.
    """
    _must_be(actor, user)
    _taken(user, code)
    with transaction.atomic():
        locked(user)
        if must_keep_one and not Passkey.objects.filter(user=user).exists():
            raise Conflict("Your role takes a second factor, and this is your only one. Add a passkey first.")
        SecondFactor.objects.filter(user=user).delete()
        record_about(actor, user, action="second_factor.removed")


def renew_recovery_codes(actor: Actor, *, user: Any, code: str) -> list[str]:
    """New recovery codes in place of all earlier ones; takes a code, of which a wrong one counts as well."""
    _must_be(actor, user)
    _taken(user, code)
    codes = one_time.new_recovery_codes()
    with transaction.atomic():
        SecondFactor.objects.filter(user=user).update(recovery_hashes=_hashes(codes))
        record_about(actor, user, action="second_factor.codes_renewed", after={"recovery_codes": len(codes)})
    return codes


@transaction.atomic
def reset_factor(actor: Actor, *, user: Any, reason: str = "") -> None:
    """Remove somebody else's second factor and passkeys, whose phone and codes are lost."""
    must_manage(actor)
    stored = locked(user)
    must_outrank(actor, stored)
    apps, _ = SecondFactor.objects.filter(user=stored).delete()
    keys, _ = Passkey.objects.filter(user=stored).delete()
    if not apps + keys:
        raise Conflict(f"{stored.get_username()} has no second factor.")
    record_about(
        actor,
        stored,
        action="second_factor.reset",
        before={"app": bool(apps), "passkeys": keys},
        reason=reason,
    )


def take_code(user: Any, code: str) -> str:
    """Check a code at sign-in: ``app`` or ``recovery``. Raises ``InvalidRequest`` for a wrong one, ``RateLimited`` after many.

    A wrong one is counted whatever becomes of the caller's transaction, so call it outside of one.
    """
    return _taken(user, code)


def _taken(user: Any, code: str) -> str:
    factor = SecondFactor.objects.filter(user=user).first()
    if factor is None:
        raise Conflict("There is no second factor.")
    now = timezone.now()
    if factor.closed_until is not None and factor.closed_until > now:
        left = (factor.closed_until - now).total_seconds()
        raise RateLimited(
            f"Too many wrong codes: none is taken for {int(left // 60) + 1} minutes more.", retry_after=left
        )
    seed = bytes.fromhex(master_keys().open(factor.sealed, identity=factor_identity(factor.pk)))
    same = SecondFactor.objects.filter(pk=factor.pk)
    fresh = {"failures": 0, "closed_until": None, "last_used_at": now}
    step = one_time.step_of(seed, _plain(code), time.time(), after=factor.last_step)
    # By conditional update: of two who send the same code, one gets in.
    if step is not None and same.filter(last_step__lt=step).update(last_step=step, **fresh):
        return "app"
    hashed = one_time.recovery_hash(code)
    if hashed in factor.recovery_hashes:
        left_over = [one for one in factor.recovery_hashes if one != hashed]
        if same.filter(recovery_hashes=factor.recovery_hashes).update(recovery_hashes=left_over, **fresh):
            return "recovery"
    same.update(failures=F("failures") + 1)
    same.filter(failures__gte=MOST_FAILURES).update(failures=0, closed_until=now + CLOSED_FOR)
    raise InvalidRequest(f"code: {_WRONG}", param="code")


def _plain(code: str) -> str:
    return "".join(code.split())[:20]


def _hashes(codes: list[str]) -> list[str]:
    return [hashed for one in codes if (hashed := one_time.recovery_hash(one))]


def _must_be(actor: Actor, user: Any) -> None:
    if actor.kind != "user" or actor.identifier != str(user.pk):
        raise PermissionDenied("This changes one's own second factor only.")
