"""Sessions on the record: signed in, refused, signed out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.dispatch import receiver
from django.utils import timezone

from llmops.access.services.sessions import forget_sign_in, note_sign_in
from llmops.audit.selectors import events
from llmops.audit.services import record, record_about
from llmops.base.requests import NOBODY, client_ip, seen_from, user_actor
from llmops.core.actors import Actor

#: The trail only grows, so an address that guesses cannot make it grow without end, nor can all of them together.
MOST_REFUSALS, REFUSALS_WINDOW = 60, timedelta(minutes=15)
MOST_OF_ALL = 600


@receiver(user_logged_in, dispatch_uid="access.signed_in")
def signed_in(sender: Any, request: Any, user: Any, **_: Any) -> None:
    how = getattr(request, "signed_in_by", "password")
    with transaction.atomic():
        if request is not None:
            note_sign_in(request, user, how)
        record_about(_actor(request, user), user, action="session.signed_in", after={"by": how})


@receiver(user_logged_out, dispatch_uid="access.signed_out")
def signed_out(sender: Any, request: Any, user: Any, **_: Any) -> None:
    if user is None:
        return
    with transaction.atomic():
        forget_sign_in(request)
        record_about(_actor(request, user), user, action="session.signed_out")


def code_refused(request: Any, user: Any, *, reason: str = "") -> None:
    """One event for a wrong second factor, a bounded number for an address."""
    _refused(request, user, reason)


@receiver(user_login_failed, dispatch_uid="access.sign_in_refused")
def sign_in_refused(sender: Any, credentials: dict[str, Any], request: Any = None, **_: Any) -> None:
    """One event per wrong attempt, none while the address is locked out, and a bounded number per address.

    The name is kept only where it is one of an account: people type passwords into that field.
    """
    if request is None or getattr(request, "axes_locked_out", False):
        return
    named = str(credentials.get("username") or "")
    user = get_user_model().objects.filter(username=named).first() if "\0" not in named else None
    _refused(request, user)


def _refused(request: Any, user: Any, reason: str = "") -> None:
    ip = client_ip(request)
    since = timezone.now() - REFUSALS_WINDOW
    told = events(action="session.refused", since=since)
    if told.filter(ip=ip)[:MOST_REFUSALS].count() >= MOST_REFUSALS:
        _not_listed(
            request, "session.refusals_passed_over", ip, f"more than {MOST_REFUSALS} from this address"
        )
        return
    if told[:MOST_OF_ALL].count() >= MOST_OF_ALL:
        _not_listed(
            request, "session.refusals_passed_over", "", f"more than {MOST_OF_ALL} from all addresses"
        )
        return
    with transaction.atomic():
        record(
            seen_from(request, NOBODY),
            action="session.refused",
            object_type="auth.user",
            object_id=user.pk if user else "",
            object_name=user.get_username() if user else "an account that does not exist",
            reason=reason,
        )


def _not_listed(request: Any, action: str, ip: str, why: str) -> None:
    """That what follows is not told one by one for a while: the flood itself is one event."""
    once(request, action, object_id=ip, object_name=ip or "many addresses", after={"why": why})


def once(request: Any, action: str, *, object_id: str, object_name: str, after: dict[str, Any]) -> None:
    """One event of ``action`` about this object and address in ``REFUSALS_WINDOW``, and ``MOST_REFUSALS`` of it in all."""
    told = events(action=action, since=timezone.now() - REFUSALS_WINDOW)
    same = told.filter(object_id=object_id)
    if action == "session.locked_out":
        same = same.filter(ip=client_ip(request))
    if same.exists() or told[:MOST_REFUSALS].count() >= MOST_REFUSALS:
        return
    with transaction.atomic():
        record(
            seen_from(request, NOBODY),
            action=action,
            object_type="auth.user",
            object_id=object_id,
            object_name=object_name,
            after=after,
        )


def _actor(request: Any, user: Any) -> Actor:
    if request is None:
        return user_actor(user)
    # While the signal is sent the request may still, or already, belong to nobody.
    return seen_from(request, user_actor(user))
