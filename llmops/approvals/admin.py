"""The inbox: what waits for a second person, and what was decided."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Case, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from llmops.approvals import services
from llmops.approvals.models import Decision, Request
from llmops.approvals.selectors import described, more_about, shown_to
from llmops.base.admin import ReadOnlyAdmin, ReadOnlyInline, admin_action
from llmops.base.admin_actions import back_to
from llmops.base.requests import actor_of
from llmops.core.actors import Actor

_LABELS = {
    "waiting": "warning",
    "done": "success",
    "rejected": "danger",
    "taken back": "info",
    "ran out": "info",
    "void": "info",
}
_WORDS = {
    Request.OPEN: "waiting",
    Request.EXECUTED: "done",
    Request.REJECTED: "rejected",
    Request.CANCELLED: "taken back",
    Request.EXPIRED: "ran out",
    Request.VOID: "void",
}


class ApproveForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Optional. Goes into the audit trail.",
    )


class RejectForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Whoever asked sees it.",
    )


def _facts(page: Any, request: HttpRequest, row: Request) -> dict[str, Any]:
    return {
        "lines": described(row),
        "asked": row,
        "void": services.void_because(row),
        "stopped": services.why_not_approved(row),
        **more_about(row),
    }


def _open(row: Request) -> bool:
    return row.state == Request.OPEN


class DecisionsInline(ReadOnlyInline):
    model = Decision
    verbose_name_plural = "decisions"
    fields = ("decided_by_name", "says", "reason", "decided_at")
    readonly_fields = ("says", "decided_at")
    show_change_link = False

    @display(description="says", label={"approved": "success", "rejected": "danger"})
    def says(self, decision: Decision) -> str:
        return "approved" if decision.approves else "rejected"


@admin.register(Request)
class RequestAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "approval.view", "approval.decide"
    list_display = ("title", "stands", "asked_by", "where", "until")
    list_filter = ("state", "kind")
    search_fields = ("title", "requested_by_name", "object_name")
    list_select_related = ("project",)
    inlines = (DecisionsInline,)
    actions_detail = ("approve", "reject", "take_back")

    class Media:
        css = {"all": ("console/serving.css",)}

    fieldsets = (
        (None, {"fields": ("title", "stands", "what", "details", "reason")}),
        ("Asked", {"fields": ("asked_by", "about", "where", "asked_at", "until", "approvals")}),
        ("Bound to", {"fields": ("digest",)}),
    )
    readonly_fields = (
        "title", "stands", "what", "details", "reason", "asked_by", "about", "where", "asked_at", "until", "approvals", "digest",
    )  # fmt: skip

    def get_ordering(self, request: HttpRequest) -> Any:
        return [Case(When(state=Request.OPEN, then=Value(0)), default=Value(1)), "-created_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return shown_to(super().get_queryset(request), request).prefetch_related("decisions")

    @admin_action(
        label="Approve",
        question="Approve this? It is done at once, exactly as it stands here.",
        form=ApproveForm,
        available=_open,
        template="approvals/decide.html",
        facts=_facts,
    )
    def approve(
        self, request: HttpRequest, actor: Actor, obj: Request, data: dict[str, Any]
    ) -> str | HttpResponse:
        row = services.decide(
            actor, request_id=obj.pk, approves=True, seen=request.POST.get("seen", ""), reason=data["reason"]
        )
        if row.state == Request.EXECUTED:
            return f"Approved and done: {row.title}."
        if row.state == Request.VOID:
            messages.warning(request, f"Nothing was done: {(row.result or {}).get('why', '')}")
            return HttpResponseRedirect(back_to(self, row))
        return f"Approved. {row.required} people must agree before it is done."

    @admin_action(
        label="Reject",
        question="Reject this? Nothing is done, and it has to be asked for again.",
        form=RejectForm,
        danger=True,
        available=_open,
        template="approvals/decide.html",
        facts=_facts,
    )
    def reject(self, request: HttpRequest, actor: Actor, obj: Request, data: dict[str, Any]) -> str:
        services.decide(
            actor, request_id=obj.pk, approves=False, seen=request.POST.get("seen", ""), reason=data["reason"]
        )
        return f"Rejected: {obj.title}."

    @admin_action(
        label="Take back",
        question="Take back what you have asked for?",
        permission="approval.view",
        form=ApproveForm,
        available=_open,
    )
    def take_back(self, request: HttpRequest, actor: Actor, obj: Request, data: dict[str, Any]) -> str:
        services.cancel(actor, request_id=obj.pk, **data)
        return f"Taken back: {obj.title}."

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Only what would work: who asked takes back, another decides."""
        obj = self.get_object(request, str(object_id))
        actor = actor_of(request)
        own = (actor.kind, actor.identifier) == (obj.requested_by_kind, obj.requested_by_id)
        decides = services.may_decide(actor, obj)
        kept = []
        for item in super().get_actions_detail(request, object_id):
            takes_back = item.method.__name__ == "take_back"
            if own if takes_back else decides:
                kept.append(item)
        return kept

    @display(description="state", label=_LABELS)
    def stands(self, row: Request) -> str:
        if row.state == Request.OPEN and row.expires_at <= timezone.now():
            return "ran out"
        return _WORDS[row.state]

    @display(description="what would be done")
    def what(self, row: Request) -> SafeString:
        return format_html_join("", "<div><b>{}</b>: {}</div>", described(row))

    @display(description="in detail")
    def details(self, row: Request) -> SafeString | str:
        found = more_about(row) if row.state == Request.OPEN else {}
        if why := services.void_because(row):
            return why
        if not found:
            return (row.result or {}).get("why", "") or "-"
        return render_to_string(found["more"], found)

    @display(description="asked by", ordering="requested_by_name")
    def asked_by(self, row: Request) -> str:
        return row.requested_by_name

    @display(description="about")
    def about(self, row: Request) -> SafeString | str:
        try:
            address = reverse(f"admin:{row.object_type.replace('.', '_')}_change", args=[row.object_id])
        except NoReverseMatch:
            return row.object_name
        return format_html('<a class="underline" href="{}">{}</a>', address, row.object_name)

    @display(description="project")
    def where(self, row: Request) -> str:
        return row.project.slug if row.project else "the whole organisation"

    @display(description="asked", ordering="created_at")
    def asked_at(self, row: Request) -> SafeString:
        return _time(row.created_at)

    @display(description="open until", ordering="expires_at")
    def until(self, row: Request) -> SafeString | str:
        return _time(row.expires_at) if row.state == Request.OPEN else "-"

    @display(description="approvals")
    def approvals(self, row: Request) -> str:
        return f"{sum(one.approves for one in row.decisions.all())} of {row.required}"


def _time(at: datetime) -> SafeString:
    at = at.astimezone(UTC)
    return format_html(
        '<time datetime="{}" data-as="exact">{} UTC</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M}"
    )
