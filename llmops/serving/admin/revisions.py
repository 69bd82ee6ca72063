"""Revisions: the list, one of them, publishing, going back, and the rule."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from llmops.approvals.models import Request
from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.core.actors import Actor
from llmops.serving import rules, services
from llmops.serving.admin.forms import BringForm, PublishForm, RuleForm, seen
from llmops.serving.admin.showing import publishing_facts, standing_facts
from llmops.serving.comparison import compare
from llmops.serving.models import LivePointer, Revision
from llmops.serving.selectors import document_of, live_revision, pending_note, publishing_rule

#: Characters of a document that its page shows; the export has all of it.
_MOST_SHOWN = 200_000


def _is_not_live(revision: Revision) -> bool:
    live = live_revision()
    return live is None or live.digest != revision.digest


def _rule_facts(page: Any, request: HttpRequest, obj: None) -> dict[str, Any]:
    return {"rule": publishing_rule().words()}


@admin.register(Revision)
class RevisionAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "revision.view", "revision.publish"
    project_path = None
    list_display = (
        "number",
        "live",
        "reason",
        "author",
        "approved",
        "published_at",
        "changes_in_all",
        "short_digest",
    )
    search_fields = ("reason", "author", "digest")
    list_before_template = "serving/pending_note.html"
    actions_list = ("publish", "bring", "rule")
    actions_detail = ("restore",)
    _told = (
        "number", "live", "reason", "author", "approved", "published_at", "restores", "came_from", "digest", "file",
    )  # fmt: skip
    fieldsets = (
        (None, {"fields": _told}),
        ("What changed", {"fields": ("against_before",)}),
        ("Against what is live", {"fields": ("against_live",), "classes": ("collapse",)}),
        ("Document", {"fields": ("document_text",), "classes": ("collapse",)}),
    )
    readonly_fields = (*_told, "against_before", "against_live", "document_text")

    class Media:
        css = {"all": ("console/prompts.css", "console/serving.css")}

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        # A document may have many megabytes; only the page of one revision shows it.
        return rows.defer("document").annotate(
            is_live=Exists(LivePointer.objects.filter(revision=OuterRef("pk")))
        )

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        waiting = Request.objects.filter(kind="revision.publish", state=Request.OPEN).order_by("-created_at")[
            :5
        ]
        context = {
            "pending": pending_note(),
            "waiting": list(waiting),
            "rule": publishing_rule(),
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    @display(description="live", label={"live": "success"})
    def live(self, revision: Revision) -> str:
        return "live" if getattr(revision, "is_live", False) else ""

    @display(description="approved by")
    def approved(self, revision: Revision) -> str:
        return revision.approved_by or "-"

    @display(description="changes")
    def changes_in_all(self, revision: Revision) -> str:
        if revision.restores is not None:
            return f"{len(revision.changes)}, back to {revision.restores}"
        if revision.origin:
            return f"{len(revision.changes)}, brought"
        return str(len(revision.changes))

    @display(description="digest")
    def short_digest(self, revision: Revision) -> str:
        return revision.digest[:12]

    @display(description="brought from")
    def came_from(self, revision: Revision) -> str:
        origin = revision.origin
        if not origin:
            return "-"
        return (
            f"Revision {origin.get('number')} of elsewhere, published by {origin.get('author')} at "
            f"{origin.get('published_at')}: {origin.get('reason')}"
        )

    @display(description="file")
    def file(self, revision: Revision) -> SafeString:
        address = reverse("revision-export", args=[revision.number])
        return format_html(
            '<a class="underline" href="{}" download>Export it</a>: its very bytes and their digest, which another console '
            "makes live. It holds no secret.",
            address,
        )

    @display(description="against the revision before")
    def against_before(self, revision: Revision) -> SafeString:
        before = Revision.objects.filter(number__lt=revision.number).order_by("-number").first()
        return _shown(
            before, revision, f"Nothing: it has the very bytes of revision {before.number if before else 0}."
        )

    @display(description="from this one to what is live")
    def against_live(self, revision: Revision) -> SafeString:
        return _shown(revision, live_revision(), "Nothing: it is what is live.")

    @display(description="document")
    def document_text(self, revision: Revision) -> str:
        if len(revision.document) > _MOST_SHOWN:
            return f"{len(revision.document):,} characters. Export it to read all of it."
        return json.dumps(json.loads(revision.document), indent=2, ensure_ascii=False)

    @admin_action(
        label="Publish",
        question="Make what is configured live? Every data plane serves it within a second.",
        form=PublishForm,
        template="serving/publish.html",
        facts=lambda page, request, obj: publishing_facts(page.admin_site.name),
    )
    def publish(self, request: HttpRequest, actor: Actor, obj: None, data: dict[str, Any]) -> Any:
        return self.proposed(request, services.propose(actor, **data, **seen(request)))

    @admin_action(
        label="Roll back",
        question="Publish the very bytes of {obj} again? What is configured stays as it is.",
        form=PublishForm,
        template="serving/publish.html",
        facts=lambda page, request, obj: standing_facts(rules.RESTORE, str(obj.number)),
        available=_is_not_live,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Revision, data: dict[str, Any]) -> Any:
        made = services.propose(actor, what=rules.RESTORE, object_id=str(obj.number), **data, **seen(request))
        return self.proposed(request, made)

    def proposed(self, request: HttpRequest, made: Revision | Request) -> Any:
        """The text, or the page, that follows."""
        site = self.admin_site.name
        if isinstance(made, Request):
            messages.success(
                request,
                "Asked for. Nothing is live yet: another person approves it, exactly as it stands here.",
            )
            return HttpResponseRedirect(reverse(f"{site}:approvals_request_change", args=[made.pk]))
        messages.success(
            request,
            f"Revision {made.number} is live"
            + (f"; it holds what revision {made.restores} held." if made.restores is not None else "."),
        )
        return HttpResponseRedirect(reverse(f"{site}:serving_revision_changelist"))

    @admin_action(
        label="Import",
        question="Import a revision of another console? Nothing goes live yet: you see what would change, and publish it then.",
        form=BringForm,
    )
    def bring(self, request: HttpRequest, actor: Actor, obj: None, data: dict[str, Any]) -> HttpResponse:
        row = services.bring(actor, data=data["file"].read(), digest=data["digest"])
        return HttpResponseRedirect(
            reverse(f"{self.admin_site.name}:serving_broughtrevision_publish", args=[row.pk])
        )

    @admin_action(
        label="Second person",
        question="When does making something live take a second person?",
        form=RuleForm,
        template="serving/rule.html",
        facts=_rule_facts,
    )
    def rule(self, request: HttpRequest, actor: Actor, obj: None, data: dict[str, Any]) -> Any:
        made = services.change_rule(actor, **data)
        if isinstance(made, Request):
            messages.success(request, "Asked for. The present rule holds until another person approves.")
            return HttpResponseRedirect(
                reverse(f"{self.admin_site.name}:approvals_request_change", args=[made.pk])
            )
        return made.words()


def _shown(before: Revision | None, after: Revision | None, same: str) -> SafeString:
    told = compare(document_of(before), document_of(after))
    return render_to_string("serving/compared.html", {"compared": told, "same": same})
