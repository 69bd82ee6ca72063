"""Versions of prompts: what each says, and what can be made of it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import display

from llmops.access.permissions import may_anywhere
from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.core.actors import Actor
from llmops.prompts import services
from llmops.prompts.admin.forms import PointForm
from llmops.prompts.admin.prompts import content_text
from llmops.prompts.models import Prompt, PromptVersion
from llmops.prompts.selectors import live_of, visible_prompts
from llmops.prompts.wording import differences


def _in_use(version: PromptVersion) -> bool:
    return version.prompt.archived_at is None


@admin.register(PromptVersion)
class PromptVersionAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "prompt.view", "prompt.manage"
    project_path = "prompt__project"
    list_display = ("prompt", "number", "served", "note", "created_by", "created_at")
    list_filter = (("prompt", admin.RelatedOnlyFieldListFilter),)
    search_fields = ("prompt__slug", "note")
    actions_detail = ("edit_from_here", "point_label")
    _told = (
        "prompt",
        "number",
        "served",
        "note",
        "created_by",
        "created_at",
        "changes",
        "digest",
        "renderings_told",
    )
    fieldsets = ((None, {"fields": _told}), ("What it says", {"fields": ("as_text",)}))
    readonly_fields = (*_told, "as_text")

    def get_queryset(self, request: HttpRequest) -> Any:
        seen = visible_prompts(Prompt.objects.all(), request, [self.view_permission, self.manage_permission])
        return PromptVersion.objects.filter(prompt__in=seen).select_related(
            "prompt__project", "prompt__current"
        )

    def holds(self, request: HttpRequest, permission: str, obj: Any = None) -> bool:
        if obj is not None and obj.prompt.project_id is None and permission == self.view_permission:
            return may_anywhere(request, permission)
        return super().holds(request, permission, obj)

    @display(description="live")
    def served(self, version: PromptVersion) -> str:
        live = live_of(version.prompt)
        if live is None or version.number not in live.versions:
            return "not published"
        labels = [name for name, number in sorted(live.labels.items()) if number == version.number]
        return ", ".join(labels) or "by number"

    @display(description="against the one before")
    def changes(self, version: PromptVersion) -> str:
        earlier = version.prompt.versions.filter(number__lt=version.number).order_by("-number").first()
        return "\n".join(differences(earlier.content if earlier else {}, version.content)) or "nothing"

    @display(description="what it says")
    def as_text(self, version: PromptVersion) -> str:
        return content_text(version.content)

    @display(description="renderings")
    def renderings_told(self, version: PromptVersion) -> str:
        lines = []
        for one in version.renderings:
            tokens = max(one.get("tokens", {}).values(), default=0)
            lines.append(f"{one['name']}: {one['digest'][:12]}…{f', {tokens:,} tokens' if tokens else ''}")
        return "\n".join(lines) or "no samples"

    @admin_action(
        label="Edit from here",
        question="Make what {obj} says the prompt's draft? A draft that is there already is replaced.",
        available=_in_use,
    )
    def edit_from_here(
        self, request: HttpRequest, actor: Actor, obj: PromptVersion, data: dict[str, Any]
    ) -> HttpResponse:
        services.save_draft(actor, prompt=obj.prompt, draft=obj.content)
        return HttpResponseRedirect(reverse("admin:prompts_prompt_change", args=[obj.prompt_id]))

    @admin_action(
        label="Point a label here",
        question="Which label means {obj}? It holds once published; until then everything is served as before.",
        form=PointForm,
        available=_in_use,
    )
    def point_label(
        self, request: HttpRequest, actor: Actor, obj: PromptVersion, data: dict[str, Any]
    ) -> str:
        services.move_label(
            actor, prompt=obj.prompt, name=data["name"], number=obj.number, reason=data["reason"]
        )
        return f"{data['name']} points to {obj}. It holds once published."
