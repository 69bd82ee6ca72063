"""``/api/v1/replays``: calls asked again, of another model or with another version of their prompt."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access.models import Project
from llmops.access.selectors import may
from llmops.base.drf import ConsoleViewSet, NewestFirst
from llmops.core.errors import InvalidRequest
from llmops.core.ids import uuid7
from llmops.playground import services
from llmops.playground.selectors import PERMISSION
from llmops.usage import texts
from llmops.usage.models import Call, Replay
from llmops.usage.selectors.replays import LATE, ReplayTold, told


class ReplaySerializer(serializers.Serializer[ReplayTold]):
    id = serializers.UUIDField(source="replay.id")
    of_call = serializers.UUIDField(source="replay.of_call")
    model = serializers.CharField(source="replay.model")
    prompt_version = serializers.IntegerField(source="replay.prompt_version", allow_null=True)
    state = serializers.SerializerMethodField(
        help_text="``lost``: the call will not come; ``problem`` may say why."
    )
    call = serializers.UUIDField(
        source="call.pk", allow_null=True, default=None, help_text="The new call, once it is booked."
    )
    problem = serializers.CharField(source="replay.problem")
    made_by = serializers.CharField(source="replay.made_by")
    made_at = serializers.DateTimeField(source="replay.made_at")

    @extend_schema_field(serializers.ChoiceField(choices=["under_way", "made", "lost"]))
    def get_state(self, one: ReplayTold) -> str:
        if one.call is not None:
            return "made"
        late = timezone.now() - one.replay.made_at > LATE
        return "lost" if one.replay.problem or late else "under_way"


class NewReplay(serializers.Serializer[Any]):
    id = serializers.UUIDField(
        required=False, help_text="Chosen by who asks: a request that is sent again with it is answered with the replay that it made."
    )  # fmt: skip
    of_call = serializers.UUIDField(help_text="A call whose texts are kept for people.")
    model = serializers.CharField(max_length=63, help_text="The route or model to ask.")
    prompt_version = serializers.IntegerField(
        required=False, allow_null=True, default=None, min_value=1, max_value=2**31 - 1, help_text="In place of the one it was asked with."
    )  # fmt: skip


class LatestMade(NewestFirst):
    """Ids are for who asks to choose, and say nothing of when."""

    ordering = ("-made_at", "-id")


class Replays(ConsoleViewSet):
    """Calls that were made to ask again what others had asked. Each is a new call, marked as such, which its project pays."""

    queryset = Replay.objects.all()
    serializer_class = ReplaySerializer
    pagination_class = LatestMade
    project_path = "project_id"
    filterset_fields = ("of_call", "model")
    permission_map = {"list": "usage.view", "retrieve": "usage.view", "create": PERMISSION}

    @extend_schema(responses=ReplaySerializer(many=True))
    def list(self, request: Request) -> Response:
        """The latest first."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(self.get_serializer(told(page), many=True).data)

    def retrieve(self, request: Request, pk: str) -> Response:
        return self._told(self.get_object())

    @extend_schema(request=NewReplay, responses={202: ReplaySerializer})
    def create(self, request: Request) -> Response:
        """Ask again what a call asked. Takes ``text.read`` beside ``playground.use``. The answer comes at once; the call is under
        way."""
        data = self.decoded(NewReplay)
        call = Call.objects.filter(pk=data["of_call"]).first()
        if call is None or not may(request, "usage.view", call.project_id):
            raise InvalidRequest("of_call: there is no such call of yours.", param="of_call")
        project = Project.objects.filter(pk=call.project_id, archived_at=None).first()
        if project is None:
            raise InvalidRequest("of_call: its project is archived.", param="of_call")
        for permission in (texts.PERMISSION, PERMISSION):
            self.check_may(permission, project)
        replay_id: UUID = data.get("id") or uuid7()
        made = services.replay_call(
            self.actor, call=call, replay_id=replay_id, model=data["model"], version=data["prompt_version"]
        )
        return self._told(made, status=202)

    def _told(self, row: Replay, *, status: int = 200) -> Response:
        return self.answer(told([row])[0], status=status)


def register(router: BaseRouter) -> None:
    router.register("replays", Replays)
