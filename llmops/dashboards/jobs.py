"""Jobs as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from llmops.core.digests import sha256_hex
from llmops.dashboards import formats
from llmops.usage.models import Job

SHOWN = 30
KINDS = {"rebuild": "Recompute a day's spend", "statement": "Fetch a provider's figures"}
STATES = {
    Job.QUEUED: ("Waiting for a worker", ""),
    Job.RUNNING: ("Running", ""),
    Job.DONE: ("Done", "ok"),
    Job.FAILED: ("Failed", "error"),
}


@dataclass(frozen=True, slots=True)
class JobRow:
    """``total`` is 0 while nobody knows how much there is to do."""

    id: UUID
    title: str
    state: str
    state_word: str
    tone: str
    moving: bool
    waiting_long: bool
    done: int
    total: int
    message: str
    differences: list[str]
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None
    took: str


def recent(*, whole: bool) -> list[JobRow]:
    """The newest jobs. What they counted spans all projects, so it is told only to who sees the ``whole`` organisation."""
    return [_row(job, whole=whole) for job in Job.objects.order_by("-requested_at")[:SHOWN]]


def marker(rows: list[JobRow]) -> str:
    """Changes whenever the list would."""
    return sha256_hex(repr([(row.id, row.state, row.done, row.total, row.message) for row in rows]).encode())[
        :20
    ]


def _row(job: Job, *, whole: bool) -> JobRow:
    word, tone = STATES.get(job.state, (job.state.capitalize(), ""))
    took = ""
    if job.started_at and job.finished_at:
        took = formats.duration((job.finished_at - job.started_at).total_seconds() * 1_000_000)
    day = _day(job.arguments) or _provider(job.arguments)
    waited = (timezone.now() - job.requested_at).total_seconds() if job.state == Job.QUEUED else 0
    return JobRow(
        id=job.pk,
        title=KINDS.get(job.kind, job.kind.replace("_", " ").capitalize()) + (f", {day}" if day else ""),
        state=job.state,
        state_word=word,
        tone=tone,
        moving=job.state in (Job.QUEUED, Job.RUNNING),
        waiting_long=waited > 20,
        done=min(job.done, job.total) if job.total else job.done,
        total=job.total,
        message=job.message if whole else "",
        differences=_differences(job.result) if whole else [],
        requested_by=job.requested_by,
        requested_at=job.requested_at,
        finished_at=job.finished_at,
        took=took,
    )


def _day(arguments: Any) -> str:
    given = arguments.get("day") if isinstance(arguments, dict) else None
    try:
        return f"{date.fromisoformat(given):%-d %B %Y}" if given else ""
    except (TypeError, ValueError):
        return ""


def _provider(arguments: Any) -> str:
    return str(arguments.get("provider", "")) if isinstance(arguments, dict) else ""


def _differences(result: Any) -> list[str]:
    """What a recomputation found, in words; whatever else a job left behind is not for people."""
    if not isinstance(result, dict):
        return []
    found = result.get("differences")
    return [str(line) for line in found] if isinstance(found, list) else []
