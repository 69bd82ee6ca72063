"""``/api/v1/budgets/``."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access.api import ProjectField
from llmops.access.models import Project
from llmops.base.drf import ConsoleViewSet
from llmops.base.money_fields import UsdField
from llmops.budgets import services
from llmops.budgets.guard import check_change, check_new
from llmops.budgets.models import Budget, Raise, ThresholdCrossing, Window
from llmops.budgets.selectors import Gauge, gauges_of
from llmops.core.money import format_usd


class GaugeSerializer(serializers.Serializer[Any]):
    """Where a budget stands in its present period; amounts in USD as text."""

    limit_usd = serializers.CharField()
    settled_usd = serializers.CharField()
    held_usd = serializers.CharField(help_text="Leased to data planes: it may be spent.")
    left_usd = serializers.CharField()
    overrun_usd = serializers.CharField(help_text="What providers charged beyond what was held.")
    unattributed_usd = serializers.CharField(help_text="Charged for journals that were lost.")
    carried_usd = serializers.CharField(
        help_text="What the period before left over; it is part of the limit."
    )
    raised_usd = serializers.CharField(
        help_text="What it is raised by at this moment; it is part of the limit."
    )
    percent = serializers.IntegerField(allow_null=True)
    starts_at = serializers.DateTimeField()
    resets_at = serializers.DateTimeField(allow_null=True)


def gauge_body(gauge: Gauge) -> dict[str, Any]:
    return {
        "limit_usd": format_usd(gauge.limit_nano),
        "settled_usd": format_usd(gauge.settled_nano),
        "held_usd": format_usd(gauge.held_nano),
        "left_usd": format_usd(gauge.left_nano),
        "overrun_usd": format_usd(gauge.overrun_nano),
        "unattributed_usd": format_usd(gauge.unattributed_nano),
        "carried_usd": format_usd(gauge.carried_nano),
        "raised_usd": format_usd(gauge.raised_nano),
        "percent": gauge.percent,
        "starts_at": gauge.starts_at,
        "resets_at": gauge.resets_at,
    }


class _List(serializers.ListSerializer[Any]):
    def to_representation(self, data: Any) -> Any:
        rows = list(data)
        self.child.gauges = gauges_of(rows, timezone.now())  # type: ignore[union-attr]
        return super().to_representation(rows)


class BudgetSerializer(serializers.ModelSerializer[Budget]):
    project = ProjectField(required=False, allow_null=True)
    limit_usd = UsdField(source="limit_nano")
    thresholds = serializers.ListField(child=serializers.IntegerField(), required=False)
    notify = serializers.ListField(child=serializers.CharField(), required=False)
    carry_over_usd = UsdField(source="carry_over_nano", required=False)
    gauge = serializers.SerializerMethodField()
    reason = serializers.CharField(max_length=500, write_only=True, required=False, allow_blank=True)

    gauges: dict[Any, Gauge] | None = None

    class Meta:
        model = Budget
        list_serializer_class = _List
        fields = (
            "id",
            "slug",
            "scope_kind",
            "scope_value",
            "project",
            "period",
            "timezone",
            "limit_usd",
            "hard",
            "thresholds",
            "notify",
            "at_limit_route",
            "carry_over_usd",
            "second_person",
            "gauge",
            "reason",
            "archived_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("archived_at",)
        # The service checks these and names the field.
        extra_kwargs: dict[str, Any] = {"slug": {"validators": []}, "timezone": {"validators": []}}

    @extend_schema_field(GaugeSerializer)
    def get_gauge(self, budget: Budget) -> dict[str, Any]:
        found = self.gauges if self.gauges is not None else gauges_of([budget], timezone.now())
        return gauge_body(found[budget.pk])


class RaiseSerializer(serializers.ModelSerializer[Raise]):
    amount_usd = UsdField(source="amount_nano")

    class Meta:
        model = Raise
        fields = (
            "id",
            "amount_usd",
            "starts_at",
            "ends_at",
            "reason",
            "asked_by",
            "approved_by",
            "request_id",
        )
        read_only_fields = fields


class CrossingSerializer(serializers.ModelSerializer[ThresholdCrossing]):
    settled_usd = UsdField(source="settled_nano")
    limit_usd = UsdField(source="limit_nano")

    class Meta:
        model = ThresholdCrossing
        fields = ("percent", "refusing", "crossed_at", "settled_usd", "limit_usd")
        read_only_fields = fields


class WindowSerializer(serializers.ModelSerializer[Window]):
    """One period of a budget as it stands, or ended."""

    limit_usd = UsdField(source="limit_nano")
    settled_usd = UsdField(source="settled_nano")
    held_usd = UsdField(source="leased_nano")
    overrun_usd = UsdField(source="overrun_nano")
    unattributed_usd = UsdField(source="unattributed_nano")
    corrected_usd = UsdField(source="corrected_nano")
    carried_usd = UsdField(source="carried_nano")
    passed_on_usd = UsdField(source="passed_on_nano")
    crossings = CrossingSerializer(many=True)

    class Meta:
        model = Window
        fields = (
            "starts_at", "ends_at", "limit_usd", "settled_usd", "held_usd", "overrun_usd", "unattributed_usd",
            "corrected_usd", "carried_usd", "passed_on_usd", "crossings",
        )  # fmt: skip
        read_only_fields = fields


class RaiseBody(serializers.Serializer[Any]):
    amount_usd = UsdField(source="amount_nano")
    starts_at = serializers.DateTimeField(required=False, help_text="Now, unless said otherwise.")
    ends_at = serializers.DateTimeField()
    reason = serializers.CharField(max_length=500)


class RaiseAsked(serializers.Serializer[Any]):
    request_id = serializers.UUIDField(help_text="The request that waits in the inbox of approvals.")
    title = serializers.CharField()
    digest = serializers.CharField()
    expires_at = serializers.DateTimeField()


class Budgets(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """What may be spent, by whom, in which period. ``DELETE`` archives: nothing that was spent is forgotten."""

    queryset = Budget.objects.filter(archived_at=None).select_related("project")
    serializer_class = BudgetSerializer
    filterset_fields = ("slug", "scope_kind", "scope_value", "project__slug", "hard", "period")
    permission_map = {
        "list": "budget.view",
        "retrieve": "budget.view",
        "create": "budget.manage",
        "partial_update": "budget.manage",
        "destroy": "budget.manage",
        "windows": "budget.view",
        "raises": "budget.view",
        "ask_raise": "budget.request",
    }

    def create(self, request: Request) -> Response:
        data = _arguments(self.decoded())
        check_new(request, data)
        return self.answer(services.create_budget(self.actor, **data), status=201)

    def partial_update(self, request: Request, pk: str) -> Response:
        budget = self.get_object()
        data = _arguments(self.decoded(partial=True))
        check_change(request, budget, data)
        return self.answer(services.update_budget(self.actor, budget_id=budget.pk, **data))

    def destroy(self, request: Request, pk: str) -> Response:
        services.archive_budget(self.actor, budget_id=self.get_object().pk)
        return Response(status=204)

    @extend_schema(responses=WindowSerializer(many=True))
    @action(detail=True, methods=["get"], serializer_class=WindowSerializer, filterset_fields=())
    def windows(self, request: Request, pk: str) -> Response:
        """Its periods, the latest first, with the thresholds that each crossed."""
        rows = self.get_object().windows.prefetch_related("crossings")[:500]
        return Response(WindowSerializer(rows, many=True).data)

    @extend_schema(responses=RaiseSerializer(many=True))
    @action(detail=True, methods=["get"], serializer_class=RaiseSerializer, filterset_fields=())
    def raises(self, request: Request, pk: str) -> Response:
        """Every raise that was approved, the last to begin first."""
        return Response(RaiseSerializer(self.get_object().raises.all()[:500], many=True).data)

    @extend_schema(request=RaiseBody, responses={202: RaiseAsked})
    @raises.mapping.post
    def ask_raise(self, request: Request, pk: str) -> Response:
        """Ask for more for a while. It takes effect when another person approves it."""
        budget = self.get_object()
        row = services.ask_raise(self.actor, budget_id=budget.pk, **self.decoded(RaiseBody))
        told = {"request_id": row.pk, "title": row.title, "digest": row.digest, "expires_at": row.expires_at}
        return Response(RaiseAsked(told).data, status=202)


def _arguments(data: dict[str, Any]) -> dict[str, Any]:
    if "project" in data:
        project: Project | None = data.pop("project")
        data["project_id"] = project.pk if project else None
    return data


def register(router: BaseRouter) -> None:
    router.register("budgets", Budgets, basename="budget")
