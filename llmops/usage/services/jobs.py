"""Jobs: asked for by a person, done by a worker in steps of one transaction each, taken over when the worker dies."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import DatabaseError, IntegrityError, InterfaceError, transaction

from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.locks import lock
from llmops.base.tasks import send
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest
from llmops.usage import rebuild
from llmops.usage.models import Job
from llmops.usage.services.fetching import FETCH, fetch
from llmops.usage.services.journals import ROLLUPS_LOCK
from llmops.usage.services.retention import calls_since

log = logging.getLogger(__name__)

REBUILD = "rebuild"
#: Held alone by whoever asks for a job, and by whoever removes what a job may need.
JOBS_LOCK = "usage.jobs"
#: A worker that has not shown itself for so long is taken for dead; a step takes seconds at most.
SILENCE = timedelta(seconds=60)
#: A job nobody began within this time is handed out again: the message may have been lost.
UNCLAIMED = timedelta(seconds=20)
_MOST_TRIES = 5


class Superseded(Exception):
    """Another worker has the job now."""


def request_rebuild(actor: Actor, day: date, *, reason: str = "", enqueue: bool = True) -> Job:
    """Ask for the rollups of ``day`` (UTC) to be computed anew from its calls.

    Raises ``InvalidRequest`` for a day to come or one whose calls retention removed, ``Conflict`` while the same day
    is being recomputed. ``enqueue=False``: the caller runs the job itself.
    """
    with transaction.atomic():
        lock(JOBS_LOCK)
        now = database_now()
        _refuse_impossible(day, now)
        moving = Job.objects.filter(kind=REBUILD, state__in=(Job.QUEUED, Job.RUNNING))
        if moving.filter(arguments__day=day.isoformat()).exists():
            raise Conflict(
                f"{day:%Y-%m-%d} is being recomputed already. Watch that job instead.", param="day"
            )
        job = Job.objects.create(
            kind=REBUILD,
            arguments={"day": day.isoformat()},
            total=rebuild.STEPS,
            message="Waiting for a worker",
            requested_by=actor.name[:200],
        )
        record(
            actor,
            action="usage.rebuild_requested",
            object_type="usage.job",
            object_id=job.pk,
            object_name=f"recompute {day:%Y-%m-%d}",
            after={"day": day.isoformat()},
            reason=reason,
        )
        if enqueue:
            send("usage.run_job", str(job.pk))
    return job


def run_job(job_id: UUID, *, told: Callable[[Job], None] = lambda job: None) -> Job | None:
    """Claim the job and work on it to its end; ``told`` hears of each step.

    None when another worker has it or it is over. A database that goes away raises, and the job is taken up again by
    ``resume_jobs``; every other failure ends the job with a message.
    """
    job = _claim(job_id)
    if job is None:
        return None
    try:
        if job.kind == FETCH:
            _end(job, Job.DONE, fetch(job, _Beats(job, told)))
            return job
        while job.done < job.total:
            _step(job)
            told(job)
        _end(job, Job.DONE, rebuild.summary(job.result or {}))
    except Superseded:
        return None
    except ConsoleError as refusal:
        _end(job, Job.FAILED, refusal.message)
    except IntegrityError as refusal:
        _end(job, Job.FAILED, str(refusal))
    except (DatabaseError, InterfaceError):
        raise
    except Exception as fault:
        log.exception("Job %s failed", job_id)
        _end(job, Job.FAILED, f"{type(fault).__name__}: {fault}. The log has the whole of it.")
    return job


def resume_jobs(now: datetime | None = None) -> list[UUID]:
    """Hand out again the jobs whose worker fell silent and those that nobody began."""
    now = now or database_now()
    waiting = Job.objects.filter(state=Job.QUEUED, requested_at__lt=now - UNCLAIMED)
    silent = Job.objects.filter(state=Job.RUNNING, heartbeat_at__lt=now - SILENCE)
    found = [*waiting.values_list("pk", flat=True), *silent.values_list("pk", flat=True)]
    for job_id in found:
        send("usage.run_job", str(job_id))
    return found


def _refuse_impossible(day: date, now: datetime) -> None:
    if day > now.date():
        raise InvalidRequest("day: this day has not begun yet (days are in UTC).", param="day")
    since = calls_since()
    if since is not None and day < since.date():
        raise InvalidRequest(
            f"day: calls before {since:%Y-%m-%d} were removed after their retention; recomputing this day would lose "
            "its figures.",
            param="day",
        )


def _claim(job_id: UUID) -> Job | None:
    job = Job.objects.filter(pk=job_id).first()
    now = database_now()
    if job is None or job.state not in (Job.QUEUED, Job.RUNNING):
        return None
    if job.state == Job.RUNNING and job.heartbeat_at and job.heartbeat_at > now - SILENCE:
        return None
    expected = {"state": job.state, "claimed_by": job.claimed_by, "heartbeat_at": job.heartbeat_at}
    if job.tries >= _MOST_TRIES:
        message = f"Given up: {_MOST_TRIES} workers in a row ended in the middle of the same step."
        compare_and_set(
            job, expect=expected, change={"state": Job.FAILED, "message": message, "finished_at": now}
        )
        return None
    claimed = {
        "state": Job.RUNNING,
        "claimed_by": str(uuid4()),
        "heartbeat_at": now,
        "started_at": job.started_at or now,
        "tries": job.tries + 1,
        "message": "Running",
    }
    return job if compare_and_set(job, expect=expected, change=claimed) else None


def _step(job: Job) -> None:
    """One step and its progress, in one transaction: after a crash it is done, or it is done again."""
    day = date.fromisoformat(job.arguments["day"])
    with transaction.atomic():
        lock(ROLLUPS_LOCK)
        result = rebuild.step(day, job.done, dict(job.result or {}))
        # Retention moves its mark before it removes anything, so this sees what the step may have missed.
        _refuse_impossible(day, database_now())
        change: dict[str, Any] = {
            "done": job.done + 1,
            "result": result,
            "heartbeat_at": database_now(),
            "tries": 0,
        }
        if not compare_and_set(job, expect=_mine(job) | {"done": job.done}, change=change):
            raise Superseded


@dataclass(slots=True)
class _Beats:
    """Shows that the worker lives, and what it is at. Raises ``Superseded``."""

    job: Job
    told: Callable[[Job], None]

    def __call__(self, message: str) -> None:
        done = min(self.job.done + message.startswith("Read 1 "), self.job.total)
        change = {"done": done, "message": message[:300], "heartbeat_at": database_now()}
        if not compare_and_set(self.job, expect=_mine(self.job), change=change):
            raise Superseded
        self.told(self.job)


def _end(job: Job, state: str, message: str) -> None:
    change = {"state": state, "message": message[:300], "finished_at": database_now()}
    if not compare_and_set(job, expect=_mine(job), change=change):
        log.warning("Job %s was taken over before it could end as %s", job.pk, state)


def _mine(job: Job) -> dict[str, Any]:
    return {"state": Job.RUNNING, "claimed_by": job.claimed_by}
