"""Who works on a run: taken by one conditional UPDATE, kept by signs of life, and nothing written by whoever lost it.

1. ``take``: from ``queued``, from ``parked`` once its tools have answered, or from ``running`` when the lease has run out; ``fence``
   goes up by one.
2. ``fenced``: each change of a run is a transaction that begins with an UPDATE of exactly this fence. Whoever was suspended and
   followed by another finds that it is not his any more, and what he would have written is rolled back.
3. ``Beats``: one thread of each process renews the leases of the runs that it works on, and sees that one was cancelled.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import F

from llmops.base.clock import database_now
from llmops.core.digests import digest
from llmops.runs.asking import Line
from llmops.runs.conversation import NOTE, Told
from llmops.runs.models import Run, Step
from llmops.runs.sealed import seal, step_identity
from llmops.runs.selectors import Question, plain, question_of, told_by, with_open_actions

log = logging.getLogger(__name__)


class LostLease(Exception):
    """Somebody else works on this run by now, or it is over."""


@dataclass
class Held:
    """A run that this process works on. ``until`` (monotonic) is when its time for work is up."""

    run: Run
    question: Question
    steps: list[Told]
    n: int
    until: float
    #: handed on to a worker then (monotonic)
    hand_on_at: float | None = None
    line: Line = field(default_factory=Line)
    cancelled: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)

    @property
    def seconds_left(self) -> float:
        return self.until - time.monotonic()


def take(run_id: UUID) -> Held | None:
    """The run, to be worked on by whoever asks; None where it is somebody else's, over, or waits for something."""
    with transaction.atomic():
        run = Run.objects.select_related("project").filter(pk=run_id, state__in=Run.OPEN).first()
        if run is None:
            return None
        now = database_now()
        followed = run.state == Run.RUNNING
        if followed and run.lease_until is not None and run.lease_until > now:
            return None
        if run.state == Run.QUEUED and run.not_before is not None and run.not_before > now:
            return None
        if run.state == Run.PARKED and Run.objects.filter(with_open_actions(), pk=run.pk).exists():
            return None
        left = run.left_ms
        if followed and run.began_at is not None and run.lease_until is not None:
            left -= _ms(run.lease_until - run.began_at)
        change = {
            "state": Run.RUNNING,
            "lease_until": now + _lease(),
            "began_at": now,
            "left_ms": left,
            "worker": f"{socket.gethostname()}:{os.getpid()}"[:200],
            "not_before": None,
            "updated_at": now,
        }
        same = Run.objects.filter(pk=run.pk, fence=run.fence, state=run.state, lease_until=run.lease_until)
        if not same.update(fence=F("fence") + 1, **change):
            return None
        for name, value in change.items():
            setattr(run, name, value)
        run.fence += 1
        rows = list(Step.objects.filter(run=run).order_by("n"))
        held = Held(
            run=run,
            question=question_of(run),
            steps=[told_by(row) for row in rows],
            n=rows[-1].n if rows else 0,
            until=time.monotonic() + left / 1000,
        )
        if run.cancel_asked_at is not None:
            held.cancelled.set()
        if followed:
            _write(
                held,
                now,
                note("followed", "Whoever worked on it was not heard of any more; another went on."),
            )
    return held


@contextmanager
def fenced(held: Held, **change: Any) -> Iterator[list[dict[str, Any]]]:
    """A transaction that changes the run, if it is still this one's: with ``change``, and the steps that are put on the list.

    Raises ``LostLease``, and then nothing of it holds.
    """
    steps: list[dict[str, Any]] = []
    known, n = len(held.steps), held.n
    try:
        with transaction.atomic():
            now = database_now()
            renewed = {"lease_until": now + _lease(), "updated_at": now, **change}
            mine = Run.objects.filter(pk=held.run.pk, fence=held.run.fence, state=Run.RUNNING)
            if not mine.update(**renewed):
                raise LostLease
            yield steps
            for step in steps:
                _write(held, now, step)
    except BaseException:
        del held.steps[known:]
        held.n = n
        raise
    for name, value in change.items():
        if not hasattr(value, "resolve_expression"):
            setattr(held.run, name, value)


def note(what: str, text: str, *, turn: int = 0, **more: Any) -> dict[str, Any]:
    return {"kind": NOTE, "turn": turn, "what": what, "content": {"text": text}, **more}


def _write(held: Held, now: datetime, step: dict[str, Any]) -> None:
    held.n += 1
    row = write_step(held.run, held.n, now, step)
    held.steps.append(
        Told(row.kind, row.turn, row.place, row.what, step.get("content", {}), str(row.action_id or ""))
    )


def write_step(run: Run, n: int, now: datetime, step: dict[str, Any]) -> Step:
    """Must be called in the transaction that made sure of the fence."""
    content = plain(step.get("content", {}))
    row = Step(
        run=run, n=n, at=now, digest=digest(content), **{k: v for k, v in step.items() if k != "content"}
    )
    row.sealed = seal(content, identity=step_identity(row.pk))
    row.save(force_insert=True)
    return row


def spent_ms(held: Held) -> int:
    """What is left of the time for work, in milliseconds, for a run that is let go of."""
    return int(held.seconds_left * 1000)


def _lease() -> timedelta:
    return timedelta(seconds=settings.RUN_LEASE_SECONDS)


def _ms(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)


class Beats:
    """The signs of life of the runs that this process works on. The thread ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[UUID, Held] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()

    @contextmanager
    def watching(self, held: Held) -> Iterator[None]:
        with self._lock:
            self._held[held.run.pk] = held
            if self._thread is None:
                self._thread = threading.Thread(target=self._tend, name="runs-beats", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                if self._held.get(held.run.pk) is held:
                    del self._held[held.run.pk]

    def cancel(self, run_id: UUID) -> None:
        """At once where this process works on it; another one sees it in the database."""
        held = self._held.get(run_id)
        if held is not None:
            held.cancelled.set()
            held.line.stop()

    def _tend(self) -> None:
        idle = 0
        try:
            while True:
                self._wake.wait(settings.RUN_LEASE_SECONDS / 6)
                with self._lock:
                    held = list(self._held.values())
                    idle = 0 if held else idle + 1
                    if idle > 5:
                        self._thread = None
                        return
                for one in held:
                    self._renew(one)
        finally:
            connection.close()

    def _renew(self, held: Held) -> None:
        try:
            now = database_now()
            mine = Run.objects.filter(pk=held.run.pk, fence=held.run.fence, state=Run.RUNNING)
            if not mine.update(lease_until=now + _lease()):
                # Over, or let go of a moment ago, or somebody else's: whoever works on it finds out which.
                held.lost.set()
                held.line.stop()
            elif mine.filter(cancel_asked_at__isnull=False).exists():
                held.cancelled.set()
                held.line.stop()
        except Exception as error:
            # Whatever it is, the leases of the other runs are renewed all the same.
            log.warning("the lease of the run %s could not be renewed: %s", held.run.pk, error)
            with suppress(DatabaseError, InterfaceError):
                connection.close()


BEATS = Beats()
