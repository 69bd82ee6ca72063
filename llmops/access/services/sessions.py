"""Sessions of people: noted when they begin, and ended by whose they are, or by an administrator."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from llmops.access.models import SignIn
from llmops.access.services.people import must_manage, must_outrank
from llmops.audit.services import record_about
from llmops.base.requests import SESSION_NOTED, client_ip
from llmops.core.actors import Actor
from llmops.core.errors import NotFound, PermissionDenied

#: How often it is noted that a session is in use.
SEEN_EVERY = timedelta(minutes=5)
_NOTED, _SEEN = SESSION_NOTED, "sign_in_seen"


def note_sign_in(request: Any, user: Any, how: str) -> None:
    """Note the session that ``request`` has just begun; inside the transaction of the event about it."""
    session = getattr(request, "session", None)
    if session is None:
        return
    if not session.session_key:
        session.save()
    now = timezone.now()
    row = SignIn.objects.create(
        user=user,
        session_key=session.session_key,
        ip=client_ip(request)[:64],
        agent=request.headers.get("user-agent", "").replace("\0", "")[:200],
        how=how,
        signed_in_at=now,
        seen_at=now,
    )
    session[_NOTED], session[_SEEN] = str(row.pk), now.timestamp()


def note_seen(request: Any) -> None:
    """Note that a session is in use, now and then; and under which key it goes by now."""
    session = request.session
    noted, seen = session.get(_NOTED), session.get(_SEEN, 0.0)
    now = timezone.now()
    if noted is None or now.timestamp() - seen < SEEN_EVERY.total_seconds():
        return
    SignIn.objects.filter(pk=noted).update(seen_at=now, session_key=session.session_key)
    session[_SEEN] = now.timestamp()


def key_changed(request: Any) -> None:
    """A session has another key now (its person changed the password)."""
    SignIn.objects.filter(pk=request.session.get(_NOTED)).update(session_key=request.session.session_key)


def forget_sign_in(request: Any) -> None:
    """A session ends by signing out."""
    session = getattr(request, "session", None)
    if session is not None and session.get(_NOTED):
        SignIn.objects.filter(pk=session[_NOTED]).delete()


def sign_ins_of(user: Any) -> list[SignIn]:
    """Sessions of a person that are not over, the one used last first."""
    oldest = timezone.now() - timedelta(seconds=settings.SESSION_COOKIE_AGE)
    return list(SignIn.objects.filter(user=user, signed_in_at__gte=oldest))


@transaction.atomic
def end_own_session(actor: Actor, *, user: Any, sign_in: Any) -> None:
    """Sign one's own other session out, with its next request."""
    _must_be(actor, user)
    row = SignIn.objects.filter(pk=sign_in, user=user).first()
    if row is None:
        raise NotFound("There is no such session of yours; it may have ended already.")
    _end([row])
    record_about(actor, user, action="session.ended", before={"from": row.ip, "since": row.signed_in_at})


@transaction.atomic
def end_other_sessions(actor: Actor, *, user: Any, but: str) -> int:
    """Sign out all of one's own sessions but the one with the key ``but``; how many."""
    _must_be(actor, user)
    rows = list(SignIn.objects.filter(user=user).exclude(session_key=but))
    _end(rows)
    record_about(actor, user, action="session.others_ended", before={"sessions": len(rows)})
    return len(rows)


@transaction.atomic
def end_sessions(actor: Actor, *, user: Any, reason: str = "") -> int:
    """Sign somebody out everywhere, with their next request; how many sessions it ended."""
    must_manage(actor)
    must_outrank(actor, user)
    rows = list(SignIn.objects.filter(user=user))
    _end(rows)
    record_about(actor, user, action="user.sessions_ended", before={"sessions": len(rows)}, reason=reason)
    return len(rows)


def _end(rows: list[SignIn]) -> None:
    store = import_module(settings.SESSION_ENGINE).SessionStore
    for row in rows:
        store(row.session_key).delete()
    SignIn.objects.filter(pk__in=[row.pk for row in rows]).delete()


def _must_be(actor: Actor, user: Any) -> None:
    if actor.kind != "user" or actor.identifier != str(user.pk):
        raise PermissionDenied("This ends one's own sessions only.")
