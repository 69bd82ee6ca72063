"""Labels: where each points, where it pointed, and the way back."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import display

from llmops.access.permissions import may_anywhere
from llmops.base.admin import ReadOnlyAdmin, admin_action
from llmops.core.actors import Actor
from llmops.core.errors import Conflict
from llmops.prompts import services
from llmops.prompts.admin.forms import BackForm, MoveForm, RemoveLabelForm
from llmops.prompts.admin.telling import label_lines
from llmops.prompts.models import Label, Prompt
from llmops.prompts.selectors import moves_of, visible_prompts


def _in_use(label: Label) -> bool:
    return label.prompt.archived_at is None


def _before(label: Label) -> int | None:
    """The version that the label pointed to before."""
    last = label.prompt.label_moves.filter(name=label.name).first()
    return last.from_version if last else None


def _facts(model_admin: Any, request: HttpRequest, obj: Label) -> dict[str, Any]:
    lines = [line for line in label_lines(obj.prompt) if line.name == obj.name]
    return {"lines": lines, "moves": moves_of(obj.prompt, obj.name), "before": _before(obj)}


@admin.register(Label)
class LabelAdmin(ReadOnlyAdmin):
    view_permission, manage_permission = "prompt.view", "prompt.manage"
    project_path = "prompt__project"
    list_display = ("name", "prompt", "version", "live", "updated_at")
    list_filter = ("name",)
    search_fields = ("name", "prompt__slug")
    actions_detail = ("back", "move", "take_away")
    _told = ("prompt", "name", "version", "live", "history_told")
    fieldsets = ((None, {"fields": _told}),)
    readonly_fields = _told

    def get_queryset(self, request: HttpRequest) -> Any:
        seen = visible_prompts(Prompt.objects.all(), request, [self.view_permission, self.manage_permission])
        return Label.objects.filter(prompt__in=seen).select_related("prompt__project", "version__prompt")

    def holds(self, request: HttpRequest, permission: str, obj: Any = None) -> bool:
        if obj is not None and obj.prompt.project_id is None and permission == self.view_permission:
            return may_anywhere(request, permission)
        return super().holds(request, permission, obj)

    @display(description="what is live")
    def live(self, label: Label) -> str:
        return next(line.words for line in label_lines(label.prompt) if line.name == label.name)

    @display(description="history")
    def history_told(self, label: Label) -> str:
        return "\n".join(
            f"{move.moved_at:%Y-%m-%d %H:%M} UTC: {move.from_version or 'none'} → {move.to_version or 'none'}, by "
            f"{move.moved_by}: {move.reason}"
            for move in moves_of(label.prompt, label.name)
        )

    @admin_action(
        label="Back",
        question="Point {obj} to the version that it meant before? It holds once published.",
        form=BackForm,
        template="prompts/labels.html",
        facts=_facts,
        available=lambda label: _in_use(label) and _before(label) is not None,
    )
    def back(self, request: HttpRequest, actor: Actor, obj: Label, data: dict[str, Any]) -> str:
        number = _before(obj)
        if number is None:
            raise Conflict(f"{obj} has meant no other version.")
        services.move_label(
            actor, prompt=obj.prompt, name=obj.name, number=number, expected=obj.version.number, **data
        )
        return f"{obj} points to version {number} again. It holds once published."

    @admin_action(
        label="Move",
        question="Which version does {obj} mean? It holds once published.",
        form=MoveForm,
        template="prompts/labels.html",
        facts=_facts,
        available=_in_use,
    )
    def move(self, request: HttpRequest, actor: Actor, obj: Label, data: dict[str, Any]) -> str:
        services.move_label(
            actor,
            prompt=obj.prompt,
            name=obj.name,
            number=data["version"],
            reason=data["reason"],
            expected=obj.version.number,
        )
        return f"{obj} points to version {data['version']}. It holds once published."

    @admin_action(
        label="Remove",
        question="Take {obj} away? Services that name it are refused once this is published; its history stays.",
        form=RemoveLabelForm,
        template="prompts/labels.html",
        facts=_facts,
        danger=True,
        available=_in_use,
    )
    def take_away(self, request: HttpRequest, actor: Actor, obj: Label, data: dict[str, Any]) -> HttpResponse:
        prompt = obj.prompt
        services.remove_label(actor, prompt=prompt, name=obj.name, reason=data["reason"])
        messages.success(request, f"{obj} is removed. It holds once published.")
        return HttpResponseRedirect(reverse("admin:prompts_prompt_change", args=[prompt.pk]))
