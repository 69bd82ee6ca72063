"""``/api/v1/calls/`` and ``/api/v1/jobs/``."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from uuid import UUID

from django.http import QueryDict
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter
from rest_framework.utils.urls import replace_query_param

from llmops.access.models import Project
from llmops.access.selectors import powers_of, projects_for
from llmops.base.drf import ConsoleViewSet
from llmops.base.money_fields import UsdField
from llmops.core.errors import InvalidRequest
from llmops.core.money import format_usd
from llmops.usage import services, spend_api, texts
from llmops.usage.models import Call, Correction, Job
from llmops.usage.selectors import CallFilters, ChargeStory, call_story, calls_page
from llmops.usage.signals import BIT, SIGNALS

_TEXTS = ("route", "model", "feature", "session", "prompt", "request_id", "user", "tag")
_FILTERS = {
    "project": "Slug of a project.",
    "key": "Id of a service key.",
    "route": "",
    "model": "",
    "status": "One or several, with commas: " + ", ".join(name for name, _ in Call.STATUSES),
    "error_code": "One or several, with commas.",
    "errors": "`true`: only calls with an error code.",
    "feature": "",
    "session": "",
    "prompt": "Name of a prompt.",
    "version": "With `prompt`: a version of it.",
    "signal": "One of " + ", ".join(SIGNALS) + ".",
    "request_id": "",
    "user": "Digest of an end user, as `user_digest` has it.",
    "tag": "",
    "from": "Calls that began at or after this moment (ISO 8601, with a time zone).",
    "to": "Calls that began before this moment.",
    "cursor": "From `next` of the page before.",
    "page_size": "At most 500.",
}


class CallSerializer(serializers.ModelSerializer[Call]):
    """Durations are microseconds, amounts USD as text, tokens billed tokens."""

    cost_usd = UsdField(source="cost_nano", read_only=True)
    held_usd = UsdField(source="held_nano", read_only=True)
    overrun_usd = UsdField(source="overrun_nano", read_only=True)
    saved_usd = UsdField(source="saved_nano", read_only=True)
    project = serializers.SerializerMethodField()
    key = serializers.SerializerMethodField()
    signals = serializers.SerializerMethodField()

    class Meta:
        model = Call
        fields = (
            "id",
            "started_at",
            "project",
            "project_id",
            "key",
            "key_id",
            "endpoint",
            "route",
            "model",
            "model_version",
            "provider",
            "upstream_model",
            "revision",
            "status",
            "http_status",
            "error_code",
            "error_message",
            "streamed",
            "finish_reason",
            "tools",
            "attempt_count",
            "retry_count",
            "fallback_count",
            "input_tokens",
            "cached_input_tokens",
            "cache_write_tokens",
            "output_tokens",
            "reasoning_tokens",
            "audio_input_tokens",
            "image_input_tokens",
            "audio_output_tokens",
            "image_output_tokens",
            "characters",
            "seconds",
            "images",
            "service_tier",
            "usage_estimated",
            "output_cap",
            "output_clamped",
            "cost_usd",
            "held_usd",
            "overrun_usd",
            "cache",
            "saved_usd",
            "total_us",
            "ttft_us",
            "upstream_us",
            "queue_us",
            "provider_us",
            "provider_request_id",
            "request_id",
            "feature",
            "user_digest",
            "session",
            "tags",
            "prompt_digest",
            "prompt_name",
            "prompt_version",
            "signals",
            "request_bytes",
            "response_bytes",
        )
        read_only_fields = fields

    def get_signals(self, call: Call) -> list[str]:
        """What the record says of the answer's quality: `truncated`, `filtered`, `schema_failed` ..."""
        return [name for name, bit in BIT.items() if call.signals & bit]

    def get_project(self, call: Call) -> str | None:
        """The project's slug; null when it is gone."""
        return self.context.get("projects", {}).get(call.project_id)

    def get_key(self, call: Call) -> str | None:
        """The service key's name; null when it is gone."""
        return self.context.get("keys", {}).get(call.key_id)


class ChargeSerializer(serializers.Serializer[Any]):
    budget = serializers.CharField()
    budget_id = serializers.UUIDField(allow_null=True)
    soft = serializers.BooleanField()
    held_usd = serializers.CharField()
    cost_usd = serializers.CharField()
    overrun_usd = serializers.CharField()
    starts_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True)


