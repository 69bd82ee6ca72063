"""Exports by e-mail: made by a person, sent by a job, each period at most once."""

from __future__ import annotations

import logging
import smtplib
import socket
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email
from django.db import transaction

from llmops.access.models import Project
from llmops.access.selectors import may
from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.tasks import send as send_task
from llmops.base.transitions import compare_and_set
from llmops.budgets.periods import bounds
from llmops.core.actors import Actor, job_actor
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest, NotFound
from llmops.usage.exports import KINDS, Wanted, export
from llmops.usage.models import ExportRun, ExportSchedule
from llmops.usage.selectors import Span, SpendFilters
from llmops.usage.selectors.spend import DIMENSIONS

log = logging.getLogger(__name__)
SENDER = job_actor("usage.send_exports")
#: Calls that began in the period may end, and be booked, a while after it.
_AFTER = timedelta(hours=1)
#: Larger exports are fetched by a link that takes signing in.
MOST_ATTACHED = 2_000_000
MOST_RECIPIENTS, MOST_SCHEDULES, MOST_TRIES = 20, 100, 8
#: A worker that has not ended a run for so long is taken for dead.
_SILENCE = timedelta(minutes=30)
#: Nothing went out for certain: the export could not be made, the server was not reached, or it said no.
_NOT_SENT = (
    ConsoleError,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPSenderRefused,
    smtplib.SMTPDataError,
    smtplib.SMTPConnectError,
    smtplib.SMTPHeloError,
    smtplib.SMTPAuthenticationError,
    smtplib.SMTPNotSupportedError,
    ConnectionRefusedError,
    socket.gaierror,
    PermissionError,
)

Send = Callable[[EmailMessage], None]


def create_schedule(
    actor: Actor,
    *,
    owner: Any,
    name: str,
    what: str,
    recipients: Sequence[str],
    period: str = ExportSchedule.MONTH,
    timezone: str = "UTC",
    project: Project | None = None,
    group_by: str = "project",
) -> ExportSchedule:
    """A schedule whose first export covers the period that is under way. Raises ``InvalidRequest`` naming each field
    in error (``data["problems"]``: field -> why)."""
    name = name.strip()
    problems = schedule_problems(
        name=name, what=what, recipients=recipients, period=period, timezone=timezone, group_by=group_by
    )
    if not may(owner, "usage.view", project):
        problems["project"] = "you may not see its usage."
    if problems:
        raise InvalidRequest(
            " ".join(f"{field}: {why}" for field, why in problems.items()),
            param=next(iter(problems)),
            data={"problems": problems},
        )
    addresses = _addresses(recipients)
    _, ends_at = _period(period, timezone, database_now())
    with transaction.atomic():
        if ExportSchedule.objects.filter(stopped_at=None).count() >= MOST_SCHEDULES:
            raise Conflict(f"There are {MOST_SCHEDULES} schedules already. Stop one that nobody reads.")
        schedule = ExportSchedule.objects.create(
            name=name,
            what=what,
            group_by=group_by,
            project=project,
            period=period,
            timezone=timezone,
            recipients=addresses,
            owner=owner,
            next_run_at=ends_at + _AFTER,
        )
        record(
            actor,
            action="export_schedule.created",
            object_type="usage.exportschedule",
            object_id=schedule.pk,
            object_name=name,
            project_id=project.pk if project else None,
            after={
                "what": what,
                "group_by": group_by,
                "period": period,
                "timezone": timezone,
                "recipients": addresses,
                "project": project.slug if project else None,
            },
        )
    return schedule


def schedule_problems(
    *, name: str, what: str, recipients: Sequence[str], period: str, timezone: str, group_by: str
) -> dict[str, str]:
    """Field -> what is wrong with it, of all fields at once; empty for a schedule that can be made."""
    found: dict[str, str] = {}
    name = name.strip()
    if not name or len(name) > 80 or not name.isprintable():
        found["name"] = "one to 80 plain characters."
    if what not in KINDS:
        found["what"] = f"choose one of {', '.join(KINDS)}."
    if group_by not in DIMENSIONS:
        found["group_by"] = f"choose one of {', '.join(DIMENSIONS)}."
    known_period = period in dict(ExportSchedule.PERIODS)
    if not known_period:
        found["period"] = "day, week or month."
    for field, check in (
        (
            "timezone",
            lambda: _period(period if known_period else ExportSchedule.DAY, timezone, database_now()),
        ),
        ("recipients", lambda: _addresses(recipients)),
    ):
        try:
            check()
        except InvalidRequest as refused:
            found[field] = refused.message.removeprefix(f"{field}: ")
    return found


