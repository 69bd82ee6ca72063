"""Telling those who may decide of what waits: a message with a link, and never a button that approves.

Requests are claimed by conditional UPDATE and told of in one message for a project, at most one in five minutes, so that a
thousand proposals are no thousand e-mails. What could not be handed over for certain is told of again; what may have gone out is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage, get_connection
from django.db.models import Max, Q
from django.utils.module_loading import import_string

from llmops.access.holders import holders_of_key
from llmops.access.rules import PERMISSIONS
from llmops.approvals.kinds import Kind, kind_named
from llmops.approvals.models import Request
from llmops.approvals.standing_in import stand_ins_for
from llmops.base.clock import database_now
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest
from llmops.core.redaction import redact_text

log = logging.getLogger(__name__)

#: Between two messages about one project; what ends soon does not wait for it.
PAUSE, HURRY = timedelta(minutes=5), timedelta(minutes=15)
_LISTED = 20


class NotReached(Exception):
    """Nothing went out: it can be tried again."""


def tell_of_what_waits(now: datetime | None = None) -> int:
    """Tell of requests that nobody was told of; how many."""
    now = now or database_now()
    untold = Request.objects.filter(state=Request.OPEN, told_at=None, expires_at__gt=now)
    told = 0
    for project_id in untold.order_by().values_list("project_id", flat=True).distinct():
        last = Request.objects.filter(
            project_id=project_id, told_at__isnull=False, created_at__gt=now - timedelta(days=31)
        ).aggregate(last=Max("told_at"))["last"]
        waiting = untold.filter(project_id=project_id)
        if (
            last is not None
            and last > now - PAUSE
            and not waiting.filter(expires_at__lt=now + HURRY).exists()
        ):
            continue
        rows = list(waiting.select_related("project").order_by("expires_at")[:500])
        mine = [row for row in rows if Request.objects.filter(pk=row.pk, told_at=None).update(told_at=now)]
        if mine and _sent(mine):
            told += len(mine)
    return told


def _sent(rows: Sequence[Request]) -> bool:
    """Through every channel. Only where none of them handed anything over, all of it is told of again."""
    failed = 0
    for name, channel in settings.APPROVAL_CHANNELS.items():
        try:
            import_string(channel)(rows)
        except NotReached as problem:
            failed += 1
            log.warning("Reviewers could not be told by %s: %s", name, problem)
        except Exception:
            log.exception("Reviewers may or may not have been told by %s", name)
    if failed == len(settings.APPROVAL_CHANNELS):
        Request.objects.filter(pk__in=[row.pk for row in rows]).update(told_at=None)
        return False
    return True


def by_mail(rows: Sequence[Request]) -> None:
    """One e-mail to each person who may decide about some of these. Raises ``NotReached`` where no server is."""
    letters: dict[str, list[Request]] = {}
    for row in rows:
        for address in _addresses(row):
            letters.setdefault(address, []).append(row)
    if not letters:
        return
    connection = get_connection()
    try:
        connection.open()
    except Exception as error:
        raise NotReached(type(error).__name__) from error
    try:
        for address, about in sorted(letters.items()):
            try:
                EmailMessage(_subject(about), in_words(about), None, [address], connection=connection).send()
            except Exception:
                log.exception("A reviewer could not be sent an e-mail")
    finally:
        connection.close()


def _subject(rows: Sequence[Request]) -> str:
    if len(rows) == 1:
        return f"Waits for you: {redact_text(rows[0].title)}"[:150]
    return f"{len(rows)} requests wait for you"


def in_words(rows: Sequence[Request]) -> str:
    """What waits, with an address each. Whoever reads it signs in there, sees all of it and decides."""
    lines = []
    for row in rows[:_LISTED]:
        where = f" in {row.project.slug}" if row.project else ""
        lines += [
            f"{redact_text(row.title)}",
            f"  asked by {row.requested_by_name}{where}, open until {row.expires_at:%d %b %Y %H:%M} UTC",
            f"  {settings.PUBLIC_URL}/inbox/{row.pk}/",
            "",
        ]
    if len(rows) > _LISTED:
        lines += [f"and {len(rows) - _LISTED} more: {settings.PUBLIC_URL}/inbox/", ""]
    return "\n".join(lines)


def _addresses(row: Request) -> set[str]:
    try:
        how = kind_named(row.kind)
    except InvalidRequest:
        return set()
    permission = how.permission
    here = Q(memberships__project=None) | Q(memberships__project_id=row.project_id)
    people = get_user_model().objects.filter(
        here, memberships__role__in=PERMISSIONS[permission], is_active=True
    )
    no_second = _who_is_no_second_person(row)
    people = people.exclude(pk__in=no_second)
    # Whoever is away is told all the same: they may look at it from where they are.
    others = stand_ins_for(people.values_list("pk", flat=True), database_now())
    others = others.exclude(pk__in=no_second)
    found = {*people.values_list("pk", "email"), *others.values_list("pk", "email")}
    return {email for pk, email in found if email and not _objects(how, str(pk), row)}


def _objects(how: Kind, person: str, row: Request) -> bool:
    """Whether it is asked for on their behalf, or whatever else keeps the kind from having them decide."""
    return how.objects is not None and bool(how.objects(Actor("user", person, ""), row.content))


def _who_is_no_second_person(row: Request) -> set[str]:
    """Accounts that asked for it themselves, or hold the key that did."""
    if row.requested_by_kind == "service_key":
        return holders_of_key(row.requested_by_id, row.created_at)
    return {row.requested_by_id} if row.requested_by_kind == "user" else set()
