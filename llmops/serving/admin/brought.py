"""Revisions that were brought from elsewhere, before they are made live."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from unfold.decorators import display

from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.core.actors import Actor
from llmops.serving import rules, services
from llmops.serving.admin.forms import PublishForm, seen
from llmops.serving.admin.showing import standing_facts
from llmops.serving.comparison import compare
from llmops.serving.models import BroughtRevision, Revision
from llmops.serving.selectors import documents_of, live_revision


def _is_not_live(row: BroughtRevision) -> bool:
    live = live_revision()
    return live is None or live.digest != row.digest


@admin.register(BroughtRevision)
class BroughtRevisionAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "revision.view", "revision.publish"
    project_path = None
    list_display = ("digest", "came_from", "brought_by", "brought_at", "state")
    actions_detail = ("publish",)
    fieldsets = (
        (None, {"fields": ("digest", "came_from", "brought_by", "brought_at", "state")}),
        ("What would change", {"fields": ("against_live",)}),
    )
    readonly_fields = ("digest", "came_from", "brought_by", "brought_at", "state", "against_live")

    class Media:
        css = {"all": ("console/prompts.css", "console/serving.css")}

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).defer("document")

    @display(description="came from")
    def came_from(self, row: BroughtRevision) -> str:
        origin = row.origin
        return f"revision {origin.get('number')}, published by {origin.get('author')}: {origin.get('reason')}"

    @display(description="state", label={"live": "success"})
    def state(self, row: BroughtRevision) -> str:
        number = Revision.objects.filter(digest=row.digest).values_list("number", flat=True).first()
        if not _is_not_live(row):
            return "live"
        return f"was published as revision {number}" if number else "not published here"

    @display(description="against what is live")
    def against_live(self, row: BroughtRevision) -> SafeString:
        before, (after, _) = documents_of(rules.BROUGHT, str(row.pk))
        return render_to_string(
            "serving/compared.html",
            {"compared": compare(before, after), "same": "Nothing: it is what is live."},
        )

    @admin_action(
        label="Publish",
        question="Make the very bytes of {obj} live here? What is configured stays as it is.",
        form=PublishForm,
        template="serving/publish.html",
        facts=lambda page, request, obj: standing_facts(rules.BROUGHT, str(obj.pk)),
        available=_is_not_live,
    )
    def publish(self, request: HttpRequest, actor: Actor, obj: BroughtRevision, data: dict[str, Any]) -> Any:
        made = services.propose(actor, what=rules.BROUGHT, object_id=str(obj.pk), **data, **seen(request))
        revisions: Any = self.admin_site._registry[Revision]
        return revisions.proposed(request, made)
