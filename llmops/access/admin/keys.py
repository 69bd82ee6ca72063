"""Service keys. A secret is on the page that answers the request which made it, and nowhere else."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextInputWidget,
)

from llmops.access import services
from llmops.access.admin.projects import ReasonForm
from llmops.access.models import ServiceKey
from llmops.access.rules import SCOPES
from llmops.access.selectors import grace_in_words, time_left
from llmops.base.admin import ServiceAdmin, admin_action
from llmops.base.admin_actions import back_to
from llmops.base.form_fields import LinesField
from llmops.core.actors import Actor

_SCOPE_WORDS = {
    "inference": "call models",
    "metrics": "read the figures of data planes at /metrics, those of every project",
    "read": "look at everything of the project but its members and the audit trail",
    "configure": "change providers, models, prices, routes; publish",
    "keys": "issue and revoke keys",
    "budgets": "change budgets",
    "audit": "read the audit trail",
    "texts": "read what calls said, where their project keeps it for people",
    "members": "see and manage members",
    "actions": "propose calls of tools, and wait for them",
    "runs": "start runs, and wait for them; their models may propose calls of tools",
    "organisation": "all of the above in every project, not in its own only",
}


class PauseForm(forms.Form):
    reason = forms.CharField(
        max_length=300,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Callers and on-call read it, and it goes into the audit trail.",
    )


class ServiceKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=[(scope, f"{scope}: {_SCOPE_WORDS[scope]}") for scope in SCOPES],
        initial=["inference"],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="You can give only what you may do yourself.",
    )
    allowed_routes = LinesField(
        initial=["*"], help_text='Route names, one a line; "*" for every published route.'
    )
    allowed_models = LinesField(help_text='Model slugs callable without a route, one a line; "*" for all.')

    class Meta:
        model = ServiceKey
        fields = (
            "project",
            "name",
            "scopes",
            "allowed_routes",
            "allowed_models",
            "rpm",
            "tpm",
            "concurrency",
            "priority",
            "expires_at",
        )

    def _get_validation_exclusions(self) -> set[str]:
        # A name that is taken is for the service to say, which says it at the name.
        return {*super()._get_validation_exclusions(), "project"}  # type: ignore[misc]


class RotateForm(ReasonForm):
    grace_hours = forms.IntegerField(
        min_value=0,
        max_value=30 * 24,
        initial=24,
        widget=UnfoldAdminIntegerFieldWidget(),
        label="Hours during which the present secret works too",
        help_text="0 ends it at once.",
    )
    field_order = ("grace_hours", "reason")


@admin.register(ServiceKey)
class ServiceKeyAdmin(ServiceAdmin):
    view_permission, manage_permission = "service_key.view", "service_key.manage"
    form = ServiceKeyForm
    list_display = (
        "name",
        "project",
        "prefix",
        "state",
        "grace_left",
        "scopes_in_words",
        "expires_at",
        "last_used_at",
    )
    # Django's usual filter would name every project of the organisation.
    list_filter = (("project", admin.RelatedOnlyFieldListFilter),)
    list_select_related = ("project",)
    search_fields = ("name", "prefix", "project__slug")
    actions_detail = ("rotate", "end_grace", "pause", "resume", "revoke")
    fieldsets = (
        (None, {"fields": ("project", "name", "scopes")}),
        ("What it may call", {"fields": ("allowed_routes", "allowed_models")}),
        ("Limits", {"fields": (("rpm", "tpm", "concurrency"), "priority", "expires_at")}),
    )
    _shown = ("prefix", "state", "last_used_at", "grace", "rotated_at", "revoked_at", "pause_reason")
    _state = ("Now", {"fields": _shown})

    def get_fieldsets(self, request: HttpRequest, obj: ServiceKey | None = None) -> Any:
        return self.fieldsets if obj is None else (*self.fieldsets, self._state)

    def get_readonly_fields(self, request: HttpRequest, obj: ServiceKey | None = None) -> tuple[str, ...]:
        return self._shown if obj is None else ("project", *self._shown)

    def create(self, actor: Actor, data: dict[str, Any]) -> ServiceKey:
        issued = services.create_service_key(actor, **data)
        issued.key._issued = issued  # type: ignore[attr-defined]
        return issued.key

    def update(self, actor: Actor, obj: ServiceKey, data: dict[str, Any]) -> ServiceKey:
        return services.update_service_key(actor, key=obj, **data)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        if kwargs.get("add"):
            # What follows is always the page with the secret.
            context["show_save_and_continue"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._shown_once(request, obj._issued)

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.revoked_at is None) and super().has_change_permission(request, obj)

    @display(
        description="state",
        label={
            "active": "success",
            "revoked": "danger",
            "expired": "warning",
            "paused": "warning",
            "the console's own": "info",
        },
    )
    def state(self, key: ServiceKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        if key.expires_at and key.expires_at <= timezone.now():
            return "expired"
        if key.paused_at:
            return "paused"
        return "the console's own" if key.held_by_console else "active"

    @display(description="earlier secret")
    def grace(self, key: ServiceKey) -> str:
        """How long the secret that was replaced works yet, and whether somebody still sends it."""
        return grace_in_words(key, timezone.now()) or "none works"

    @display(description="earlier secret ends in")
    def grace_left(self, key: ServiceKey) -> str:
        now, until = timezone.now(), key.previous_valid_until
        if key.previous_hash is None or until is None or until <= now:
            return ""
        return f"{time_left(until - now)}, {'still used' if key.previous_last_used_at else 'not used'}"

    @display(description="scopes")
    def scopes_in_words(self, key: ServiceKey) -> str:
        return ", ".join(key.scopes)

    @admin_action(
        label="Rotate",
        question="Give {obj} a new secret? It is shown once, on the next page.",
        form=RotateForm,
        available=lambda key: key.revoked_at is None and not key.held_by_console,
    )
    def rotate(
        self, request: HttpRequest, actor: Actor, obj: ServiceKey, data: dict[str, Any]
    ) -> HttpResponse:
        grace = timedelta(hours=data["grace_hours"])
        return self._shown_once(
            request, services.rotate_service_key(actor, key=obj, grace=grace, reason=data["reason"])
        )

    @admin_action(
        label="End the earlier secret",
        question="End the earlier secret of {obj} now? Whoever still sends it is refused within a second.",
        form=ReasonForm,
        danger=True,
        available=lambda key: bool(grace_in_words(key, timezone.now())),
    )
    def end_grace(self, request: HttpRequest, actor: Actor, obj: ServiceKey, data: dict[str, Any]) -> str:
        services.end_grace(actor, key=obj, **data)
        return f"Only the present secret of {obj} works."

    @admin_action(
        label="Pause",
        question="Pause {obj}? Calls with it are refused within a second, until it is resumed.",
        form=PauseForm,
        available=lambda key: key.revoked_at is None and key.paused_at is None,
    )
    def pause(self, request: HttpRequest, actor: Actor, obj: ServiceKey, data: dict[str, Any]) -> str:
        services.pause_service_key(actor, key=obj, **data)
        return f"{obj} is paused."

    @admin_action(
        label="Resume",
        question="Resume {obj}? Calls with it are served again within a second.",
        form=ReasonForm,
        available=lambda key: key.revoked_at is None and key.paused_at is not None,
    )
    def resume(self, request: HttpRequest, actor: Actor, obj: ServiceKey, data: dict[str, Any]) -> str:
        services.resume_service_key(actor, key=obj, **data)
        return f"{obj} works again."

    @admin_action(
        label="Revoke",
        question="Revoke {obj}? Calls with it are refused within a second. This cannot be undone.",
        form=ReasonForm,
        danger=True,
        available=lambda key: key.revoked_at is None,
    )
    def revoke(self, request: HttpRequest, actor: Actor, obj: ServiceKey, data: dict[str, Any]) -> str:
        services.revoke_service_key(actor, key=obj, **data)
        return f"{obj} is revoked."

    def _shown_once(self, request: HttpRequest, issued: services.IssuedKey) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"The secret of {issued.key.name}",
            "key": issued.key,
            "secret": issued.secret,
            "next": back_to(self, issued.key),
        }
        return TemplateResponse(
            request, "access/secret_once.html", context, headers={"Cache-Control": "no-store"}
        ).render()