def stop_schedule(actor: Actor, *, schedule_id: UUID) -> None:
    with transaction.atomic():
        schedule = ExportSchedule.objects.select_for_update(of=("self",)).filter(pk=schedule_id).first()
        if schedule is None:
            raise NotFound("There is no such schedule.")
        if schedule.stopped_at is not None:
            raise Conflict("This schedule was stopped already.")
        schedule.stopped_at = database_now()
        schedule.save(update_fields=["stopped_at"])
        record(
            actor,
            action="export_schedule.stopped",
            object_type="usage.exportschedule",
            object_id=schedule.pk,
            object_name=schedule.name,
            project_id=schedule.project_id,
        )


def send_again(actor: Actor, *, run_id: UUID) -> None:
    """Have a run sent (once more): one that failed for good, or one of which nobody knows whether it was sent."""
    with transaction.atomic():
        run = ExportRun.objects.select_for_update(of=("self",)).filter(pk=run_id).first()
        if run is None:
            raise NotFound("There is no such export.")
        change = {"state": ExportRun.WAITING, "tries": 0, "due_at": database_now(), "problem": ""}
        if not compare_and_set(run, expect={"state": (ExportRun.FAILED, ExportRun.UNKNOWN)}, change=change):
            raise Conflict("This export is on its way or was sent. Reload to see its present state.")
        record(
            actor,
            action="export.sent_again",
            object_type="usage.exportrun",
            object_id=run.pk,
            object_name=str(run),
            project_id=run.schedule.project_id,
        )


def send_now(actor: Actor, *, schedule_id: UUID) -> ExportRun:
    """Have the export of the last period that is over sent now, also when it was sent before. Raises ``Conflict`` when it is on
    its way already or the schedule was stopped."""
    with transaction.atomic():
        schedule = ExportSchedule.objects.select_for_update(of=("self",)).filter(pk=schedule_id).first()
        if schedule is None:
            raise NotFound("There is no such schedule.")
        if schedule.stopped_at is not None:
            raise Conflict("This schedule was stopped; make another.")
        now = database_now()
        under_way, _ = _period(schedule.period, schedule.timezone, now)
        starts_at, ends_at = _period(schedule.period, schedule.timezone, under_way - timedelta(hours=1))
        run, made = ExportRun.objects.get_or_create(
            schedule=schedule, starts_at=starts_at, defaults={"ends_at": ends_at, "due_at": now}
        )
        if not made:
            change = {"state": ExportRun.WAITING, "tries": 0, "due_at": now, "problem": ""}
            over = (ExportRun.SENT, ExportRun.FAILED, ExportRun.UNKNOWN)
            if not compare_and_set(run, expect={"state": over}, change=change):
                raise Conflict("This export is on its way already. Reload to see its present state.")
        following = _period(schedule.period, schedule.timezone, now)[1] + _AFTER
        if schedule.next_run_at < following:
            # The period that is sent now is not to be sent again in an hour.
            schedule.next_run_at = following
            schedule.save(update_fields=["next_run_at"])
        record(
            actor,
            action="export.sent_now",
            object_type="usage.exportrun",
            object_id=run.pk,
            object_name=str(run),
            project_id=schedule.project_id,
            after={"recipients": schedule.recipients, "from": starts_at.isoformat()},
        )
        send_task("usage.send_exports")
    return run


def send_exports(*, send: Send | None = None, now: datetime | None = None) -> int:
    """Make the runs of periods that have ended, and send what waits; how many were sent."""
    now = now or database_now()
    for schedule in ExportSchedule.objects.filter(stopped_at=None, next_run_at__lte=now):
        _make_run(schedule)
    _give_up_silent(now)
    sent = 0
    waiting = ExportRun.objects.filter(state=ExportRun.WAITING, due_at__lte=now).select_related(
        "schedule__owner", "schedule__project"
    )
    for run in waiting.order_by("due_at")[:50]:
        claim = {"state": ExportRun.SENDING, "claimed_at": now, "tries": run.tries + 1}
        if compare_and_set(run, expect={"state": ExportRun.WAITING, "tries": run.tries}, change=claim):
            sent += _deliver(run, send or _send)
    return sent


def wanted_of(run: ExportRun) -> Wanted:
    schedule = run.schedule
    projects = None if schedule.project_id is None else [schedule.project_id]
    return Wanted(
        schedule.what,
        Span(run.starts_at, run.ends_at),
        SpendFilters(project_ids=projects),
        schedule.group_by,
    )


def _period(period: str, timezone: str, at: datetime) -> tuple[datetime, datetime]:
    starts_at, ends_at = bounds(period, timezone, at)
    if ends_at is None or starts_at.minute or ends_at.minute:
        raise InvalidRequest(
            f"timezone: figures are kept by whole hours of UTC, and days in {timezone} begin between two of them. Choose UTC "
            "or a zone that is whole hours off it.",
            param="timezone",
        )
    return starts_at, ends_at


