"""``/api/v1/datasets``: datasets, their cases without texts, adding a call as a case, and the cases with texts as a file."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access.api import ProjectField
from llmops.access.selectors import may
from llmops.base.drf import ConsoleViewSet
from llmops.base.stepwise import stepwise
from llmops.core.errors import InvalidRequest
from llmops.evals import services
from llmops.evals.models import Case, Dataset
from llmops.evals.selectors import MANAGE, VIEW
from llmops.usage import texts
from llmops.usage.models import Call


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    project = ProjectField()
    cases = serializers.IntegerField(source="cases_made", read_only=True)

    class Meta:
        model = Dataset
        fields = ("id", "project", "name", "description", "cases", "made_by", "made_at")
        read_only_fields = ("made_by", "made_at")
        # The service answers 409 for a name that is taken.
        validators: list[Any] = []


class CaseSerializer(serializers.ModelSerializer[Case]):
    """What a case says of itself; its texts are in the export."""

    case = serializers.IntegerField(source="n", read_only=True)
    has_expected = serializers.SerializerMethodField(
        help_text="Whether somebody said what ought to be answered."
    )

    class Meta:
        model = Case
        fields = (
            "case", "source_call", "source_started_at", "endpoint", "model", "prompt_name", "prompt_version", "digest", "note",
            "has_expected", "added_by", "added_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_has_expected(self, case: Case) -> bool:
        return bool(case.sealed_expected)


class NewCase(serializers.Serializer[Any]):
    call = serializers.UUIDField(help_text="A call of the dataset's project whose texts are kept for people.")
    expected = serializers.CharField(
        required=False, allow_blank=True, default="", trim_whitespace=False, help_text="What ought to be answered."
    )  # fmt: skip
    note = serializers.CharField(required=False, allow_blank=True, default="")


class Datasets(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Calls that somebody chose to keep as cases. Cases are only added; their texts are read as a file, which is on record."""

    queryset = Dataset.objects.select_related("project")
    serializer_class = DatasetSerializer
    filterset_fields = ("name", "project__slug")
    permission_map = {
        **dict.fromkeys(("list", "retrieve", "cases"), VIEW),
        **dict.fromkeys(("create", "add_case"), MANAGE),
        "export": texts.PERMISSION,
    }

    def create(self, request: Request) -> Response:
        """A dataset of a project; 409 where it has one of the name."""
        data = self.decoded()
        self.check_may(MANAGE, data["project"])
        return self.answer(services.create_dataset(self.actor, **data), status=201)

    @extend_schema(responses=CaseSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_fields=(), serializer_class=CaseSerializer)
    def cases(self, request: Request, pk: str) -> Response:
        """Its cases without their texts, the latest first."""
        page = self.paginate_queryset(self.get_object().cases.all())
        return self.get_paginated_response(CaseSerializer(page, many=True).data)

    @extend_schema(request=NewCase, responses={201: CaseSerializer})
    @cases.mapping.post
    def add_case(self, request: Request, pk: str) -> Response:
        """Put a call into it, with what its project keeps of its texts; 409 for a call that is in it already. Takes ``text.read``
        beside ``dataset.manage``."""
        dataset: Dataset = self.get_object()
        self.check_may(texts.PERMISSION, dataset.project)
        data = self.decoded(NewCase)
        call = _call(request, data.pop("call"))
        case = services.add_case(self.actor, dataset=dataset, call=call, **data)
        return Response(CaseSerializer(case).data, status=201)

    @extend_schema(request=None, responses={(200, "application/x-ndjson"): OpenApiTypes.STR})
    @action(detail=True, methods=["post"], filterset_fields=(), pagination_class=None)
    def export(self, request: Request, pk: str) -> HttpResponseBase:
        """Every case with its texts, a JSON object a line. That they were read is on record."""
        dataset: Dataset = self.get_object()
        lines = services.export_dataset(self.actor, dataset=dataset)
        return stepwise(request, (line.encode() for line in lines), "application/x-ndjson")


def _call(request: Request, call_id: UUID) -> Call:
    call = Call.objects.filter(pk=call_id).first()
    if call is None or not may(request, "usage.view", call.project_id):
        raise InvalidRequest("call: there is no such call of yours.", param="call")
    return call


def register(router: BaseRouter) -> None:
    router.register("datasets", Datasets)