class CallStorySerializer(CallSerializer):
    attempts = serializers.JSONField(read_only=True)
    verdicts = serializers.JSONField(read_only=True)
    charges = ChargeSerializer(many=True, read_only=True)
    corrections = serializers.JSONField(read_only=True, help_text="What people corrected, the latest first.")

    class Meta(CallSerializer.Meta):
        fields = (*CallSerializer.Meta.fields, "attempts", "verdicts", "charges", "corrections")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class CorrectionBody(serializers.Serializer[Any]):
    cost_usd = UsdField(source="cost_nano", help_text="What the call cost in all.")
    reason = serializers.CharField(max_length=500, help_text="How you know.")
    expected_usd = UsdField(
        source="expected_nano",
        required=False,
        help_text="The cost that you were shown; another one is a 409.",
    )


class CorrectionSerializer(serializers.ModelSerializer[Correction]):
    before_usd = UsdField(source="before_nano")
    after_usd = UsdField(source="after_nano")

    class Meta:
        model = Correction
        fields = ("id", "call_id", "before_usd", "after_usd", "reason", "by_name", "at")
        read_only_fields = fields


class TextsSerializer(serializers.Serializer[Any]):
    """Redacted, and cut where it was long. ``asked`` are pairs of a role and its text, ``answered`` of a kind (``text``, ``refusal``,
    ``tool``) and the words."""

    call_id = serializers.UUIDField()
    kept_until = serializers.DateTimeField(source="until")
    asked = serializers.ListField(child=serializers.ListField(child=serializers.CharField()))
    asked_cut = serializers.BooleanField(source="cut")
    asked_changed = serializers.BooleanField(
        source="changed", help_text="Something was taken out of it before it was kept."
    )
    request = serializers.JSONField(
        allow_null=True, help_text="The members of the request; null where they were too many to be kept."
    )
    answered = serializers.ListField(child=serializers.ListField(child=serializers.CharField()))
    answer_cut = serializers.BooleanField()


class CallsPage(serializers.Serializer[Any]):
    next = serializers.CharField(allow_null=True)
    results = CallSerializer(many=True)


