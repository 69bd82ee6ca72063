"""``/api/v1/audit-events/``: the trail, to read."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from rest_framework import mixins, serializers
from rest_framework.routers import BaseRouter

from llmops.audit import wording
from llmops.audit.models import Event
from llmops.audit.selectors import events
from llmops.base.drf import ConsoleViewSet, NewestFirst


class EventSerializer(serializers.ModelSerializer[Event]):
    changes = serializers.SerializerMethodField(help_text="What changed, in words, a line a field.")

    class Meta:
        model = Event
        fields = (
            "sequence",
            "at",
            "actor_kind",
            "actor_id",
            "actor_name",
            "ip",
            "request_id",
            "action",
            "object_type",
            "object_id",
            "object_name",
            "project_id",
            "before",
            "after",
            "changes",
            "reason",
            "prev_hash",
            "hash",
        )

    def get_changes(self, event: Event) -> list[str]:
        return wording.changes(event.before, event.after)


class EventFilter(django_filters.FilterSet):
    action = django_filters.CharFilter(method="by_action", label="an action, or its beginning up to a dot")
    actor = django_filters.CharFilter(field_name="actor_name", lookup_expr="icontains")
    actor_id = django_filters.CharFilter()
    object_type = django_filters.CharFilter()
    object_id = django_filters.CharFilter()
    project = django_filters.UUIDFilter(field_name="project_id")
    request_id = django_filters.CharFilter()
    since = django_filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    def by_action(self, queryset: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        return queryset & events(action=value)


class BySequence(NewestFirst):
    ordering = "-sequence"


class AuditEvents(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Every change and who made it, newest first."""

    queryset = Event.objects.all()
    serializer_class = EventSerializer
    filterset_class = EventFilter
    pagination_class = BySequence
    permission_map = {"list": "audit.view", "retrieve": "audit.view"}
    project_path = "project_id"


def register(router: BaseRouter | Any) -> None:
    router.register("audit-events", AuditEvents, basename="audit-event")
