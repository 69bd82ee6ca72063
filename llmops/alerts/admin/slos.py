"""Objectives. How they stand is on the page of their own (``alerts:slos``)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from llmops.alerts import services
from llmops.alerts.models import Slo
from llmops.alerts.objectives import words
from llmops.base.admin import ServiceAdmin, admin_action
from llmops.core.actors import Actor

_MICRO, _NANO = 10**6, 10**9


def scale_of(objective: str) -> int:
    """How many of what is stored make one of what people type: seconds, or USD."""
    return _NANO if objective == Slo.COST else _MICRO


class SloForm(forms.ModelForm):
    target = forms.DecimalField(
        label="Target (percent)",
        max_digits=7,
        decimal_places=4,
        min_value=Decimal("0.0001"),
        max_value=Decimal("99.9999"),
        initial=Decimal("99.5"),
        widget=UnfoldAdminDecimalFieldWidget(),
        help_text="The rest of 100 % is the error budget.",
    )
    at_most = forms.DecimalField(
        label="At most",
        required=False,
        max_digits=12,
        decimal_places=6,
        min_value=Decimal(0),
        widget=UnfoldAdminDecimalFieldWidget(),
        help_text="Seconds for latency and time to first token, USD for the cost of a call. Empty for the others.",
    )

    class Meta:
        model = Slo
        fields = ("slug", "objective", "window_days", "project", "route", "feature")
        labels = {"slug": "Name", "window_days": "Over"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            self.initial.setdefault("target", Decimal(self.instance.target_ppm) / 10_000)
            at_most = Decimal(self.instance.threshold) / scale_of(self.instance.objective)
            self.initial.setdefault("at_most", at_most or None)

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            data["target_ppm"] = int(data["target"] * 10_000)
            data["threshold"] = int((data["at_most"] or 0) * scale_of(data["objective"]))
        return data


@admin.register(Slo)
class SloAdmin(ServiceAdmin):
    view_permission, manage_permission = "alert.view", "alert.manage"
    form = SloForm
    list_display = ("slug", "in_words", "window_days", "project", "stands")
    list_filter = ("objective",)
    list_select_related = ("project",)
    search_fields = ("slug", "route", "feature")
    actions_detail = ("archive", "restore")
    fieldsets = (
        (None, {"fields": ("slug", "objective", "target", "at_most", "window_days")}),
        ("Of which calls", {"fields": ("project", "route", "feature")}),
    )
    _shown = ("slug", "in_words", "window_days", "project", "stands")

    def get_fieldsets(self, request: HttpRequest, obj: Slo | None = None) -> Any:
        if obj is None or self.has_change_permission(request, obj):
            return self.fieldsets
        return ((None, {"fields": self._shown}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Slo | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("slug",) if self.has_change_permission(request, obj) else self._shown

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    _names = ("objective", "target_ppm", "threshold", "window_days", "project", "route", "feature")

    def create(self, actor: Actor, data: dict[str, Any]) -> Slo:
        return services.create_slo(actor, slug=data["slug"], **{name: data[name] for name in self._names})

    def update(self, actor: Actor, obj: Slo, data: dict[str, Any]) -> Slo:
        return services.update_slo(actor, slo=obj, **{name: data[name] for name in self._names})

    @display(description="objective")
    def in_words(self, slo: Slo) -> str:
        return words(slo)

    @display(description="state", label={"counts": "success", "archived": "danger"})
    def stands(self, slo: Slo) -> str:
        return "archived" if slo.archived_at else "counts"

    @admin_action(
        label="Archive",
        question="Put {obj} away? Nothing counts for it any more.",
        available=lambda slo: slo.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Slo, data: dict[str, Any]) -> str:
        services.archive_slo(actor, slo=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Count for {obj} again?",
        available=lambda slo: slo.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Slo, data: dict[str, Any]) -> str:
        services.restore_slo(actor, slo=obj)
        return f"{obj} counts again."
