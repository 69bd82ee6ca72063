"""``/api/v1/runs``: start a run, wait for it, follow it, cancel it."""

from __future__ import annotations

import threading
import time
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from django.db import connection
from django.http import StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.access.api import Reason
from llmops.base.drf import ConsoleViewSet
from llmops.core.errors import InvalidRequest
from llmops.runs import services
from llmops.runs.api import events
from llmops.runs.api.shapes import RunBody, RunLine, RunSerializer
from llmops.runs.models import Run
from llmops.runs.rules import QUEUED, STREAM, read_asked

#: A question that waits, and a run that is worked on while its caller waits, have a thread for as long; so many may.
LONGEST_WAIT_S, MOST_WAITING, _LOOK_S = 25.0, 12, 0.1
#: A synchronous run that is not over by then goes on, and is answered with where to look.
LONGEST_SYNC_S = 110.0
_waiting = BoundedSemaphore(MOST_WAITING)
_working = BoundedSemaphore(MOST_WAITING)


class Runs(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """From a question to its answer: turns of a model and calls of tools, written down step by step."""

    queryset = Run.objects.select_related("project")
    serializer_class = RunSerializer
    filterset_fields = ("state", "mode", "prompt_name", "model", "project__slug")
    permission_map = {
        **dict.fromkeys(("list", "retrieve", "events"), "run.view"),
        **dict.fromkeys(("create", "cancel"), "run.start"),
    }
    renderer_classes = [JSONRenderer, events.EventStream]

    def get_queryset(self) -> Any:
        rows = super().get_queryset()
        # What a list does not tell may be two megabytes a run.
        return rows.defer("sealed", "sealed_answer", "sealed_saying") if self.action == "list" else rows

    def get_serializer_class(self) -> Any:
        return RunLine if self.action == "list" else RunSerializer

    @extend_schema(
        request=RunBody,
        responses={200: RunSerializer, 202: RunSerializer},
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)],
    )
    def create(self, request: Request) -> HttpResponseBase:
        """Start a run. ``sync`` (as a rule) answers with its end, or with 202 where it waits for somebody; ``stream`` with its
        events; ``queued`` with 202 and where to look."""
        body = dict(request.data) if isinstance(request.data, dict) else request.data
        project = project_of(self, body.pop("project", None) if isinstance(body, dict) else None)
        asked = read_asked(body)
        inline, reader = asked.mode != QUEUED, events.Reader(self.actor, project.pk)
        if asked.mode == STREAM:
            events.take_place(reader)
        run, secret = services.start_run(
            self.actor,
            project=project,
            asked=asked,
            idempotency_key=request.headers.get("Idempotency-Key", ""),
            inline=inline,
        )
        where = {"Location": f"{request.path}{run.pk}/"}
        if asked.mode == STREAM:
            _begin(run)
            return _streamed(run, 0, reader, where)
        if inline:
            work_on(run)
        told = dict(RunSerializer(self.queryset.get(pk=run.pk)).data)
        if secret and asked.webhook is not None and not asked.webhook.secret:
            told["webhook_secret"] = secret
        over = told["state"] not in Run.OPEN
        return Response(told, status=200 if over and inline else 202, headers=where)

    @extend_schema(
        parameters=[OpenApiParameter("wait", float, description="Seconds to wait for the end, at most 25.")]
    )
    def retrieve(self, request: Request, pk: str) -> Response:
        """One run. With ``wait`` the answer comes when it is over, when it begins to wait for somebody, or when the time is up."""
        row = self.get_object()
        wait = _seconds(request.query_params.get("wait", "0"))
        if wait and not row.over and _waiting.acquire(blocking=False):
            try:
                until_over(row.pk, wait, but=row.state)
            finally:
                _waiting.release()
            self.check_still("run.view", row.project_id)
        return Response(RunSerializer(self.get_queryset().get(pk=row.pk)).data)

    @extend_schema(
        responses={(200, "text/event-stream"): str},
        parameters=[OpenApiParameter("Last-Event-ID", str, OpenApiParameter.HEADER)],
    )
    @action(detail=True, methods=["get"])
    def events(self, request: Request, pk: str) -> HttpResponseBase:
        """Its steps as server-sent events, from the beginning or after ``Last-Event-ID``."""
        row = self.get_object()
        after = events.told_so_far(request.headers.get("Last-Event-ID", ""))
        reader = events.Reader(self.actor, row.project_id)
        events.take_place(reader)
        return _streamed(row, after, reader, {})

    @extend_schema(request=Reason, responses=RunSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """End it. What a tool has begun with is not undone; what waits for approval is taken back."""
        row, data = self.get_object(), self.decoded(Reason)
        services.cancel_run(self.actor, run=row, reason=data["reason"])
        return Response(RunSerializer(self.get_queryset().get(pk=row.pk)).data, status=202)


def project_of(view: ConsoleViewSet, named: Any) -> Any:
    """The project that is named, or that of the key."""
    key = getattr(view.request._request, "service_key", None)
    if named is not None:
        project = _named_project(view, named)
    elif key is not None:
        project = key.project
    else:
        raise InvalidRequest("project: name the project that pays for it.", param="project")
    view.check_may("run.start", project)
    return project


def _named_project(view: ConsoleViewSet, named: Any) -> Any:
    serializer = RunBody(data={"project": named}, context=view.get_serializer_context())
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data["project"]


def work_on(run: Run) -> None:
    """In this very thread, so that whoever waits gets his answer soonest; a worker does it where this process has enough to do."""
    if run.over:
        return
    if not _working.acquire(blocking=False):
        services.hand_on(run)
        if _waiting.acquire(blocking=False):
            try:
                until_over(run.pk, LONGEST_SYNC_S, but="")
            finally:
                _waiting.release()
        return
    try:
        services.advance(run.pk, for_s=LONGEST_SYNC_S)
    finally:
        _working.release()


def _begin(run: Run) -> None:
    """In a thread beside the stream; a worker follows where this process ends."""

    def work() -> None:
        try:
            services.advance(run.pk)
        finally:
            connection.close()
            _working.release()

    if run.over:
        return
    if _working.acquire(blocking=False):
        threading.Thread(target=work, name=f"run {run.pk}", daemon=True).start()
    else:
        services.hand_on(run)


def until_over(run_id: UUID, seconds: float, *, but: str) -> None:
    """Wait until it is over, or parked (unless that is how it was found: ``but``)."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = Run.objects.filter(pk=run_id).values_list("state", flat=True).first()
        if state not in Run.OPEN or (state == Run.PARKED and but != Run.PARKED):
            return
        # Somebody else may have the connection while this one sleeps.
        if not connection.in_atomic_block:
            connection.close()
        time.sleep(min(_LOOK_S, max(0.0, until - time.monotonic())))


def _streamed(run: Run, after: int, reader: events.Reader, headers: dict[str, str]) -> StreamingHttpResponse:
    answer = StreamingHttpResponse(
        events.events(run.pk, after, reader, f": run {run.pk}\n\n".encode()),
        content_type="text/event-stream; charset=utf-8",
        headers={**headers, "X-Accel-Buffering": "no", "Cache-Control": "no-store", "x-run-id": str(run.pk)},
    )
    return answer


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 3600:
        raise InvalidRequest("wait: a number of seconds, at most 25.", param="wait")
    return min(found, LONGEST_WAIT_S)
