"""``/api/v1/revisions``: what is live and was, what would be published, publishing and restoring."""

from __future__ import annotations

import json
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.base.drf import ConsoleViewSet, NewestFirst
from llmops.serving import services
from llmops.serving.models import LivePointer, Revision
from llmops.serving.selectors import pending


class ByNumber(NewestFirst):
    ordering = "-number"


class RevisionSerializer(serializers.ModelSerializer[Revision]):
    live = serializers.SerializerMethodField()

    class Meta:
        model = Revision
        fields = ("number", "live", "digest", "changes", "reason", "restores", "author", "published_at")

    def get_live(self, revision: Revision) -> bool:
        return bool(revision.number == self.context["live"])


class WholeRevision(RevisionSerializer):
    document = serializers.SerializerMethodField(
        help_text="Everything that data planes serve. Never a secret."
    )

    class Meta(RevisionSerializer.Meta):
        fields = (*RevisionSerializer.Meta.fields, "document")  # type: ignore[assignment]

    def get_document(self, revision: Revision) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(revision.document)
        return document


class Publishing(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=300, help_text="Why; kept with the revision.")
    expected_revision = serializers.IntegerField(
        required=False,
        allow_null=True,
        default=None,
        min_value=0,
        help_text="The revision you saw live (0 for none); another one being live answers 409.",
    )


class ProblemSerializer(serializers.Serializer[Any]):
    level = serializers.ChoiceField(choices=["error", "warning"])
    code = serializers.CharField()
    kind = serializers.ChoiceField(choices=["provider", "model", "route"])
    slug = serializers.CharField()
    message = serializers.CharField()


class PendingSerializer(serializers.Serializer[Any]):
    live = serializers.IntegerField()
    digest = serializers.CharField()
    publishable = serializers.BooleanField()
    changes = serializers.ListField(child=serializers.CharField())
    problems = ProblemSerializer(many=True)


class Revisions(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Immutable revisions, and the pointer to the live one. Creating one publishes what is configured."""

    queryset = Revision.objects.all()
    serializer_class = RevisionSerializer
    pagination_class = ByNumber
    lookup_field = "number"
    lookup_value_regex = "[0-9]{1,9}"
    filterset_fields = ("digest", "author")
    project_path = None
    permission_map = {
        **dict.fromkeys(("list", "retrieve", "pending"), "revision.view"),
        **dict.fromkeys(("create", "restore"), "revision.publish"),
    }

    def get_serializer_context(self) -> dict[str, Any]:
        live = LivePointer.objects.values_list("revision_id", flat=True).first()
        return {**super().get_serializer_context(), "live": live}

    @extend_schema(responses=WholeRevision)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(WholeRevision(self.get_object(), context=self.get_serializer_context()).data)

    @extend_schema(request=Publishing, responses={201: RevisionSerializer})
    def create(self, request: Request) -> Response:
        return self.answer(services.publish(self.actor, **self.decoded(Publishing)), status=201)

    @extend_schema(request=Publishing, responses={201: RevisionSerializer})
    @action(detail=True, methods=["post"], serializer_class=Publishing)
    def restore(self, request: Request, number: str) -> Response:
        """Publish the very bytes of this revision again; what is configured stays as it is."""
        revision = services.restore(self.actor, number=self.get_object().number, **self.decoded())
        return Response(RevisionSerializer(revision, context=self.get_serializer_context()).data, status=201)

    @extend_schema(responses=PendingSerializer)
    @action(detail=False, methods=["get"], serializer_class=PendingSerializer, filterset_fields=())
    def pending(self, request: Request) -> Response:
        """What would be published now, and what stands in the way."""
        return Response(PendingSerializer(pending()).data)


def register(router: BaseRouter | Any) -> None:
    router.register("revisions", Revisions)
