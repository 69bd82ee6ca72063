"""Runs: started, cancelled, given up. The answer is read by the process that started one (``desk.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from llmops.access.models import Project
from llmops.audit.services import record_about
from llmops.base.locks import lock
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, RateLimited
from llmops.playground.asked import TEXT, Request, request_of
from llmops.playground.desk import DESK, Order
from llmops.playground.models import Run
from llmops.playground.selectors import as_uuid, callables, material_of, prompt_of, recent_runs
from llmops.playground.services.keys import key_in_use

#: At once, of one person.
MOST_OPEN = 8
#: A run whose process has not been heard of for so long is lost.
SILENT_FOR = timedelta(seconds=20)


def start_run(actor: Actor, *, user: Any, project: Project, column: Mapping[str, Any]) -> Run:
    """Make the call that ``column`` asks for (``asked.py``), once for each ``column["id"]``.

    Raises ``InvalidRequest`` naming what is wrong with the column, ``RateLimited`` when the person has had enough for now,
    ``Conflict`` when the project's key was revoked.
    """
    run_id = as_uuid(column.get("id"))
    if run_id is None:
        raise InvalidRequest("id: give the run an id (a UUID).", param="id")
    with transaction.atomic():
        # One after the other for each person, so that a bound is a bound and an id is one run.
        lock(f"playground.runs.{user.pk}")
        if (earlier := Run.objects.filter(pk=run_id).first()) is not None:
            return _same(earlier, user, project)
        _bound(user)
        material = None
        if column.get("source") != TEXT:
            prompt = prompt_of(project, column.get("prompt"))
            material = material_of(prompt, column.get("version"))
        request = request_of(column, material)
        if request.model not in {one.name for one in callables(project)}:
            raise InvalidRequest(
                f"model: {request.model} is not live, or this project's playground may not call it. Choose one of the list.",
                param="model",
            )
        key, secret = key_in_use(project)
        now = timezone.now()
        run = Run(
            id=run_id,
            project=project,
            user=user,
            prompt_name=request.prompt,
            prompt_version=request.version,
            model=request.model,
            digest=request.digest,
            started_at=now,
            beat_at=now,
            watched_at=now,
        )
        run.save(force_insert=True)
        order = Order(
            run_id=run.pk,
            body=request.body,
            headers=_headers(request, user, run),
            secret=secret,
            key_is_new=now - key.created_at < timedelta(seconds=30),
        )
        DESK.take_place()
        transaction.on_commit(partial(DESK.take, order))
        record_about(
            actor,
            run,
            action="playground.run_started",
            after={
                "prompt": request.prompt or None,
                "version": request.version or None,
                "model": request.model,
                "digest": request.digest,
            },
        )
    return run


def _same(earlier: Run, user: Any, project: Project) -> Run:
    if earlier.user_id != user.pk or earlier.project_id != project.pk:
        raise Conflict("id: this id is in use; choose another one.", param="id")
    return earlier


def _bound(user: Any) -> None:
    most = settings.PLAYGROUND_RUNS_PER_MINUTE
    if recent_runs(user.pk, 60).count() >= most:
        raise RateLimited(
            f"You have made {most} runs within a minute, which is as many as one person may. Wait a moment, then go on.",
            retry_after=20,
        )
    if (
        Run.objects.filter(user=user, state__in=Run.OPEN, beat_at__gt=timezone.now() - SILENT_FOR).count()
        >= MOST_OPEN
    ):
        raise RateLimited(
            f"{MOST_OPEN} of your runs are still under way. Wait for one of them, or cancel it.",
            retry_after=5,
        )


def _headers(request: Request, user: Any, run: Run) -> dict[str, str]:
    headers = {
        "x-llmops-feature": "playground",
        # Data planes keep a digest of it.
        "x-llmops-user": f"playground:{user.pk}",
        "x-request-id": f"playground-{run.pk}",
    }
    if tags := [tag for tag in request.tags if tag.isascii()]:
        headers["x-llmops-tags"] = ",".join(tags)
    return headers


def cancel_run(actor: Actor, *, run: Run) -> Run:
    """Ask whoever reads the answer to hang up, which stops the provider. Raises ``Conflict`` when it is over."""
    with transaction.atomic():
        now = timezone.now()
        asked = Run.objects.filter(pk=run.pk, state__in=Run.OPEN, cancel_asked_at=None).update(
            cancel_asked_at=now
        )
        if not asked:
            raise Conflict("This run is over, or is being cancelled already.")
        transaction.on_commit(partial(DESK.cancel, run.pk))
        record_about(actor, run, action="playground.run_cancelled", after={"model": run.model})
    return run


def watched(run_ids: list[UUID], *, at: datetime | None = None) -> None:
    """A page shows these runs. An observation, like a key's last use: no audit event."""
    Run.objects.filter(pk__in=run_ids, state__in=Run.OPEN).update(watched_at=at or timezone.now())


def give_up_lost(run_id: UUID) -> bool:
    """Close a run whose process was not heard of any more; whether this did."""
    before = timezone.now() - SILENT_FOR
    return bool(
        Run.objects.filter(pk=run_id, state__in=Run.OPEN, beat_at__lt=before).update(
            state=Run.LOST, ended_at=timezone.now()
        )
    )