def _addresses(recipients: Sequence[str]) -> list[str]:
    found = list(dict.fromkeys(one.strip() for one in recipients if one.strip()))
    if not found or len(found) > MOST_RECIPIENTS:
        raise InvalidRequest(f"recipients: one to {MOST_RECIPIENTS} addresses.", param="recipients")
    for address in found:
        try:
            validate_email(address)
        except ValidationError:
            raise InvalidRequest(
                f"recipients: {address[:60]!r} is not an e-mail address.", param="recipients"
            ) from None
    return found


def _make_run(schedule: ExportSchedule) -> None:
    """The run of the period that has ended, and the schedule's next turn: one transaction, whoever is first."""
    due = schedule.next_run_at
    starts_at, ends_at = _period(schedule.period, schedule.timezone, due - _AFTER - timedelta(hours=1))
    _, following = _period(schedule.period, schedule.timezone, ends_at)
    with transaction.atomic():
        if compare_and_set(
            schedule,
            expect={"next_run_at": due, "stopped_at": None},
            change={"next_run_at": following + _AFTER},
        ):
            ExportRun.objects.create(schedule=schedule, starts_at=starts_at, ends_at=ends_at, due_at=due)


def _give_up_silent(now: datetime) -> None:
    ExportRun.objects.filter(state=ExportRun.SENDING, claimed_at__lt=now - _SILENCE).update(
        state=ExportRun.UNKNOWN,
        problem="The worker ended while it was sending: it may or may not have been sent.",
    )


def _deliver(run: ExportRun, send: Send) -> int:
    try:
        message, attached = _message(run)
        send(message)
    except _NOT_SENT as refusal:
        over = run.tries >= MOST_TRIES
        said = refusal.message if isinstance(refusal, ConsoleError) else "the mail server did not take it"
        _close(
            run,
            ExportRun.FAILED if over else ExportRun.WAITING,
            problem=f"{type(refusal).__name__}: {said}"[:300],
            due_at=database_now() + timedelta(minutes=2**run.tries),
        )
        return 0
    except Exception as broken:
        log.exception("An export may or may not have been sent")
        _close(
            run,
            ExportRun.UNKNOWN,
            problem=f"{type(broken).__name__}: it may or may not have been sent",
        )
        return 0
    with transaction.atomic():
        _close(run, ExportRun.SENT, sent_at=database_now(), attached_bytes=attached, problem="")
        record(
            SENDER,
            action="export.sent",
            object_type="usage.exportrun",
            object_id=run.pk,
            object_name=str(run),
            project_id=run.schedule.project_id,
            after={"recipients": run.schedule.recipients, "attached_bytes": attached},
        )
    return 1


def _close(run: ExportRun, state: str, **change: object) -> None:
    compare_and_set(
        run, expect={"state": ExportRun.SENDING, "tries": run.tries}, change={"state": state, **change}
    )


def _message(run: ExportRun) -> tuple[EmailMessage, int | None]:
    schedule = run.schedule
    if schedule.owner is None or not may(schedule.owner, "usage.view", schedule.project):
        raise InvalidRequest(
            f"{schedule.owner or 'Whoever made this schedule'} may not see this usage any more. Somebody who may has to make it "
            "anew."
        )
    made = export(wanted_of(run))
    content = bytearray()
    for chunk in made.chunks:
        content += chunk
        if len(content) > MOST_ATTACHED:
            break
    fits = len(content) <= MOST_ATTACHED
    whose = schedule.project.name if schedule.project else "the whole organisation"
    lines = [
        f"{KINDS[schedule.what].title} of {whose}",
        f"from {run.starts_at:%Y-%m-%d %H:%M} to {run.ends_at:%Y-%m-%d %H:%M} (UTC)"
        + (f", by {schedule.group_by.replace('_', ' ')}." if schedule.what == "spend" else "."),
        "",
        f"It is attached as {made.filename}."
        if fits
        else "It is too large for an e-mail. Sign in and fetch it here:",
    ]
    if not fits or settings.PUBLIC_URL:
        lines += ["", f"{settings.PUBLIC_URL.rstrip('/')}/spend/exports/"]
    lines += [
        "",
        f"Sent every {schedule.period} because of the schedule {schedule.name!r} in LLMOps Console.",
    ]
    message = EmailMessage(
        subject=f"{schedule.name}: {run.starts_at:%Y-%m-%d}",
        body="\n".join(lines),
        to=list(schedule.recipients),
    )
    if fits:
        message.attach(made.filename, bytes(content), "text/csv")
    return message, len(content) if fits else None


def _send(message: EmailMessage) -> None:
    message.send()
