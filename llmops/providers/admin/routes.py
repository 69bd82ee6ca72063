"""Routes."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display

from llmops.base.admin import ServiceAdmin, admin_action
from llmops.core.actors import Actor
from llmops.providers import services
from llmops.providers.admin.forms import PauseForm, ReasonForm
from llmops.providers.admin.target_fields import RowsField
from llmops.providers.models import Route
from llmops.providers.services.routes import FIELDS


class RouteForm(forms.ModelForm):
    targets = RowsField(
        weighted=True, help_text="Model and weight: its share of calls. More rows appear after saving."
    )
    fallbacks = RowsField(weighted=False, help_text="Tried from top to bottom when the targets fail.")

    class Meta:
        model = Route
        fields = ("slug", *FIELDS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and not self.instance._state.adding:
            rows = sorted(
                self.instance.targets.select_related("model"), key=lambda row: (row.position, row.model.slug)
            )
            self.initial["targets"] = [(row.model.slug, row.weight) for row in rows if not row.fallback]
            self.initial["fallbacks"] = [(row.model.slug, row.weight) for row in rows if row.fallback]


@admin.register(Route)
class RouteAdmin(ServiceAdmin):
    view_permission, manage_permission = "route.view", "route.manage"
    project_path = None
    form = RouteForm
    list_display = ("slug", "description", "leads_to", "falls_back_to", "state")
    search_fields = ("slug", "description", "targets__model__slug")
    list_before_template = "providers/draft_note.html"
    change_form_before_template = "providers/draft_note.html"
    actions_detail = ("pause", "resume", "archive", "restore")
    fieldsets = (
        (None, {"fields": ("slug", "description")}),
        ("Models", {"fields": ("targets", "fallbacks")}),
        ("Attempts", {"fields": (("attempts", "total_timeout_ms"),)}),
        (
            "Breaker",
            {
                "fields": (
                    ("breaker_failure_percent", "breaker_window_s"),
                    ("breaker_min_calls", "breaker_cooldown_s"),
                )
            },
        ),
        ("Cache and budget", {"fields": ("cache_ttl_s", "clamp_output")}),
    )
    _state = ("Now", {"fields": ("state", "pause_reason", "archived_at")})

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("targets__model")

    def get_fieldsets(self, request: HttpRequest, obj: Route | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        if not self.has_change_permission(request, obj):
            first, _, *rest = self.fieldsets
            return (first, ("Models", {"fields": ("leads_to", "falls_back_to")}), *rest, self._state)
        return (*self.fieldsets, self._state)

    def get_readonly_fields(self, request: HttpRequest, obj: Route | None = None) -> tuple[str, ...]:
        shown = ("state", "pause_reason", "archived_at")
        return shown if obj is None else ("slug", "leads_to", "falls_back_to", *shown)

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Route:
        slug, targets, fallbacks = data.pop("slug"), data.pop("targets"), data.pop("fallbacks")
        return services.create_route(actor, slug=slug, targets=targets, fallbacks=fallbacks, fields=data)

    def update(self, actor: Actor, obj: Route, data: dict[str, Any]) -> Route:
        targets, fallbacks = data.pop("targets"), data.pop("fallbacks")
        return services.update_route(actor, route=obj, changes=data, targets=targets, fallbacks=fallbacks)

    @display(description="leads to")
    def leads_to(self, route: Route) -> str:
        rows = sorted(
            (row for row in route.targets.all() if not row.fallback), key=lambda row: row.model.slug
        )
        return ", ".join(f"{row.model.slug} ({row.weight})" for row in rows) or "nothing yet"

    @display(description="falls back to")
    def falls_back_to(self, route: Route) -> str:
        rows = sorted((row for row in route.targets.all() if row.fallback), key=lambda row: row.position)
        return ", ".join(row.model.slug for row in rows) or "nothing"

    @display(description="state", label={"in use": "success", "paused": "warning", "archived": "default"})
    def state(self, route: Route) -> str:
        if route.archived_at is not None:
            return "archived"
        return "paused" if route.paused_at is not None else "in use"

    @admin_action(
        label="Pause",
        question="Refuse calls of {obj} from now on? Nothing is published; callers are told the reason.",
        form=PauseForm,
        danger=True,
        available=lambda route: route.paused_at is None and route.archived_at is None,
    )
    def pause(self, request: HttpRequest, actor: Actor, obj: Route, data: dict[str, Any]) -> str:
        services.pause_route(actor, route=obj, **data)
        return f"{obj} is paused; data planes follow within a second."

    @admin_action(
        label="Resume",
        question="Serve calls of {obj} again?",
        form=ReasonForm,
        available=lambda route: route.paused_at is not None,
    )
    def resume(self, request: HttpRequest, actor: Actor, obj: Route, data: dict[str, Any]) -> str:
        services.resume_route(actor, route=obj, **data)
        return f"{obj} serves calls again."

    @admin_action(
        label="Archive",
        question="Put {obj} away? It is left out of what is published next; until then it is served as before.",
        available=lambda route: route.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Route, data: dict[str, Any]) -> str:
        services.archive_route(actor, route=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Bring {obj} back?",
        available=lambda route: route.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Route, data: dict[str, Any]) -> str:
        services.unarchive_route(actor, route=obj)
        return f"{obj} is back as a draft."
