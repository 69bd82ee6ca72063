"""The outbox: what is to be told is written with what it tells of, and sent afterwards, at least once.

A message is claimed by one conditional UPDATE. A worker that dies with it leaves it claimed, and it is sent again: receivers know
a repetition by its id. What cannot be delivered is tried again with longer and longer waits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Max, Q

from llmops.alerts import course
from llmops.alerts.channels import Message, channel_named
from llmops.alerts.models import Channel, Incident, Notification
from llmops.alerts.selectors import is_silenced
from llmops.alerts.services.timeline import add
from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.core.redaction import redact_text

log = logging.getLogger(__name__)

#: A worker that has a message for so long has died.
_LONGEST_SENDING = timedelta(minutes=2)
#: Messages that one run looks at.
_AT_ONCE = 200
#: In one message of a chat or an e-mail.
MOST_TOGETHER = 25


def quiet_of(channel: Channel) -> course.Quiet | None:
    if channel.quiet_from is None or channel.quiet_to is None:
        return None
    return course.Quiet(channel.quiet_from, channel.quiet_to, channel.timezone)


def plan(incident: Incident, event: str, now: datetime) -> int:
    """Write down who is to be told of what happened to an incident, in the caller's transaction. How many channels are."""
    rows = []
    for channel in Channel.objects.filter(enabled=True, archived_at=None):
        wanted = course.concerns(
            severity=incident.severity,
            project_id=incident.project_id,
            severities=channel.severities,
            channel_project_id=channel.project_id,
        )
        # Who is told of what nobody acknowledged is told of its end if it came to that.
        if not wanted:
            continue
        later = channel.after_minutes if event != Notification.RESOLVED else 0
        due_at, held = course.due(
            now, severity=incident.severity, after_minutes=later, quiet=quiet_of(channel)
        )
        rows.append(
            Notification(
                incident=incident,
                channel=channel,
                event=Notification.ESCALATED if later else event,
                telling=incident.tellings,
                held_back=held,
                created_at=now,
                due_at=due_at,
            )
        )
    Notification.objects.bulk_create(rows, ignore_conflicts=True)
    if not rows and event != Notification.RESOLVED:
        add(incident, "not_told", f"No channel is told of what is {incident.severity}.", at=now)
    return len(rows)


def deliver(now: datetime | None = None) -> int:
    """Send what is due; how many messages were. Any number of workers may."""
    clock = now or database_now()
    Notification.objects.filter(
        state=Notification.SENDING, claimed_at__lt=clock - _LONGEST_SENDING
    ).update(state=Notification.WAITING, problem="The worker died while it was sending.")  # fmt: skip
    due = (
        Notification.objects.filter(state=Notification.WAITING, due_at__lte=clock)
        .select_related("incident__rule", "incident__project", "channel")
        .order_by("due_at", "created_at", "id")
    )
    mine: dict[object, list[Notification]] = {}
    for one in due[:_AT_ONCE]:
        if not _needed(one, clock):
            continue
        claimed = compare_and_set(
            one,
            expect={"state": Notification.WAITING, "tries": one.tries},
            change={"state": Notification.SENDING, "claimed_at": clock, "tries": one.tries + 1},
        )
        if claimed:
            mine.setdefault(one.channel_id, []).append(one)
    # Whoever could not be reached lately comes last, so that nobody waits for them.
    ordered = sorted(mine.values(), key=lambda rows: max(row.tries for row in rows))
    return sum(_send(rows[0].channel, rows, clock) for rows in ordered)


