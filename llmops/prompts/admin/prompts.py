"""Prompts: the list, the editor, and what can be done with one."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Exists, OuterRef, Prefetch, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.text import smart_split, unescape_string_literal
from unfold.decorators import display
from unfold.views import ChangeList

from llmops.access.permissions import may, may_anywhere
from llmops.access.selectors import projects_for
from llmops.base.admin import ReadOnlyInline, ServiceAdmin, admin_action
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.prompts import services
from llmops.prompts.admin.forms import VERSION, CompareForm, CopyForm, ImportForm, LabelForm, PromptForm
from llmops.prompts.admin.telling import LabelLine, label_lines, live_words, waiting
from llmops.prompts.api import import_archive
from llmops.prompts.content import EMPTY
from llmops.prompts.models import Label, Prompt, PromptVersion
from llmops.prompts.selectors import live_of, note_live, version_of, visible_prompts
from llmops.prompts.wording import TITLES, differences, shown
from llmops.prompts.wording import compare as side_by_side


class LabelsInline(ReadOnlyInline):
    model = Label
    fields = ("name", "version", "live", "updated_at")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("version__prompt", "prompt__project")

    @display(description="what is live")
    def live(self, label: Label) -> str:
        # Forms ask for what they show several times.
        note_live([label.prompt])
        live = live_of(label.prompt)
        return LabelLine(
            label.name, label.version.number, live.labels.get(label.name) if live else None
        ).words


class PromptList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        note_live(self.result_list)


class VersionsInline(ReadOnlyInline):
    model = PromptVersion
    fk_name = "prompt"
    verbose_name_plural = "versions"
    fields = ("number", "note", "created_by", "created_at")
    readonly_fields = fields
    ordering = ("-number",)
    per_page = 10

    def get_queryset(self, request: HttpRequest) -> Any:
        # Each row has a title, which names its prompt.
        return super().get_queryset(request).select_related("prompt")


def compare_facts(model_admin: Any, request: HttpRequest, obj: Prompt) -> dict[str, Any]:
    """Two versions side by side: those asked for, or else the newest with the draft, or with the one before."""
    asked = request.POST if request.method == "POST" else request.GET
    numbers = [_number(asked.get(name, "")) for name in ("earlier", "later")]
    newest = obj.current.number if obj.current else 0
    earlier, later = numbers
    if later is None and obj.draft is None:
        later = newest
    if earlier is None:
        earlier = newest if later is None else max(later - 1, 0)
    problem, sides, changes = "", [], []
    try:
        before = version_of(obj, earlier).content if earlier else EMPTY
        after = {**EMPTY, **(obj.draft or {})} if later is None else version_of(obj, later).content
        sides = side_by_side(before, after)
        changes = differences(before, after)
    except InvalidRequest as refused:
        problem = refused.message
    except Exception as refused:
        problem = getattr(refused, "message", "This draft cannot be compared yet.")
    return {
        "sides": sides,
        "changes": changes,
        "problem": problem,
        "before_name": f"Version {earlier}" if earlier else "Nothing",
        "after_name": f"Version {later}" if later is not None else "Draft",
        "versions": list(obj.versions.order_by("-number").values_list("number", flat=True)[:50]),
    }


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 10 else None


def _archive_facts(model_admin: Any, request: HttpRequest, obj: Prompt) -> dict[str, Any]:
    return {"lines": [line for line in label_lines(obj) if line.live is not None]}


@admin.register(Prompt)
class PromptAdmin(ServiceAdmin):
    view_permission, manage_permission = "prompt.view", "prompt.manage"
    project_path = "project"
    form = PromptForm
    list_display = ("slug", "where", "description", "live", "newest", "state")
    list_filter = (("project", admin.RelatedOnlyFieldListFilter), ("archived_at", admin.EmptyFieldListFilter))
    search_fields = ("slug", "description", "versions__note")
    list_select_related = ("project", "current")
    list_before_template = "base/draft_note.html"
    change_form_before_template = "prompts/state.html"
    change_form_after_template = "prompts/preview.html"
    inlines = (LabelsInline, VersionsInline)
    actions_list = ("import_files",)
    actions_detail = ("compare", "point_label", "duplicate", "discard_draft", "archive", "restore")
    _content = (
        ("What it says", {"fields": ("system", "task", "context", "user")}),
        ("Variables", {"fields": ("variables",)}),
        (
            "Answer and model",
            {
                "fields": (
                    "output_schema", "route", ("temperature", "max_output_tokens", "reasoning_effort"), "more_parameters",
                )
            },
        ),
        ("Held against", {"fields": ("samples", "token_ceiling")}),
        ("On the record", {"fields": ("then", "note", "expected")}),
    )  # fmt: skip
    fieldsets = ((None, {"fields": ("slug", "project", "description")}), *_content)
    _shown = ("slug", "where", "description", "live", "newest", "state", "as_text")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PromptList

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = visible_prompts(Prompt.objects.all(), request, [self.view_permission, self.manage_permission])
        return rows.select_related("project", "current").prefetch_related(
            Prefetch("labels", Label.objects.select_related("version"))
        )

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        # As Django does with ``search_fields``, but no row for each version, to be made one again afterwards.
        for word in smart_split(search_term):
            if word[:1] in ("'", '"') and word[:1] == word[-1:]:
                word = unescape_string_literal(word)
            noted = PromptVersion.objects.filter(prompt=OuterRef("pk"), note__icontains=word)
            queryset = queryset.filter(
                Q(slug__icontains=word) | Q(description__icontains=word) | Exists(noted)
            )
        return queryset, False

    def holds(self, request: HttpRequest, permission: str, obj: Any = None) -> bool:
        # Shared prompts are everybody's to look at.
        if obj is not None and obj.project_id is None and permission == self.view_permission:
            return may_anywhere(request, permission)
        return super().holds(request, permission, obj)

    def get_fieldsets(self, request: HttpRequest, obj: Prompt | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        if self.has_change_permission(request, obj):
            return ((None, {"fields": ("slug", "where", "description")}), *self._content)
        return ((None, {"fields": self._shown}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Prompt | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("slug", "where") if self.has_change_permission(request, obj) else self._shown

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        obj: Prompt | None = kwargs.get("obj")
        context |= {
            "prompt": obj,
            "editing": obj is None or self.has_change_permission(request, obj),
            "lines": label_lines(obj) if obj else [],
            "live_prompt": live_of(obj) if obj else None,
            "preview_url": reverse("prompt-preview"),
            "export_url": reverse("prompt-export", args=[obj.pk]) if obj and obj.current else "",
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def create(self, actor: Actor, data: dict[str, Any]) -> Prompt:
        made = data["then"] == VERSION
        return services.create_prompt(
            actor,
            slug=data["slug"],
            project=data["project"],
            description=data["description"],
            note=data["note"] if made else "",
            **{"content" if made else "draft": data["content"]},
        )

    def update(self, actor: Actor, obj: Prompt, data: dict[str, Any]) -> Prompt:
        if data["then"] != VERSION:
            return services.save_draft(
                actor, prompt=obj, draft=data["content"], description=data["description"]
            )
        version = services.add_version(
            actor,
            prompt=obj,
            content=data["content"],
            note=data["note"],
            expected=data["expected"],
            description=data["description"],
        )
        return version.prompt

    @display(description="belongs to", ordering="project__slug")
    def where(self, prompt: Prompt) -> str:
        return str(prompt.project) if prompt.project else "shared by all projects"

    @display(description="live")
    def live(self, prompt: Prompt) -> str:
        return live_words(prompt, live_of(prompt))

    @display(description="newest")
    def newest(self, prompt: Prompt) -> str:
        return f"v{prompt.current.number}" if prompt.current else "none yet"

    @display(
        description="state",
        label={"live": "success", "to publish": "warning", "draft": "info", "archived": "default"},
    )
    def state(self, prompt: Prompt) -> str:
        if prompt.archived_at is not None:
            return "archived"
        if waiting(prompt):
            return "to publish"
        if prompt.draft is not None or prompt.current is None:
            return "draft"
        return "live" if live_of(prompt) else "to publish"

    @display(description="newest version")
    def as_text(self, prompt: Prompt) -> str:
        if prompt.current is None:
            return "none yet"
        return content_text(prompt.current.content)

    @admin_action(
        label="Compare",
        question="Versions of {obj} side by side, layer by layer.",
        permission="prompt.view",
        form=CompareForm,
        shows=True,
        template="prompts/compare.html",
        facts=compare_facts,
        available=lambda prompt: prompt.current is not None,
    )
    def compare(
        self, request: HttpRequest, actor: Actor, obj: Prompt, data: dict[str, Any]
    ) -> dict[str, Any]:
        return {}

    @admin_action(
        label="Point a label",
        question="Which version of {obj} does a label mean? It holds once published; until then everything is served as before.",
        form=LabelForm,
        template="prompts/labels.html",
        facts=lambda model_admin, request, obj: {
            "lines": label_lines(obj),
            "moves": list(obj.label_moves.all()[:20]),
        },
        available=lambda prompt: prompt.current is not None and prompt.archived_at is None,
        initial=lambda prompt: {"version": prompt.current.number},
    )
    def point_label(self, request: HttpRequest, actor: Actor, obj: Prompt, data: dict[str, Any]) -> str:
        services.move_label(
            actor, prompt=obj, name=data["name"], number=data["version"], reason=data["reason"]
        )
        return f"{data['name']} of {obj} points to version {data['version']}. It holds once published."

    @admin_action(
        label="Duplicate",
        question="Make a copy of {obj}? Its first version says what the newest one says here; labels are not copied.",
        form=CopyForm,
    )
    def duplicate(
        self, request: HttpRequest, actor: Actor, obj: Prompt, data: dict[str, Any]
    ) -> HttpResponse:
        copy = services.duplicate_prompt(actor, prompt=obj, slug=data["slug"], project=obj.project)
        return HttpResponseRedirect(reverse("admin:prompts_prompt_change", args=[copy.pk]))

    @admin_action(
        label="Discard draft",
        question="Throw the draft of {obj} away? Versions stay as they are.",
        danger=True,
        available=lambda prompt: prompt.draft is not None,
    )
    def discard_draft(self, request: HttpRequest, actor: Actor, obj: Prompt, data: dict[str, Any]) -> str:
        services.discard_draft(actor, prompt=obj)
        return f"The draft of {obj} is thrown away."

    @admin_action(
        label="Archive",
        question="Put {obj} away? It is left out of what is published next, and services that name it are refused from then on.",
        template="prompts/archive.html",
        facts=_archive_facts,
        available=lambda prompt: prompt.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Prompt, data: dict[str, Any]) -> str:
        services.archive_prompt(actor, prompt=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Bring {obj} back?",
        available=lambda prompt: prompt.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Prompt, data: dict[str, Any]) -> str:
        services.unarchive_prompt(actor, prompt=obj)
        return f"{obj} is back."

    @admin_action(
        label="Import files",
        question="Bring prompts in from files? Each folder makes a prompt, or another version of the one of its name. Nothing becomes live.",
        form=ImportForm,
    )
    def import_files(self, request: HttpRequest, actor: Actor, obj: None, data: dict[str, Any]) -> str:
        project = None
        if data["project"]:
            project = (
                projects_for(request, "prompt.manage").filter(slug=data["project"], archived_at=None).first()
            )
        if project is None and (data["project"] or not may(request, "prompt.manage", None)):
            raise Conflict("project: name a project that you manage.", param="project")
        packed = data["archive"].read(10_000_001)
        done = import_archive(actor, packed, project=project, note=data["note"])
        words = {"created": "new", "version_added": "another version", "unchanged": "unchanged"}
        return "Imported: " + ", ".join(f"{prompt.slug} ({words[what]})" for prompt, what in done) + "."


def content_text(content: dict[str, Any]) -> str:
    """All members of a version as one text."""
    parts = [(TITLES[name], shown(name, content.get(name))) for name in TITLES]
    return "\n\n".join(f"{title}:\n{text}" for title, text in parts if text)
