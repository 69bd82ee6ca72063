"""``/api/v1/incidents`` and ``/api/v1/slos``."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access.api import ProjectField
from llmops.access.selectors import may
from llmops.alerts import services
from llmops.alerts.behind import behind
from llmops.alerts.figures import Figures
from llmops.alerts.models import Entry, Incident, Slo
from llmops.alerts.postmortem import written
from llmops.alerts.selectors import open_by_severity, silences_everywhere, standings
from llmops.base.clock import database_now
from llmops.base.drf import ConsoleViewSet


class IncidentEntrySerializer(serializers.ModelSerializer[Entry]):
    class Meta:
        model = Entry
        fields = ("at", "kind", "who", "text")
        read_only_fields = fields


class IncidentSerializer(serializers.ModelSerializer[Incident]):
    rule = serializers.CharField(source="rule.slug", read_only=True)
    runbook = serializers.CharField(source="rule.runbook", read_only=True)
    project = ProjectField(read_only=True)
    silenced_until = serializers.SerializerMethodField()

    class Meta:
        model = Incident
        fields = (
            "id", "rule", "subject", "project", "severity", "state", "title", "says", "value", "worst", "calls", "facts",
            "runbook", "opened_at", "last_true_at", "clear_since", "acknowledged_at", "acknowledged_by", "resolved_at",
            "resolved_by", "flaps", "silenced_until",
        )  # fmt: skip
        read_only_fields = fields

    def get_silenced_until(self, row: Incident) -> str | None:
        # One query for all rows of a page.
        context = cast("dict[str, Any]", self.context)
        if "silences" not in context:
            context["silences"] = silences_everywhere(database_now())
        found = context["silences"]
        ends = [until for subject in ("", row.subject) if (until := found.get((row.rule_id, subject)))]
        return max(ends).isoformat() if ends else None


class IncidentNote(serializers.Serializer[Any]):
    note = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class IncidentText(serializers.Serializer[Any]):
    text = serializers.CharField(max_length=500)


class IncidentSilence(serializers.Serializer[Any]):
    minutes = serializers.IntegerField(min_value=1, max_value=43_200)
    reason = serializers.CharField(max_length=500)
    whole_rule = serializers.BooleanField(required=False, default=False, help_text="Whatever the rule finds.")


class IncidentPostmortem(serializers.Serializer[Any]):
    markdown = serializers.CharField()


class Incidents(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """What is wrong, or was. Incidents begin and end by themselves; people look after them."""

    queryset = Incident.objects.select_related("rule", "project")
    serializer_class = IncidentSerializer
    filterset_fields = ("state", "severity", "rule__slug", "project__slug")
    permission_map = {
        **dict.fromkeys(("list", "retrieve", "timeline", "postmortem", "metrics"), "alert.view"),
        **dict.fromkeys(("acknowledge", "resolve", "silence", "unsilence", "note"), "alert.respond"),
    }

    @extend_schema(responses=IncidentEntrySerializer(many=True))
    @action(detail=True, methods=["get"], filterset_fields=(), pagination_class=None)
    def timeline(self, request: Request, pk: str) -> Response:
        """All that happened in it, the first thing first."""
        return Response(IncidentEntrySerializer(self.get_object().entries.all(), many=True).data)

    @extend_schema(responses={(200, "text/plain"): str})
    @action(detail=False, methods=["get"], filterset_fields=(), pagination_class=None)
    def metrics(self, request: Request) -> HttpResponse:
        """How many incidents are not over, in the text format of Prometheus."""
        counted = open_by_severity(self.get_queryset())
        lines = [
            "# HELP llmops_open_incidents Incidents that are not resolved.",
            "# TYPE llmops_open_incidents gauge",
            *(f'llmops_open_incidents{{severity="{name}"}} {number}' for name, number in counted.items()),
        ]
        return HttpResponse("\n".join(lines) + "\n", content_type="text/plain; version=0.0.4; charset=utf-8")

    @extend_schema(responses=IncidentPostmortem)
    @action(detail=True, methods=["get"])
    def postmortem(self, request: Request, pk: str) -> Response:
        """A text to go on from, in Markdown, filled from the timeline."""
        row = self.get_object()
        calls = behind(row, database_now()) if may(request, "usage.view", row.project) else None
        return Response({"markdown": written(row, calls)})

    @extend_schema(request=IncidentNote, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, pk: str) -> Response:
        """Say that one looks after it, so that nobody else is told that nobody does."""
        row, data = self.get_object(), self.decoded(IncidentNote)
        return self.answer(services.acknowledge(self.actor, incident=row, **data))

    @extend_schema(request=IncidentNote, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, pk: str) -> Response:
        """End it before its time; 409 while its condition holds."""
        row, data = self.get_object(), self.decoded(IncidentNote)
        return self.answer(services.resolve(self.actor, incident=row, **data))

    @extend_schema(request=IncidentSilence, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def silence(self, request: Request, pk: str) -> Response:
        """Tell nobody of it for so long."""
        row, data = self.get_object(), self.decoded(IncidentSilence)
        services.silence(self.actor, incident=row, **data)
        return self.answer(self.get_object())

    @extend_schema(request=None, responses=IncidentSerializer)
    @action(detail=True, methods=["post"])
    def unsilence(self, request: Request, pk: str) -> Response:
        """End what silences it."""
        row = self.get_object()
        services.end_silence(self.actor, incident=row)
        return self.answer(self.get_object())

    @extend_schema(request=IncidentText, responses=IncidentEntrySerializer(many=True))
    @action(detail=True, methods=["post"])
    def note(self, request: Request, pk: str) -> Response:
        """Add a line to its timeline."""
        row, data = self.get_object(), self.decoded(IncidentText)
        services.note(self.actor, incident=row, **data)
        return Response(IncidentEntrySerializer(row.entries.all(), many=True).data)


class SloSerializer(serializers.ModelSerializer[Slo]):
    project = ProjectField(read_only=True)

    class Meta:
        model = Slo
        fields = (
            "id", "slug", "objective", "target_ppm", "threshold", "window_days", "project", "route", "feature",
        )  # fmt: skip
        read_only_fields = fields


class SloStanding(serializers.Serializer[Any]):
    valid = serializers.IntegerField(help_text="Calls that count over its window.")
    bad = serializers.IntegerField(help_text="Those of them that missed it.")
    budget_left = serializers.FloatField(
        help_text="1: all of the error budget; below 0: the objective is missed."
    )
    burns = serializers.ListField(child=serializers.DictField())


class Slos(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Objectives, and how much of each error budget is left."""

    queryset = Slo.objects.filter(archived_at=None).select_related("project")
    serializer_class = SloSerializer
    filterset_fields = ("slug", "objective", "project__slug")
    permission_map = dict.fromkeys(("list", "retrieve", "standing"), "alert.view")

    @extend_schema(responses=SloStanding)
    @action(detail=True, methods=["get"])
    def standing(self, request: Request, pk: str) -> Response:
        """How it stands now."""
        (found,) = standings([self.get_object()], Figures(database_now()))
        burns = [
            {
                "long_s": one.policy.long_s,
                "short_s": one.policy.short_s,
                "bound": one.policy.rate,
                "long": one.long_rate,
                "short": one.short_rate,
                "alerts": one.alerts,
            }
            for one in found.burns
        ]
        return Response(
            {"valid": found.count.valid, "bad": found.count.bad, "budget_left": found.left, "burns": burns}
        )


def register(router: BaseRouter) -> None:
    router.register("incidents", Incidents)
    router.register("slos", Slos)
