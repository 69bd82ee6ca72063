"""``/api/v1/tools``: definitions with their versions, and trying them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.access.api import ProjectField
from llmops.access.models import slug_validator
from llmops.base.drf import ConsoleViewSet
from llmops.tools import services
from llmops.tools.models import Tool, ToolVersion
from llmops.tools.selectors import trial
from llmops.tools.wording import differences


@extend_schema_field({"type": "object"})
class DefinitionField(serializers.JSONField):
    """What ``rules.Definition`` says; the service names what is wrong by its path."""


class ToolVersionSerializer(serializers.ModelSerializer[ToolVersion]):
    definition = DefinitionField(read_only=True)

    class Meta:
        model = ToolVersion
        fields = ("number", "definition", "note", "digest", "created_at", "created_by")


class ToolHistorySerializer(ToolVersionSerializer):
    changes = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Against the version before, in words."
    )

    class Meta(ToolVersionSerializer.Meta):
        fields = (*ToolVersionSerializer.Meta.fields, "changes")  # type: ignore[assignment]


class ToolSerializer(serializers.ModelSerializer[Tool]):
    project = ProjectField()
    definition = DefinitionField(write_only=True, help_text="Of the first version.")
    note = serializers.CharField(
        write_only=True, max_length=300, required=False, allow_blank=True, default=""
    )
    current = ToolVersionSerializer(read_only=True)

    class Meta:
        model = Tool
        fields = (
            "id", "slug", "project", "definition", "note", "current", "secret_set_at", "paused_at", "pause_reason",
            "archived_at", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = ("secret_set_at", "paused_at", "pause_reason", "archived_at")
        # The service answers 409 for a name that is taken.
        extra_kwargs: dict[str, Any] = {"slug": {"validators": [slug_validator]}}
        validators: list[Any] = []


class NewToolVersion(serializers.Serializer[Any]):
    definition = DefinitionField()
    note = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class PauseBody(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class ArgumentsBody(serializers.Serializer[Any]):
    arguments = serializers.DictField()


class NothingBody(serializers.Serializer[Any]):
    """An empty body."""


class ToolTrialSerializer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    says = serializers.CharField(help_text="The call in words, as a reviewer reads it.")
    risk = serializers.CharField()
    because = serializers.CharField(help_text="The rule that set the class.")
    approvals = serializers.IntegerField(help_text="How many people would have to agree.")
    arguments = serializers.DictField()


class ToolOutcomeSerializer(serializers.Serializer[Any]):
    state = serializers.ChoiceField(choices=["succeeded", "failed", "unknown"])
    result = serializers.JSONField(allow_null=True)
    message = serializers.CharField()


class SigningSecretSerializer(serializers.Serializer[Any]):
    secret = serializers.CharField(help_text="Shown now and never again.")


class Tools(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """What models may ask for. A version is never changed; the newest holds for what is proposed from then on."""

    queryset = Tool.objects.select_related("project", "current")
    serializer_class = ToolSerializer
    filterset_fields = ("slug", "project__slug")
    project_path = "project"
    permission_map = {
        **dict.fromkeys(("list", "retrieve", "versions", "trial"), "tool.view"),
        **dict.fromkeys(
            (
                "create", "add_version", "pause", "resume", "archive", "restore", "rotate_secret", "dry_run",
            ),
            "tool.manage",
        ),
    }  # fmt: skip

    def create(self, request: Request) -> Response:
        data = self.decoded()
        self.check_may("tool.manage", data["project"])
        return self.answer(services.create_tool(self.actor, **data), status=201)

    @extend_schema(responses=ToolHistorySerializer(many=True))
    @action(detail=True, methods=["get"], filterset_fields=(), pagination_class=None)
    def versions(self, request: Request, pk: str) -> Response:
        """All versions, the newest first, each with its differences to the one before in words."""
        rows: list[Any] = list(self.get_object().versions.order_by("number"))
        before: dict[str, Any] = {}
        for row in rows:
            row.changes = differences(before, row.definition)
            before = row.definition
        return Response(ToolHistorySerializer(rows[::-1], many=True).data)

    @extend_schema(request=NewToolVersion, responses={201: ToolSerializer})
    @versions.mapping.post
    def add_version(self, request: Request, pk: str) -> Response:
        """The whole definition of the next version; without a difference nothing changes."""
        tool, data = self.get_object(), self.decoded(NewToolVersion)
        return self.answer(services.add_version(self.actor, tool=tool, **data), status=201)

    @extend_schema(request=PauseBody)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Nothing is proposed and nothing begun until it is resumed."""
        tool, data = self.get_object(), self.decoded(PauseBody)
        return self.answer(services.pause_tool(self.actor, tool=tool, **data))

    @extend_schema(request=NothingBody)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        self.decoded(NothingBody)
        return self.answer(services.resume_tool(self.actor, tool=self.get_object()))

    @extend_schema(request=NothingBody)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, pk: str) -> Response:
        self.decoded(NothingBody)
        return self.answer(services.archive_tool(self.actor, tool=self.get_object()))

    @extend_schema(request=NothingBody)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, pk: str) -> Response:
        self.decoded(NothingBody)
        return self.answer(services.unarchive_tool(self.actor, tool=self.get_object()))

    @extend_schema(request=NothingBody, responses=SigningSecretSerializer)
    @action(detail=True, methods=["post"], url_path="rotate-secret")
    def rotate_secret(self, request: Request, pk: str) -> Response:
        """A new secret that signs what the webhook gets. The one before ends at once."""
        self.decoded(NothingBody)
        return Response({"secret": services.rotate_secret(self.actor, tool=self.get_object())})

    @extend_schema(request=ArgumentsBody, responses=ToolTrialSerializer)
    @action(detail=True, methods=["post"], url_path="try")
    def trial(self, request: Request, pk: str) -> Response:
        """What would become of a call with these arguments. Nothing is kept and nothing is called."""
        tool, data = self.get_object(), self.decoded(ArgumentsBody)
        return Response(trial(tool, data["arguments"]))

    @extend_schema(request=ArgumentsBody, responses=ToolOutcomeSerializer)
    @action(detail=True, methods=["post"], url_path="dry-run")
    def dry_run(self, request: Request, pk: str) -> Response:
        """Call the tool with ``dry_run``, where its definition says that it knows that."""
        tool, data = self.get_object(), self.decoded(ArgumentsBody)
        outcome = services.call_as_dry_run(self.actor, tool=tool, arguments=data["arguments"])
        return Response(asdict(outcome))
