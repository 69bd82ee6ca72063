"""``/api/v1/approvals/``: the inbox, for scripts and other surfaces. Only people decide."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request as HttpRequest
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access.api import ProjectField
from llmops.access.permissions import DeniesUnlessDeclared
from llmops.approvals import services, standing_in
from llmops.approvals.models import Decision, Request, StandIn
from llmops.approvals.selectors import described, shown_to
from llmops.base.clock import database_now
from llmops.base.drf import ConsoleViewSet


class DecisionSerializer(serializers.ModelSerializer[Decision]):
    class Meta:
        model = Decision
        fields = ("approves", "reason", "decided_by_name", "for_name", "decided_at")


class RequestSerializer(serializers.ModelSerializer[Request]):
    project = ProjectField(read_only=True)
    what = serializers.SerializerMethodField(help_text="What exactly would be done, in words.")
    decisions = DecisionSerializer(many=True, read_only=True)

    class Meta:
        model = Request
        fields = (
            "id", "kind", "title", "what", "content", "digest", "object_type", "object_id", "object_name", "project",
            "reason", "requested_by_name", "required", "state", "expires_at", "closed_at", "result", "decisions", "created_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_what(self, row: Request) -> dict[str, str]:
        return dict(described(row))


class DecisionBody(serializers.Serializer[Any]):
    digest = serializers.CharField(max_length=64, help_text="Of what you were shown: the request's own.")
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class CancelBody(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class AmongThoseShown(DeniesUnlessDeclared):
    """What somebody may do with a row hangs on more than a role in its project; the rows are those that concern them, and the
    services say the rest."""

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        return True


class Approvals(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """What waits for a second person. An approval is bound to the digest of what was shown, and carried out at once."""

    queryset = Request.objects.select_related("project").prefetch_related("decisions")
    serializer_class = RequestSerializer
    permission_classes = (AmongThoseShown,)
    filterset_fields = ("state", "kind", "object_id", "project__slug")
    permission_map = {
        "list": "approval.view",
        "retrieve": "approval.view",
        "approve": "approval.decide",
        "reject": "approval.decide",
        "cancel": "approval.view",
    }

    def get_queryset(self) -> QuerySet[Request]:
        rows = Request.objects.select_related("project").prefetch_related("decisions")
        return rows.none() if getattr(self, "swagger_fake_view", False) else shown_to(rows, self.request)

    @extend_schema(request=DecisionBody, responses=RequestSerializer)
    @action(detail=True, methods=["post"], serializer_class=DecisionBody)
    def approve(self, request: HttpRequest, pk: str) -> Response:
        return self._decide(approves=True)

    @extend_schema(request=DecisionBody, responses=RequestSerializer)
    @action(detail=True, methods=["post"], serializer_class=DecisionBody)
    def reject(self, request: HttpRequest, pk: str) -> Response:
        return self._decide(approves=False)

    @extend_schema(request=CancelBody, responses=RequestSerializer)
    @action(detail=True, methods=["post"], serializer_class=CancelBody)
    def cancel(self, request: HttpRequest, pk: str) -> Response:
        row = self.get_object()
        return self._shown(services.cancel(self.actor, request_id=row.pk, **self.decoded()))

    def _decide(self, *, approves: bool) -> Response:
        row, body = self.get_object(), self.decoded()
        return self._shown(
            services.decide(
                self.actor, request_id=row.pk, approves=approves, seen=body["digest"], reason=body["reason"]
            )
        )

    def _shown(self, row: Request) -> Response:
        return Response(RequestSerializer(Request.objects.get(pk=row.pk)).data)


class StandInSerializer(serializers.ModelSerializer[StandIn]):
    person = serializers.CharField(
        max_length=150, source="person.username", help_text="The username of who is away."
    )
    stand_in = serializers.CharField(max_length=150, source="stand_in.username")
    starts_at = serializers.DateTimeField(required=False, help_text="Left out: now.")

    class Meta:
        model = StandIn
        fields = ("id", "person", "stand_in", "starts_at", "ends_at", "reason", "named_by", "created_at")
        read_only_fields = ("named_by",)


class EndBody(serializers.Serializer[Any]):
    """An empty body."""


class StandIns(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Who decides for whom while they are away, as far as whoever asks has a part in it. Only people name one."""

    queryset = StandIn.objects.select_related("person", "stand_in")
    serializer_class = StandInSerializer
    permission_classes = (AmongThoseShown,)
    permission_map = {
        "list": "approval.view",
        "retrieve": "approval.view",
        "create": "approval.decide",
        "end": "approval.decide",
    }
    project_path = None

    def get_queryset(self) -> QuerySet[StandIn]:
        if getattr(self, "swagger_fake_view", False):
            return StandIn.objects.none()
        return standing_in.shown_rows(self.actor, database_now())

    def create(self, request: HttpRequest) -> Response:
        """Have somebody decide for a person, themselves mostly, until a moment."""
        data = self.decoded()
        row = standing_in.name_stand_in(
            self.actor,
            person=data["person"]["username"],
            stand_in=data["stand_in"]["username"],
            starts_at=data.get("starts_at"),
            ends_at=data["ends_at"],
            reason=data.get("reason", ""),
        )
        return self.answer(row, status=201)

    @extend_schema(request=EndBody, responses=StandInSerializer)
    @action(detail=True, methods=["post"], serializer_class=EndBody)
    def end(self, request: HttpRequest, pk: str) -> Response:
        """End it before its time; what was decided stays."""
        row = self.get_object()
        self.decoded()
        return Response(StandInSerializer(standing_in.end_stand_in(self.actor, row=row)).data)


def register(router: BaseRouter) -> None:
    router.register("approvals", Approvals, basename="approval")
    router.register("stand-ins", StandIns, basename="stand-in")
