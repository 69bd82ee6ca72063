"""Calls, journals and jobs, to look at. The console's own pages show them better; these show every field."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.paginator import Paginator
from django.http import HttpRequest
from django.utils.functional import cached_property
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.base.money_fields import UsdFormField
from llmops.core.actors import Actor
from llmops.core.money import format_usd
from llmops.usage import services
from llmops.usage.models import Call, Job, Journal

_MOST_PAGED = 10_000


class _Bounded(Paginator):
    """Numbers the first pages only: counting every call would read them all."""

    @cached_property
    def count(self) -> int:
        return int(self.object_list[:_MOST_PAGED].count())  # type: ignore[attr-defined]


class CorrectionForm(forms.Form):
    cost_usd = UsdFormField(
        label="It cost, USD", help_text="In all, as the provider's records show it. 0: it was not billed."
    )
    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="How you know. Goes into the audit trail.",
    )


@admin.register(Call)
class CallAdmin(ReadOnlyAdmin):
    view_permission = "usage.view"
    manage_permission = "usage.correct"
    actions_detail = ("correct",)
    project_path = "project_id"
    list_display = ("started_at", "status_word", "route", "model", "endpoint", "error_code", "cost", "total")
    list_filter = ("status", "endpoint", "streamed")
    ordering = ("-started_at", "-id")
    paginator = _Bounded

    @admin_action(
        label="Correct the cost",
        question="The outcome of this call is unknown, and it was charged at its hold. What did it really cost?",
        form=CorrectionForm,
        available=lambda call: call.charged_at_hold,
        template="usage/correct.html",
        facts=lambda page, request, call: {"stands": format_usd(call.cost_nano)},
    )
    def correct(self, request: HttpRequest, actor: Actor, obj: Call, data: dict[str, Any]) -> str:
        made = services.correct_call(
            actor,
            call_id=obj.pk,
            cost_nano=data["cost_usd"],
            reason=data["reason"],
            expected_nano=int(shown) if (shown := request.POST.get("shown", "")).isdecimal() else None,
        )
        return f"Corrected from ${format_usd(made.before_nano)} to ${format_usd(made.after_nano)}."

    @display(
        description="status",
        label={"ok": "success", "error": "danger", "interrupted": "danger", "unknown": "danger"},
        ordering="status",
    )
    def status_word(self, call: Call) -> Any:
        return call.status, call.get_status_display()

    @display(description="cost, USD")
    def cost(self, call: Call) -> str:
        return format_usd(call.cost_nano)

    @display(description="total, ms")
    def total(self, call: Call) -> str:
        return f"{call.total_us / 1000:,.0f}"


class _Organisation(ReadOnlyAdmin):
    view_permission = "usage.view"
    project_path = None
    organisation_only = True


@admin.register(Journal)
class JournalAdmin(_Organisation):
    list_display = ("id", "host", "state", "opened_at", "seen_at", "sequence", "problem")
    list_filter = ("state", "host")


@admin.register(Job)
class JobAdmin(_Organisation):
    list_display = ("requested_at", "kind", "state", "progress", "message", "requested_by")
    list_filter = ("kind", "state")

    @display(description="progress")
    def progress(self, job: Job) -> str:
        return f"{job.done} of {job.total}"