def _needed(one: Notification, now: datetime) -> bool:
    """Drops what nobody need hear any more. False as well where something has to be sent before."""
    incident = one.incident
    over, seen = incident.state == Incident.RESOLVED, incident.state == Incident.ACKNOWLEDGED
    before = Notification.objects.filter(incident=incident, channel=one.channel).exclude(pk=one.pk)
    why = ""
    if not one.channel.enabled or one.channel.archived_at is not None:
        why = "The channel is switched off."
    elif one.event == Notification.RESOLVED and not over:
        why = "It is back."
    elif one.event == Notification.RESOLVED:
        under_way = Q(due_at__lte=now) | Q(tries__gt=0)
        waited = before.filter(
            under_way, state__in=(Notification.WAITING, Notification.SENDING), held_back=False
        )
        if (latest := waited.aggregate(Max("due_at"))["due_at__max"]) is not None:
            # Until then it stands in nobody's way: so many are looked at in one go.
            if latest > now:
                compare_and_set(one, expect={"state": Notification.WAITING}, change={"due_at": latest})
            return False
        if not before.filter(state=Notification.SENT).exclude(event=Notification.RESOLVED).exists():
            why = "Nobody there was told that it had begun."
    elif one.event == Notification.ESCALATED and (over or seen):
        why = "It was resolved in time." if over else f"{incident.acknowledged_by} acknowledged it in time."
    elif over and one.held_back and one.tries == 0:
        why = "It was over before quiet hours were."
    elif is_silenced(incident, now):
        why = "It is silenced."
    if not why:
        return True
    compare_and_set(
        one,
        expect={"state": Notification.WAITING},
        change={"state": Notification.DROPPED, "problem": why},
    )
    return False


def _send(channel: Channel, rows: Sequence[Notification], now: datetime) -> int:
    kind = channel_named(channel.kind)
    groups = (
        [rows[at : at + MOST_TOGETHER] for at in range(0, len(rows), MOST_TOGETHER)]
        if kind.together
        else [[row] for row in rows]
    )
    sent, told = 0, ""
    for group in groups:
        if told:
            # One time-out is enough: others wait for this worker.
            for row in group:
                _not_sent(row, told, now)
            continue
        try:
            kind.send(channel, [Message.of(row, now) for row in group])
        except Exception as problem:
            log.warning("channel %s could not be told: %s", channel.slug, type(problem).__name__)
            told = redact_text(f"{type(problem).__name__}: {problem}")[:300]
            for row in group:
                _not_sent(row, told, now)
            continue
        for row in group:
            _was_sent(row, now)
        sent += len(group)
    return sent


@transaction.atomic
def _was_sent(row: Notification, now: datetime) -> None:
    """With its line of the timeline, or neither: then it is sent again."""
    ended = compare_and_set(
        row,
        expect={"state": Notification.SENDING, "tries": row.tries},
        change={"state": Notification.SENT, "sent_at": now, "problem": ""},
    )
    if not ended:
        return
    if row.event == Notification.ESCALATED:
        add(
            row.incident,
            "escalated",
            f"Nobody acknowledged it for {row.channel.after_minutes} min: {row.channel.slug} was told.",
            at=now,
        )
    else:
        what = {"opened": "that it began", "came_back": "that it is back", "resolved": "that it ended"}
        add(row.incident, "told", f"{row.channel.slug} was told {what[row.event]}.", at=now)


@transaction.atomic
def _not_sent(row: Notification, problem: str, now: datetime) -> None:
    over = row.tries >= course.MOST_TRIES
    ended = compare_and_set(
        row,
        expect={"state": Notification.SENDING, "tries": row.tries},
        change={
            "state": Notification.FAILED if over else Notification.WAITING,
            "problem": problem,
            "due_at": course.retry_at(now, row.tries),
        },
    )
    if ended and row.tries in (1, course.MOST_TRIES):
        add(
            row.incident,
            "not_told",
            f"{row.channel.slug} could not be told" + (", and is not tried again." if over else "; it is tried again."),
            at=now,
        )  # fmt: skip


def undelivered() -> int:
    """Messages that could not be delivered, now or for good."""
    late = Q(state=Notification.WAITING, tries__gt=0) | Q(state=Notification.FAILED)
    return Notification.objects.filter(late).count()
