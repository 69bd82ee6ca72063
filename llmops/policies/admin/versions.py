"""Versions of policies: what each does, how it differs from the one before, and the way back to it."""

from __future__ import annotations

from typing import Any

import yaml
from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.core.actors import Actor
from llmops.policies import services
from llmops.policies.models import PolicyVersion
from llmops.policies.wording import differences, summary


def checks_in_words(version: PolicyVersion) -> str:
    return "; ".join(summary(check) for check in version.checks)


def changes_in_words(version: PolicyVersion) -> str:
    """Against the version before, a line each."""
    earlier = (
        PolicyVersion.objects.filter(policy_id=version.policy_id, number__lt=version.number)
        .order_by("-number")
        .first()
    )
    lines = differences(earlier.checks if earlier else [], version.checks)
    return "\n".join(lines) or "none"


class RollBackForm(forms.Form):
    reason = forms.CharField(
        max_length=200,
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Why; kept with the new version and in the audit trail.",
    )


def _is_earlier(version: PolicyVersion) -> bool:
    policy = version.policy
    return (
        policy.archived_at is None and policy.current is not None and policy.current.digest != version.digest
    )


@admin.register(PolicyVersion)
class PolicyVersionAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "policy.view", "policy.manage"
    project_path = None
    list_display = ("policy", "number", "is_current", "checks_told", "note", "created_by", "created_at")
    list_filter = ("policy",)
    list_select_related = ("policy__current",)
    search_fields = ("policy__slug", "note")
    actions_detail = ("roll_back",)
    _told = (
        "policy",
        "number",
        "is_current",
        "note",
        "created_by",
        "created_at",
        "digest",
        "checks_told",
        "changes_told",
    )
    fieldsets = (
        (None, {"fields": _told}),
        ("As it stands in a file", {"fields": ("as_text",)}),
    )
    readonly_fields = (*_told, "as_text")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("policy__current")

    @display(description="current", label={"current": "success"})
    def is_current(self, version: PolicyVersion) -> str:
        return "current" if version.policy.current_id == version.pk else ""

    @display(description="checks")
    def checks_told(self, version: PolicyVersion) -> str:
        return checks_in_words(version)

    @display(description="against the one before")
    def changes_told(self, version: PolicyVersion) -> str:
        return changes_in_words(version)

    @display(description="checks")
    def as_text(self, version: PolicyVersion) -> str:
        return yaml.safe_dump({"checks": version.checks}, sort_keys=False, allow_unicode=True, width=100)

    @admin_action(
        label="Roll back to this",
        question="Make the checks of {obj} current again, as a new version? They hold once published.",
        form=RollBackForm,
        available=_is_earlier,
    )
    def roll_back(self, request: HttpRequest, actor: Actor, obj: PolicyVersion, data: dict[str, Any]) -> str:
        policy = services.roll_back_policy(actor, policy=obj.policy, number=obj.number, **data)
        number = policy.current.number if policy.current else 0
        return f"{policy} has version {number}, with the checks of version {obj.number}."
