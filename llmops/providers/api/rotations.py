"""``/api/v1/rotations``."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.base.drf import ConsoleViewSet
from llmops.providers import services
from llmops.providers.api.shared import BySlug, Explanation
from llmops.providers.draining import remaining
from llmops.providers.models import Credential, Rotation
from llmops.providers.models.rotations import DRAINING
from llmops.providers.rules import CREDENTIAL_SOURCES


class ProcessUseSerializer(serializers.Serializer[Any]):
    host = serializers.CharField()
    process = serializers.UUIDField()
    calls = serializers.IntegerField()
    background = serializers.IntegerField()
    known = serializers.BooleanField(help_text="False: it has not said anything since the key drains.")


class RemainingSerializer(serializers.Serializer[Any]):
    drained = serializers.BooleanField()
    calls = serializers.IntegerField(help_text="Calls under way and background responses that are followed.")
    work = serializers.DictField(
        child=serializers.IntegerField(), help_text="What goes on at the provider, by kind."
    )
    processes = ProcessUseSerializer(many=True)


class RotationSerializer(serializers.ModelSerializer[Rotation]):
    provider = BySlug(read_only=True)
    remaining = serializers.SerializerMethodField(
        help_text="What still uses the old key, while it drains; else null."
    )

    @extend_schema_field(RemainingSerializer(allow_null=True))
    def get_remaining(self, rotation: Rotation) -> Any:
        return RemainingSerializer(remaining(rotation)).data if rotation.state == DRAINING else None

    class Meta:
        model = Rotation
        fields = (
            "id",
            "provider",
            "old",
            "new",
            "state",
            "probe_result",
            "unprobed_reason",
            "keep_minutes",
            "deadline_hours",
            "by_itself",
            "begun_by",
            "activated_at",
            "deadline_at",
            "finished_at",
            "outcome",
            "remaining",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class NewRotation(serializers.Serializer[Any]):
    credential = serializers.PrimaryKeyRelatedField(
        queryset=Credential.objects.all(), help_text="Id of the key in use that another one is to replace."
    )
    secret = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        default="",
        max_length=10_000,
        help_text="The new key. It is tried with a real call first. Can be written, never read.",
    )
    reference = serializers.CharField(required=False, allow_blank=True, default="", max_length=300)
    keep_minutes = serializers.IntegerField(
        default=15, required=False, help_text="The old key is kept at least so long, to be put back."
    )
    deadline_hours = serializers.IntegerField(
        default=24, required=False, help_text="The old key is revoked then, whatever still uses it."
    )
    by_itself = serializers.BooleanField(
        default=True, required=False, help_text="Revoke the old key as soon as nothing uses it."
    )
    unprobed_reason = serializers.CharField(
        max_length=300,
        required=False,
        allow_blank=True,
        default="",
        help_text="Stage the new key without trying it, and why.",
    )
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")

    def get_fields(self) -> dict[str, Any]:
        # By this name a serializer keeps what it was given.
        return {
            **super().get_fields(),
            "source": serializers.ChoiceField(CREDENTIAL_SOURCES, default="sealed"),
        }


class Rotations(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """A provider key takes the place of another: staged, in use while the old one drains, then the old one is revoked."""

    queryset = Rotation.objects.select_related("provider", "old", "new")
    serializer_class = RotationSerializer
    filterset_fields = ("provider__slug", "state", "old", "new")
    project_path = None
    permission_map = {
        "list": "provider.view",
        "retrieve": "provider.view",
        **dict.fromkeys(("create", "activate", "take_back", "finish", "cancel"), "provider.manage"),
    }

    @extend_schema(request=NewRotation, responses={201: RotationSerializer})
    def create(self, request: Request) -> Response:
        """Try the new key and stage it. A key that does not work is a 422 that says why, and changes nothing."""
        made = services.begin_rotation(self.actor, **self.decoded(NewRotation))
        return Response(RotationSerializer(made).data, status=201)

    @extend_schema(request=Explanation, responses=RotationSerializer)
    @action(detail=True, methods=["post"], serializer_class=Explanation)
    def activate(self, request: Request, pk: str) -> Response:
        return self._moved(services.activate_rotation)

    @extend_schema(request=Explanation, responses=RotationSerializer)
    @action(detail=True, methods=["post"], url_path="take-back", serializer_class=Explanation)
    def take_back(self, request: Request, pk: str) -> Response:
        """Put the old key back into use."""
        return self._moved(services.return_rotation)

    @extend_schema(request=Explanation, responses=RotationSerializer)
    @action(detail=True, methods=["post"], serializer_class=Explanation)
    def finish(self, request: Request, pk: str) -> Response:
        """Revoke the old key; while something uses it this takes a reason."""
        return self._moved(services.finish_rotation)

    @extend_schema(request=Explanation, responses=RotationSerializer)
    @action(detail=True, methods=["post"], serializer_class=Explanation)
    def cancel(self, request: Request, pk: str) -> Response:
        return self._moved(services.cancel_rotation)

    def _moved(self, change: Any) -> Response:
        rotation = change(self.actor, rotation=self.get_object(), **self.decoded())
        return Response(RotationSerializer(rotation).data)
