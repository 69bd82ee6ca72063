"""E-mails about crossed thresholds: at most one for a crossing and an address, whatever dies in between."""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Callable
from datetime import datetime, timedelta

from django.conf import settings
from django.core.mail import EmailMessage, get_connection

from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.budgets.models import ThresholdNotice
from llmops.budgets.wording import crossing_mail

log = logging.getLogger(__name__)

MOST_TRIES = 6
#: A worker that has a notice for so long has died.
_LONGEST_SENDING = timedelta(minutes=10)


class NotReached(Exception):
    """The mail server could not be connected to: nothing went out."""


#: Nothing went out for certain: the server was not reached, or said no.
_NOT_SENT = (
    NotReached,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPSenderRefused,
    smtplib.SMTPDataError,
    smtplib.SMTPNotSupportedError,
)

Send = Callable[[str, str, str], object]


def send_notices(*, send: Send | None = None, now: datetime | None = None) -> int:
    """Send what is due; how many were sent. Any number of workers may run this at once.

    ``send`` takes subject, text and address; by default Django's mail backend.
    """
    now = now or database_now()
    send = send or _send
    ThresholdNotice.objects.filter(
        state=ThresholdNotice.SENDING, claimed_at__lt=now - _LONGEST_SENDING
    ).update(state=ThresholdNotice.UNKNOWN, problem="The worker died while it was sending.")
    due = ThresholdNotice.objects.filter(state=ThresholdNotice.WAITING, due_at__lte=now).order_by("due_at")
    sent = 0
    for notice in due.select_related("crossing__window__budget__project")[:200]:
        claimed = compare_and_set(
            notice,
            expect={"state": ThresholdNotice.WAITING, "tries": notice.tries},
            change={"state": ThresholdNotice.SENDING, "claimed_at": now, "tries": notice.tries + 1},
        )
        if claimed:
            sent += _deliver(notice, send, now)
    return sent


def _deliver(notice: ThresholdNotice, send: Send, now: datetime) -> int:
    subject, text = crossing_mail(notice.crossing, settings.PUBLIC_URL)
    try:
        send(subject, text, notice.address)
    except _NOT_SENT as refusal:
        over = notice.tries >= MOST_TRIES
        _close(
            notice,
            ThresholdNotice.FAILED if over else ThresholdNotice.WAITING,
            problem=f"{type(refusal).__name__}: the mail server did not take it",
            due_at=now + timedelta(seconds=30 * 2**notice.tries),
        )
        return 0
    except Exception as broken:
        log.exception("a notice may or may not have been sent")
        _close(
            notice,
            ThresholdNotice.UNKNOWN,
            problem=f"{type(broken).__name__}: it may or may not have been sent",
        )
        return 0
    _close(notice, ThresholdNotice.SENT, sent_at=database_now(), problem="")
    return 1


def _close(notice: ThresholdNotice, state: str, **change: object) -> None:
    compare_and_set(
        notice,
        expect={"state": ThresholdNotice.SENDING, "tries": notice.tries},
        change={"state": state, **change},
    )


def _send(subject: str, text: str, address: str) -> None:
    """Connects first: until then nothing can have gone out, and whatever went wrong can be tried again."""
    connection = get_connection()
    try:
        connection.open()
    except Exception as error:
        raise NotReached(str(error)[:200]) from error
    try:
        EmailMessage(subject, text, None, [address], connection=connection).send()
    finally:
        connection.close()
