"""``/api/v1/audit-events/``: the trail, to read."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from rest_framework import mixins, serializers
from rest_framework.routers import BaseRouter

from llmops.audit import wording
from llmops.audit.models import Event
from llmops.audit.searching import actions_named, bounds, object_types
from llmops.audit.selectors import actors_named
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
    actor = django_filters.CharFilter(
        method="by_actor",
        label="who did it: a user name, a name, the name or beginning of a key, a command, or an identifier",
    )
    actor_id = django_filters.CharFilter()
    object_type = django_filters.CharFilter()
    object_id = django_filters.CharFilter()
    project = django_filters.UUIDFilter(field_name="project_id")
    request_id = django_filters.CharFilter()
    since = django_filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = django_filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    def by_action(self, queryset: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        return queryset.filter(action__in=actions_named(value))

    def by_actor(self, queryset: QuerySet[Event], name: str, value: str) -> QuerySet[Event]:
        # By identifier, which has an index: to look into names would mean to read the whole trail.
        return queryset.filter(actor_id__in=actors_named(value))

    def filter_queryset(self, queryset: QuerySet[Event]) -> QuerySet[Event]:
        found: QuerySet[Event] = super().filter_queryset(queryset)
        asked = self.form.cleaned_data
        since, until = asked.get("since"), asked.get("until")
        if since is not None or until is not None:
            # The trail is walked in the order of its numbers, and those of other times are not looked at.
            within = bounds(since, until)
            if within is None:
                return found.none()
            first, last = within
            if first is not None:
                found = found.filter(sequence__gte=first)
            if last is not None:
                found = found.filter(sequence__lte=last)
        if asked.get("object_id") and not asked.get("object_type"):
            # The index begins with the kind, of which there are few.
            found = found.filter(object_type__in=object_types())
        return found


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
