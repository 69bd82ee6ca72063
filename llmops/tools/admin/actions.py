"""Actions: every call of a tool that was proposed, and what became of it."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminRadioSelectWidget, UnfoldAdminTextareaWidget

from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.core.actors import Actor
from llmops.core.appearance import written_out
from llmops.tools import services
from llmops.tools.admin.tools import RISK_LABELS
from llmops.tools.models import Action
from llmops.tools.selectors import changes_against_superseded

_TONES = {
    "waiting for approval": "warning",
    "approved, not begun": "info",
    "being carried out": "info",
    "done": "success",
    "failed": "danger",
    "outcome unknown": "danger",
}


class FindingForm(forms.Form):
    happened = forms.ChoiceField(
        label="What you found out",
        choices=[("yes", "It happened"), ("no", "It did not happen")],
        widget=UnfoldAdminRadioSelectWidget,
    )
    reason = forms.CharField(
        max_length=500,
        label="How you know",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Goes into the audit trail. Nothing is run again.",
    )


@admin.register(Action)
class ActionAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "action.view", "action.resolve"
    list_display = ("says", "stands", "danger", "tool", "project", "requested_by_name", "created_at")
    list_filter = ("state", "risk", ("project", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("project", "tool", "version")
    search_fields = ("says", "requested_by_name", "run", "tool__slug")
    actions_detail = ("resolve",)
    fieldsets = (
        (None, {"fields": ("says", "stands", "told_arguments", "told_changes")}),
        ("Risk", {"fields": ("danger", "risk_rule")}),
        (
            "Asked",
            {"fields": ("requested_by_name", "behalf_of_name", "reason", "run", "project", "tool_version", "created_at")},
        ),
        (
            "What became of it",
            {"fields": ("approved_at", "claimed_at", "claimed_by", "finished_at", "told_result", "message", "found_out")},
        ),
        ("Bound to", {"fields": ("digest",)}),
    )  # fmt: skip
    readonly_fields = (
        "says", "stands", "told_arguments", "told_changes", "danger", "risk_rule", "requested_by_name", "behalf_of_name",
        "reason", "run", "project", "tool_version", "created_at", "approved_at", "claimed_at", "claimed_by", "finished_at",
        "told_result", "message", "found_out", "digest",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("project", "tool", "version__tool", "supersedes")

    @display(description="state", label=_TONES)
    def stands(self, action: Action) -> str:
        return str(action.get_state_display()).lower()

    @display(description="risk", label=RISK_LABELS)
    def danger(self, action: Action) -> str:
        return action.risk

    @display(description="arguments")
    def told_arguments(self, action: Action) -> str:
        return written_out(json.dumps(action.given, indent=2, ensure_ascii=False))

    @display(description="against the one it replaces")
    def told_changes(self, action: Action) -> str:
        found = changes_against_superseded(action)
        return (
            "\n".join(f"{name}: {old or 'nothing'} → {new or 'nothing'}" for name, old, new in found) or "-"
        )

    @display(description="tool")
    def tool_version(self, action: Action) -> str:
        return f"{action.tool.slug}, version {action.version.number}"

    @display(description="result")
    def told_result(self, action: Action) -> str:
        return (
            "-"
            if action.result is None
            else written_out(json.dumps(action.result, indent=2, ensure_ascii=False)[:4000])
        )

    @display(description="found out")
    def found_out(self, action: Action) -> str:
        if not action.resolution:
            return "-"
        what = "it happened" if action.resolution == Action.HAPPENED else "it did not happen"
        return f"{what}, says {action.resolved_by}"

    @admin_action(
        label="Say what happened",
        question="Nobody knows whether this was done: {obj}. Find out at the service behind the tool, and say it here.",
        form=FindingForm,
        available=lambda action: action.state == Action.UNKNOWN,
    )
    def resolve(self, request: HttpRequest, actor: Actor, obj: Action, data: dict[str, Any]) -> str:
        services.resolve(actor, action=obj, happened=data["happened"] == "yes", reason=data["reason"])
        return "On record. Nothing was run again."
