"""What people look into afterwards: leases whose journal was lost, and what was charged beyond holds."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.base.money_fields import UsdFormField
from llmops.budgets import services
from llmops.budgets.models import Explanation, Lease, Overrun
from llmops.core.actors import Actor
from llmops.core.money import format_usd


class ExplainForm(forms.Form):
    spent_usd = UsdFormField(
        label="Of it was spent, USD", help_text="As the provider's records show it. The rest is free again."
    )
    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="How you know. Goes into the audit trail.",
    )


@admin.register(Lease)
class LeaseAdmin(ReadOnlyAdmin):
    """What data planes may spend without asking; the ones to look at are those that were charged whole."""

    view_permission, manage_permission = "budget.view", "usage.correct"
    project_path = "window__budget__project"
    list_display = ("window", "stands", "charged", "journal_id", "opened_at", "expires_at")
    list_filter = ("state",)
    list_select_related = ("window__budget",)
    search_fields = ("window__budget__slug",)
    ordering = ("-opened_at",)
    actions_detail = ("explain",)
    fields = readonly_fields = (
        "window", "stands", "charged", "journal_id", "opened_at", "expires_at", "explained",
    )  # fmt: skip

    @admin_action(
        label="Explain",
        question="The journal of a process was lost, so this lease was charged whole. What of it was really spent?",
        form=ExplainForm,
        available=lambda lease: lease.state == Lease.FORFEITED,
    )
    def explain(self, request: HttpRequest, actor: Actor, obj: Lease, data: dict[str, Any]) -> str:
        services.explain_lease(actor, lease_id=obj.pk, spent_nano=data["spent_usd"], reason=data["reason"])
        return f"Explained: ${format_usd(data['spent_usd'])} of it were spent."

    @display(description="state", label={"charged whole": "danger", "explained": "success", "open": "info"})
    def stands(self, lease: Lease) -> str:
        words = {Lease.FORFEITED: "charged whole", Lease.EXPLAINED: "explained"}
        return words.get(lease.state, lease.state)

    @display(description="outstanding, USD")
    def charged(self, lease: Lease) -> str:
        return format_usd(lease.outstanding_nano)

    @display(description="explanation")
    def explained(self, lease: Lease) -> str:
        found = Explanation.objects.filter(lease=lease).first()
        if found is None:
            return "-"
        return (
            f"${format_usd(found.spent_nano)} of ${format_usd(found.charged_nano)} were spent, says {found.by_name}: "
            f"{found.reason}"
        )


@admin.register(Overrun)
class OverrunAdmin(ReadOnlyAdmin):
    """What was charged beyond a hold: by which call, and why."""

    view_permission = "budget.view"
    project_path = "window__budget__project"
    list_display = ("at", "window", "amount", "cause", "call")
    list_select_related = ("window__budget",)
    search_fields = ("window__budget__slug", "cause")
    ordering = ("-at",)
    fields = readonly_fields = ("at", "window", "amount", "cause", "call")

    @display(description="beyond the hold, USD")
    def amount(self, row: Overrun) -> str:
        return format_usd(row.amount_nano)

    @display(description="call")
    def call(self, row: Overrun) -> Any:
        if row.call_id is None:
            return "-"
        return format_html(
            '<a class="underline" href="{}">{}</a>',
            reverse("dashboards:call", args=[row.call_id]),
            row.call_id,
        )