class Calls(ConsoleViewSet):
    """Calls, newest first. A page costs the same however deep it lies."""

    queryset = Call.objects.all()
    serializer_class = CallSerializer
    project_path = "project_id"
    filter_backends = ()
    permission_map = {
        "list": "usage.view",
        "retrieve": "usage.view",
        "correct": "usage.correct",
        "texts": texts.PERMISSION,
    }

    @extend_schema(
        responses=CallsPage,
        parameters=[
            OpenApiParameter(name, OpenApiTypes.STR, description=text) for name, text in _FILTERS.items()
        ],
    )
    def list(self, request: Request) -> Response:
        asked = request.query_params
        page = calls_page(filters=_filters(request), cursor=asked.get("cursor"), page_size=_page_size(asked))
        context = {**self.get_serializer_context(), "projects": page.projects, "keys": page.keys}
        following = None
        if page.next_cursor:
            following = replace_query_param(request.build_absolute_uri(), "cursor", page.next_cursor)
        results = CallSerializer(page.calls, many=True, context=context).data
        return Response({"next": following, "results": results})

    @extend_schema(responses=CallStorySerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        call: Call = self.get_object()
        story = call_story(call.pk)
        context = {
            **self.get_serializer_context(),
            "projects": {call.project_id: story.project.slug if story.project else None},
            "keys": {call.key_id: story.key.name if story.key else None},
        }
        body = dict(CallSerializer(call, context=context).data)
        body["attempts"] = call.attempts
        body["verdicts"] = call.verdicts
        body["charges"] = [_charge(charge) for charge in story.charges]
        body["corrections"] = CorrectionSerializer(story.corrections, many=True).data
        return Response(body)

    @extend_schema(request=None, responses={200: TextsSerializer})
    @action(detail=True, methods=["post"], serializer_class=TextsSerializer)
    def texts(self, request: Request, pk: str) -> Response:
        """What the call said, and what it was answered, where its project keeps that for people. Reading it is on the record."""
        call: Call = self.get_object()
        found = texts.read_texts(self.actor, calls=[call], why="read")[call.pk]
        return Response(TextsSerializer(found).data)

    @extend_schema(request=CorrectionBody, responses={201: CorrectionSerializer})
    @action(detail=True, methods=["post"], serializer_class=CorrectionBody)
    def correct(self, request: Request, pk: str) -> Response:
        """What a call of unknown outcome really cost: its budgets, its figures and the call itself follow."""
        made = services.correct_call(self.actor, call_id=self.get_object().pk, **self.decoded())
        return Response(CorrectionSerializer(made).data, status=201)


def _charge(charge: ChargeStory) -> dict[str, Any]:
    return {
        "budget": charge.budget,
        "budget_id": charge.budget_id,
        "soft": charge.soft,
        "held_usd": format_usd(charge.held_nano),
        "cost_usd": format_usd(charge.cost_nano),
        "overrun_usd": format_usd(charge.overrun_nano),
        "starts_at": charge.starts_at,
        "ends_at": charge.ends_at,
    }


def _filters(request: Request) -> CallFilters:
    asked = request.query_params
    for name in asked:
        if name not in _FILTERS:
            raise InvalidRequest(
                f"There is no filter {name!r} here. Filters are {', '.join(_FILTERS)}.", param=name
            )
    return CallFilters(
        project_ids=_visible(request),
        project_id=_project(request, asked.get("project")),
        key_id=_uuid(asked, "key"),
        status=_words(asked, "status", known={name for name, _ in Call.STATUSES}),
        error_code=_words(asked, "error_code"),
        errors_only=asked.get("errors", "").lower() in ("1", "true", "yes"),
        version=_version(asked),
        signal=_signal(asked),
        start=_moment(asked, "from"),
        end=_moment(asked, "to"),
        **{name: asked.get(name, "") for name in _TEXTS},  # type: ignore[arg-type]
    )


def _version(asked: QueryDict) -> int | None:
    text = asked.get("version", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InvalidRequest("version: this is not the number of a version.", param="version")
    return int(text)


def _signal(asked: QueryDict) -> str:
    name = asked.get("signal", "")
    if name and name not in BIT:
        raise InvalidRequest(f"signal: choose one of {', '.join(SIGNALS)}.", param="signal")
    return name


def _visible(request: Request) -> set[UUID] | None:
    if powers_of(request).allow("usage.view", None):
        return None
    return set(projects_for(request, "usage.view").values_list("pk", flat=True))


def _project(request: Request, slug: str | None) -> UUID | None:
    if not slug:
        return None
    project: Project | None = projects_for(request, "usage.view").filter(slug=slug).first()
    if project is None:
        raise InvalidRequest(f"project: there is no project {slug[:80]!r} that you may see.", param="project")
    return project.pk


def _uuid(asked: QueryDict, name: str) -> UUID | None:
    try:
        return UUID(str(asked[name])) if asked.get(name) else None
    except ValueError:
        raise InvalidRequest(f"{name}: this is not an id (a UUID).", param=name) from None


def _words(asked: QueryDict, name: str, known: set[str] | None = None) -> list[str]:
    words = [word.strip() for word in asked.get(name, "").split(",") if word.strip()]
    wrong = [word for word in words if known is not None and word not in known]
    if wrong:
        raise InvalidRequest(
            f"{name}: {wrong[0][:40]!r} is not one of {', '.join(sorted(known or ()))}.", param=name
        )
    return words


def _moment(asked: QueryDict, name: str) -> Any:
    text = asked.get(name)
    if not text:
        return None
    try:
        # A plus sign that was not escaped arrives as a blank.
        moment = parse_datetime(text.replace(" ", "+") if "T" in text else text)
        if moment is not None and moment.tzinfo is not None:
            # In UTC it may lie outside of the years that there are.
            moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidRequest(
            f"{name}: write a moment with its time zone, such as 2026-11-20T08:00:00Z.", param=name
        )
    return moment


def _page_size(asked: QueryDict) -> int:
    text = asked.get("page_size") or "50"
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 500:
        raise InvalidRequest("page_size: a number from 1 to 500.", param="page_size")
    return int(text)


class JobSerializer(serializers.ModelSerializer[Job]):
    class Meta:
        model = Job
        fields = (
            "id",
            "kind",
            "arguments",
            "state",
            "done",
            "total",
            "message",
            "result",
            "requested_by",
            "requested_at",
            "started_at",
            "heartbeat_at",
            "finished_at",
        )
        read_only_fields = fields


class JobRequest(serializers.Serializer[Any]):
    kind = serializers.ChoiceField(choices=[services.REBUILD], help_text="`rebuild`: a day's figures.")
    day = serializers.DateField(help_text="The day in UTC.")
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class Jobs(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Long pieces of work. They are about the whole organisation, and so is looking at them."""

    queryset = Job.objects.all()
    serializer_class = JobSerializer
    project_path = None
    organisation_only = True
    filterset_fields = ("kind", "state")
    permission_map = {"list": "usage.view", "retrieve": "usage.view", "create": "usage.rebuild"}

    @extend_schema(request=JobRequest, responses={202: JobSerializer})
    def create(self, request: Request) -> Response:
        asked = self.decoded(JobRequest)
        job = services.request_rebuild(self.actor, asked["day"], reason=asked["reason"])
        return self.answer(job, status=202)


def register(router: BaseRouter) -> None:
    router.register("calls", Calls, basename="call")
    router.register("jobs", Jobs, basename="job")
    spend_api.register(router)
