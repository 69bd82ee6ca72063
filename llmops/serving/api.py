"""``/api/v1/revisions``: what is live and was, what would be published, publishing and restoring."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.approvals.models import Request as Asked
from llmops.base.drf import ConsoleViewSet, NewestFirst
from llmops.serving import rules, services
from llmops.serving.models import LivePointer, Revision
from llmops.serving.selectors import exported, pending


class ByNumber(NewestFirst):
    ordering = "-number"


class RevisionSerializer(serializers.ModelSerializer[Revision]):
    live = serializers.SerializerMethodField()

    class Meta:
        model = Revision
        fields = (
            "number", "live", "digest", "changes", "reason", "restores", "origin", "author", "approved_by", "published_at",
        )  # fmt: skip

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
    expected_digest = serializers.CharField(
        required=False,
        allow_blank=True,
        default="",
        max_length=64,
        help_text="The digest that `pending` gave; something else being configured answers 409.",
    )
    as_of = serializers.IntegerField(
        required=False,
        allow_null=True,
        default=None,
        min_value=0,
        help_text="What `pending` gave with it: a 409 then says what changed since.",
    )


class Bringing(Publishing):
    file = serializers.CharField(
        trim_whitespace=False, help_text="A revision as `export` gives it, character by character."
    )
    digest = serializers.CharField(
        required=False, allow_blank=True, default="", max_length=64, help_text="The digest that it must have."
    )


class Waiting(serializers.Serializer[Any]):
    """What was asked for takes a second person."""

    request = serializers.UUIDField(help_text="Under `/api/v1/approvals/`.")
    title = serializers.CharField()
    expires_at = serializers.DateTimeField()


class ProblemSerializer(serializers.Serializer[Any]):
    level = serializers.ChoiceField(choices=["error", "warning"])
    code = serializers.CharField()
    kind = serializers.ChoiceField(choices=["provider", "model", "route", "policy", "prompt", "project"])
    slug = serializers.CharField()
    field = serializers.CharField(
        help_text="The member of the object that is wrong; empty where there is none."
    )
    message = serializers.CharField()


class PendingSerializer(serializers.Serializer[Any]):
    live = serializers.IntegerField()
    digest = serializers.CharField()
    as_of = serializers.IntegerField(help_text="The audit trail's last number: what is here is of then.")
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
        **dict.fromkeys(("list", "retrieve", "pending", "export"), "revision.view"),
        **dict.fromkeys(("create", "restore", "bring"), "revision.publish"),
    }

    def get_serializer_context(self) -> dict[str, Any]:
        live = LivePointer.objects.values_list("revision_id", flat=True).first()
        return {**super().get_serializer_context(), "live": live}

    @extend_schema(responses=WholeRevision)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return Response(WholeRevision(self.get_object(), context=self.get_serializer_context()).data)

    @extend_schema(request=Publishing, responses={201: RevisionSerializer, 202: Waiting})
    def create(self, request: Request) -> Response:
        """Publish what is configured; 202 with a request where that takes a second person."""
        return self._proposed(services.propose(self.actor, **self.decoded(Publishing)))

    @extend_schema(request=Publishing, responses={201: RevisionSerializer, 202: Waiting})
    @action(detail=True, methods=["post"], serializer_class=Publishing)
    def restore(self, request: Request, number: str) -> Response:
        """Publish the very bytes of this revision again; what is configured stays as it is."""
        wanted = str(self.get_object().number)
        return self._proposed(
            services.propose(self.actor, what=rules.RESTORE, object_id=wanted, **self.decoded())
        )

    @extend_schema(responses={(200, "application/json"): bytes})
    @action(detail=True, methods=["get"], filterset_fields=())
    def export(self, request: Request, number: str) -> HttpResponse:
        """The revision as a file: its very bytes and their digest. Another console makes the same bytes live."""
        revision = self.get_object()
        services.note_export(self.actor, revision=revision)
        name = f"revision-{revision.number}-{revision.digest[:12]}.json"
        return HttpResponse(
            exported(revision),
            content_type="application/json",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    @extend_schema(request=Bringing, responses={201: RevisionSerializer, 202: Waiting})
    @action(detail=False, methods=["post"], url_path="import", serializer_class=Bringing)
    def bring(self, request: Request) -> Response:
        """Make a revision of another console live here: the very bytes, or nothing."""
        asked = self.decoded()
        made = services.import_revision(
            self.actor, data=asked.pop("file").encode(), digest=asked.pop("digest"), **asked
        )
        return self._proposed(made)

    def _proposed(self, made: Revision | Asked) -> Response:
        if isinstance(made, Asked):
            return Response(
                Waiting({"request": made.pk, "title": made.title, "expires_at": made.expires_at}).data,
                status=202,
            )
        return Response(RevisionSerializer(made, context=self.get_serializer_context()).data, status=201)

    @extend_schema(responses=PendingSerializer)
    @action(detail=False, methods=["get"], serializer_class=PendingSerializer, filterset_fields=())
    def pending(self, request: Request) -> Response:
        """What would be published now, and what stands in the way."""
        return Response(PendingSerializer(pending()).data)


def register(router: BaseRouter | Any) -> None:
    router.register("revisions", Revisions)
