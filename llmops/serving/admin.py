"""Revisions: what is live and was, publishing, restoring."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.core.actors import Actor
from llmops.serving import services
from llmops.serving.differences import describe
from llmops.serving.models import LivePointer, Revision
from llmops.serving.selectors import live_revision, pending
from llmops.serving.snapshot import EMPTY_DOCUMENT, decode_document
from llmops.serving.validation import Problem


class PublishForm(forms.Form):
    reason = forms.CharField(
        max_length=300,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Why; kept with the revision and in the audit trail.",
    )
    #: The revision that was live when the page was shown: what was looked at is what is replaced.
    expected_revision = forms.IntegerField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["expected_revision"].initial = (
            LivePointer.objects.values_list("revision_id", flat=True).first() or 0
        )


#: Rooms of what a problem can be about; all others are of providers.
_ROOMS = {"policy": "policies", "project": "access", "prompt": "prompts"}


def _address(site: str, problem: Problem) -> str | None:
    room = _ROOMS.get(problem.kind, "providers")
    model = apps.get_model(room, problem.kind)
    named: dict[str, str | None] = {"slug": problem.slug}
    if problem.kind == "prompt":
        project, _, slug = problem.slug.rpartition("/")
        named = {"slug": slug, "project__slug": project or None}
    pk = model._default_manager.filter(**named).values_list("pk", flat=True).first()
    return reverse(f"{site}:{room}_{problem.kind}_change", args=[pk]) if pk else None


def _publish_facts(model_admin: Any, request: HttpRequest, obj: None) -> dict[str, Any]:
    found, site = pending(), model_admin.admin_site.name
    return {
        "live": found.live,
        "changes": found.changes,
        "errors": [(problem.message, _address(site, problem)) for problem in found.errors],
        "warnings": [(problem.message, _address(site, problem)) for problem in found.warnings],
    }


def _restore_facts(model_admin: Any, request: HttpRequest, obj: Revision) -> dict[str, Any]:
    live = live_revision()
    before = decode_document(live.document) if live else EMPTY_DOCUMENT
    return {
        "live": live.number if live else 0,
        "changes": describe(before, decode_document(obj.document)),
        "restoring": True,
    }


def _is_not_live(revision: Revision) -> bool:
    live = live_revision()
    return live is None or live.digest != revision.digest


@admin.register(Revision)
class RevisionAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "revision.view", "revision.publish"
    project_path = None
    list_display = ("number", "live", "reason", "author", "published_at", "changes_in_all", "restores")
    search_fields = ("reason", "author", "digest")
    list_before_template = "serving/pending_note.html"
    actions_list = ("publish",)
    actions_detail = ("restore",)
    _told = ("number", "live", "reason", "author", "published_at", "restores", "digest", "changes_in_words")
    fieldsets = (
        (None, {"fields": _told}),
        ("Document", {"fields": ("document_text",), "classes": ("collapse",)}),
    )
    readonly_fields = (*_told, "document_text")

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"pending": pending(), **(extra_context or {})}
        return super().changelist_view(request, context)

    @display(description="live", label={"live": "success"})
    def live(self, revision: Revision) -> str:
        pointer = LivePointer.objects.filter(revision=revision).exists()
        return "live" if pointer else ""

    @display(description="changes")
    def changes_in_all(self, revision: Revision) -> int:
        return len(revision.changes)

    @display(description="changes")
    def changes_in_words(self, revision: Revision) -> str:
        return "\n".join(revision.changes) or "none"

    @display(description="document")
    def document_text(self, revision: Revision) -> str:
        return json.dumps(json.loads(revision.document), indent=2, ensure_ascii=False)

    @admin_action(
        label="Publish",
        question="Make what is configured live? Every data plane serves it within a second.",
        form=PublishForm,
        template="serving/publish.html",
        facts=_publish_facts,
    )
    def publish(self, request: HttpRequest, actor: Actor, obj: None, data: dict[str, Any]) -> str:
        revision = services.publish(actor, **data)
        return f"Revision {revision.number} is live."

    @admin_action(
        label="Restore",
        question="Publish the very bytes of {obj} again? What is configured stays as it is.",
        form=PublishForm,
        template="serving/publish.html",
        facts=_restore_facts,
        available=_is_not_live,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Revision, data: dict[str, Any]) -> str:
        revision = services.restore(actor, number=obj.number, **data)
        return f"Revision {revision.number} is live; it holds what revision {obj.number} held."
