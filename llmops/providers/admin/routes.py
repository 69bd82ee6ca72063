"""Routes."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import mark_safe
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from llmops.base.admin import ServiceAdmin, admin_action
from llmops.base.clock import database_now
from llmops.core.actors import Actor
from llmops.providers import services
from llmops.providers.admin.forms import PauseForm, ReasonForm
from llmops.providers.admin.target_fields import PoliciesField, RowsField
from llmops.providers.models import Model, Route
from llmops.providers.rules import FAILURE_CLASSES, LONGEST_ANSWER
from llmops.providers.selectors import open_breakers
from llmops.providers.services.routes import FIELDS, MODEL_FIELDS


class RouteForm(forms.ModelForm):
    targets = RowsField(
        weighted=True, help_text="Model and weight: its share of calls. More rows appear after saving."
    )
    fallbacks = RowsField(weighted=False, help_text="Tried from top to bottom when the targets fail.")
    fallbacks_for = RowsField(
        weighted=False,
        classed=True,
        label="Fallbacks by failure",
        help_text="After failures of this class these are tried, from top to bottom, in place of the fallbacks above.",
    )
    static_answer = forms.CharField(
        required=False,
        strip=False,
        max_length=LONGEST_ANSWER,
        label="Fixed answer",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="The text that callers get as the assistant's message, without any model.",
    )
    policies = PoliciesField(
        help_text="Calls must pass them in this order, beside those that hold everywhere."
    )

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
            general = [row for row in rows if row.fallback and not row.failure_class]
            self.initial["fallbacks"] = [(row.model.slug, row.weight) for row in general]
            self.initial["fallbacks_for"] = [
                (row.model.slug, row.failure_class)
                for row in sorted(rows, key=lambda row: (row.failure_class, row.position))
                if row.failure_class
            ]


def _chains_of(data: dict[str, Any]) -> dict[str, Any]:
    return {name: data.pop(name) for name in ("targets", "fallbacks", "fallbacks_for")}


def _fallbacks(route: Route, failure_class: str) -> list[str]:
    """Names of the fallbacks after failures of a class, or of the general ones (``""``), in their order."""
    rows = [row for row in route.targets.all() if row.fallback and row.failure_class == failure_class]
    return [row.model.slug for row in sorted(rows, key=lambda row: row.position)]


@admin.register(Route)
class RouteAdmin(ServiceAdmin):
    view_permission, manage_permission = "route.view", "route.manage"
    project_path = None
    form = RouteForm
    list_display = ("slug", "description", "leads_to", "falls_back_to", "state")
    search_fields = ("slug", "description", "targets__model__slug")
    list_before_template = "providers/routes_note.html"
    change_form_before_template = "providers/route_note.html"
    actions_detail = ("pause", "resume", "degrade", "recover", "reset_breakers", "archive", "restore")
    fieldsets = (
        (None, {"fields": ("slug", "description")}),
        ("Models", {"fields": ("targets", "fallbacks", "fallbacks_for")}),
        ("Attempts", {"fields": (("attempts", "total_timeout_ms"),)}),
        ("Long inputs", {"fields": ("context_strategy", ("larger_model", "summary_model"))}),
        ("Last resort", {"fields": ("last_resort", "static_answer")}),
        ("Policies", {"fields": ("policies",)}),
        (
            "Queue and streams",
            {"fields": (("max_concurrency", "queue_size"), ("queue_timeout_ms", "keep_alive_s"))},
        ),
        (
            "Breaker",
            {
                "fields": (
                    ("breaker_failure_percent", "breaker_window_s"),
                    ("breaker_min_calls", "breaker_cooldown_s"),
                )
            },
        ),
        ("Cache and budget", {"fields": (("cache_ttl_s", "cache_tools"), "clamp_output")}),
    )
    _state = (
        "Now",
        {
            "fields": (
                "state",
                "pause_reason",
                "degrade_reason",
                "breakers",
                "breakers_reset_at",
                "archived_at",
            )
        },
    )
    _chains = ("leads_to", "falls_back_to", "after_failures")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("targets__model")

    def get_fieldsets(self, request: HttpRequest, obj: Route | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        if not self.has_change_permission(request, obj):
            first, _, *rest = self.fieldsets
            return (first, ("Models", {"fields": self._chains}), *rest, self._state)
        return (*self.fieldsets, self._state)

    def get_readonly_fields(self, request: HttpRequest, obj: Route | None = None) -> tuple[str, ...]:
        shown = ("state", "pause_reason", "degrade_reason", "breakers", "breakers_reset_at", "archived_at")
        return shown if obj is None else ("slug", *self._chains, *shown)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Offers models in use; the one that is chosen already stays, so that saving does not drop it unseen."""
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if field is not None and db_field.name in MODEL_FIELDS:
            field.queryset = Model.objects.filter(
                Q(archived_at=None) | Q(**{f"{db_field.related_query_name()}__isnull": False})
            ).distinct()
            field.empty_label = "none"
        return field

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Route:
        slug, chains = data.pop("slug"), _chains_of(data)
        return services.create_route(actor, slug=slug, fields=data, **chains)

    def update(self, actor: Actor, obj: Route, data: dict[str, Any]) -> Route:
        chains = _chains_of(data)
        return services.update_route(actor, route=obj, changes=data, **chains)

    @display(description="leads to")
    def leads_to(self, route: Route) -> str:
        rows = sorted(
            (row for row in route.targets.all() if not row.fallback), key=lambda row: row.model.slug
        )
        return ", ".join(f"{row.model.slug} ({row.weight})" for row in rows) or "nothing yet"

    @display(description="falls back to")
    def falls_back_to(self, route: Route) -> str:
        return ", ".join(_fallbacks(route, "")) or "nothing"

    @display(description="after failures")
    def after_failures(self, route: Route) -> str:
        found = [(label, _fallbacks(route, name)) for name, label in FAILURE_CLASSES]
        return "; ".join(f"{label}: {', '.join(chosen)}" for label, chosen in found if chosen) or "as above"

    @display(
        description="state",
        label={"in use": "success", "paused": "warning", "degraded": "warning", "archived": "default"},
    )
    def state(self, route: Route) -> str:
        if route.archived_at is not None:
            return "archived"
        if route.paused_at is not None:
            return "paused"
        return "degraded" if route.degraded_at is not None else "in use"

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
        label="Degrade",
        question="Pass over the targets of {obj} from now on? Its fallbacks answer, and then its last resort. Nothing is "
        "published.",
        form=PauseForm,
        danger=True,
        available=lambda route: route.degraded_at is None and route.archived_at is None,
    )
    def degrade(self, request: HttpRequest, actor: Actor, obj: Route, data: dict[str, Any]) -> str:
        services.degrade_route(actor, route=obj, **data)
        return f"{obj} is degraded; data planes follow within a second."

    @admin_action(
        label="Recover",
        question="Use the targets of {obj} again?",
        form=ReasonForm,
        available=lambda route: route.degraded_at is not None,
    )
    def recover(self, request: HttpRequest, actor: Actor, obj: Route, data: dict[str, Any]) -> str:
        services.recover_route(actor, route=obj, **data)
        return f"{obj} uses its targets again."

    @display(description="breakers")
    def breakers(self, route: Route) -> str:
        """Targets that data planes leave alone now, and why."""
        found = open_breakers(route.slug)
        if not found:
            return "all closed"
        now = database_now()
        return format_html_join(
            mark_safe("<br>"),
            "{} at {}{}: {} {} ({}) since {}",
            (
                (
                    one.model,
                    one.provider,
                    ", for the calls of one project" if one.project else "",
                    "open until" if one.until > now else "waiting for a probe since",
                    f"{one.until:%H:%M:%S} UTC",
                    one.why,
                    f"{one.since:%Y-%m-%d %H:%M:%S} UTC on {one.host}",
                )
                for one in found
            ),
        )

    @admin_action(
        label="Reset breakers",
        question="Close the breakers of {obj} in every data plane? Calls go to its targets again at once.",
        form=ReasonForm,
        available=lambda route: route.archived_at is None,
    )
    def reset_breakers(self, request: HttpRequest, actor: Actor, obj: Route, data: dict[str, Any]) -> str:
        services.reset_breakers_route(actor, route=obj, **data)
        return f"The breakers of {obj} are closed; data planes follow within a second."

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
