"""Tools."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from unfold.decorators import display

from llmops.base.admin import ReadOnlyInline, ServiceAdmin, admin_action
from llmops.base.admin_actions import back_to
from llmops.core.actors import Actor
from llmops.core.digests import canonical_json
from llmops.tools import services
from llmops.tools.admin.forms import ArgumentsForm, ReasonForm, ToolForm
from llmops.tools.models import Tool, ToolVersion
from llmops.tools.rules import CONSOLE
from llmops.tools.selectors import definition_of, examples_of, lacks_secret, trial
from llmops.tools.wording import approvals_in_words, differences, people

RISK_LABELS = {"read": "info", "write": "success", "destructive": "warning", "irreversible": "danger"}


class ToolVersionsInline(ReadOnlyInline):
    model = ToolVersion
    fk_name = "tool"
    verbose_name_plural = "versions"
    fields = ("number", "changes", "note", "created_by", "created_at")
    readonly_fields = fields
    ordering = ("-number",)
    show_change_link = False
    per_page = 10

    @display(description="against the one before")
    def changes(self, version: ToolVersion) -> str:
        earlier = (
            ToolVersion.objects.filter(tool_id=version.tool_id, number__lt=version.number)
            .order_by("-number")
            .first()
        )
        return (
            "\n".join(differences(earlier.definition if earlier else {}, version.definition)[:12]) or "none"
        )


def _in_use(tool: Tool) -> bool:
    return tool.archived_at is None


@admin.register(Tool)
class ToolAdmin(ServiceAdmin):
    view_permission, manage_permission = "tool.view", "tool.manage"
    form = ToolForm
    list_display = ("slug", "project", "risk", "agree", "by", "version", "state")
    list_filter = (("project", admin.RelatedOnlyFieldListFilter),)
    list_select_related = ("project", "current")
    search_fields = ("slug", "project__slug")
    inlines = (ToolVersionsInline,)
    actions_detail = (
        "try_it", "dry_run", "pause", "resume", "rotate_secret", "archive", "restore",
    )  # fmt: skip
    _definition = (
        ("What it is", {"fields": ("description", "says", "parameters")}),
        ("How dangerous it is", {"fields": ("risk", "rules", "approvals", "approve_within_s")}),
        (
            "Who carries it out",
            {"fields": ("carried_out_by", "url", "allow_private_network", "function", ("timeout_s", "concurrency"))},
        ),
        ("Who may call it", {"fields": ("callers", "dry_run")}),
        ("On the record", {"fields": ("note",)}),
    )  # fmt: skip
    fieldsets = ((None, {"fields": ("project", "slug")}), *_definition)
    _shown = ("slug", "project", "risk", "agree", "by", "version", "stands", "signing")

    def get_fieldsets(self, request: HttpRequest, obj: Tool | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        if self.has_change_permission(request, obj):
            return (
                (None, {"fields": ("slug", "project", "stands", "signing")}),
                *self._definition,
            )
        return ((None, {"fields": self._shown}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Tool | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return (
            ("slug", "project", "stands", "signing")
            if self.has_change_permission(request, obj)
            else self._shown
        )

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Tool:
        return services.create_tool(
            actor,
            project=data["project"],
            slug=data["slug"],
            definition=data["definition"],
            note=data["note"],
        )

    def update(self, actor: Actor, obj: Tool, data: dict[str, Any]) -> Tool:
        return services.add_version(actor, tool=obj, definition=data["definition"], note=data["note"])

    def response_post_save_add(self, request: HttpRequest, obj: Tool) -> HttpResponse:
        """To the page of a tool that cannot be called yet: what is missing is one button away there."""
        if not lacks_secret(obj):
            return super().response_post_save_add(request, obj)
        said = f"Nothing can be sent to the webhook of {obj} yet: make a New signing secret, and give it to the service."
        messages.warning(request, said)
        return HttpResponseRedirect(back_to(self, obj))

    @display(description="risk", label=RISK_LABELS)
    def risk(self, tool: Tool) -> str:
        return tool.current.definition["risk"] if tool.current else "none"

    @display(description="must agree to")
    def agree(self, tool: Tool) -> str:
        definition = definition_of(tool)
        return approvals_in_words(definition) if definition else "nobody"

    @display(description="carried out by")
    def by(self, tool: Tool) -> str:
        return (tool.current.definition["executor"] or "the service") if tool.current else "nobody"

    @display(description="version")
    def version(self, tool: Tool) -> int | None:
        return tool.current.number if tool.current else None

    @display(description="state", label={"in use": "success", "paused": "warning", "archived": "default"})
    def state(self, tool: Tool) -> str:
        if tool.archived_at is not None:
            return "archived"
        return "paused" if tool.paused_at is not None else "in use"

    @display(description="state")
    def stands(self, tool: Tool) -> str:
        """With the reason for a pause: it is what services are told, too."""
        return f"{self.state(tool)}: {tool.pause_reason}" if tool.pause_reason else self.state(tool)

    @display(description="signing secret")
    def signing(self, tool: Tool) -> str:
        if tool.secret_set_at is not None:
            return f"set {tool.secret_set_at:%Y-%m-%d %H:%M} UTC"
        return "none yet: nothing can be sent before there is one" if lacks_secret(tool) else "none"

    @admin_action(
        label="Try it",
        question="What would become of a call of {obj}? It is checked and classified; nothing is kept and nothing is called.",
        permission="tool.view",
        form=ArgumentsForm,
        initial=lambda tool: {"arguments": examples_of(tool)},
        shows=True,
        template="tools/outcome.html",
        available=lambda tool: tool.current is not None,
    )
    def try_it(self, request: HttpRequest, actor: Actor, obj: Tool, data: dict[str, Any]) -> dict[str, Any]:
        found = trial(obj, data["arguments"])
        return {
            "lines": [
                ("In words", found["says"]),
                ("Risk", f"{found['risk']}, because of {found['because']}"),
                ("Must agree", people(found["approvals"])),
                ("Arguments", canonical_json(found["arguments"]).decode()),
                *(
                    [("It would fail", "there is no signing secret yet; make one first")]
                    if lacks_secret(obj)
                    else []
                ),
            ]
        }

    @admin_action(
        label="Dry run",
        question='Call {obj} with "dry_run"? Its definition says that it then does nothing.',
        form=ArgumentsForm,
        initial=lambda tool: {"arguments": examples_of(tool)},
        shows=True,
        template="tools/outcome.html",
        available=lambda tool: _in_use(tool) and tool.current.definition["dry_run"],
    )
    def dry_run(self, request: HttpRequest, actor: Actor, obj: Tool, data: dict[str, Any]) -> dict[str, Any]:
        outcome = services.call_as_dry_run(actor, tool=obj, arguments=data["arguments"])
        return {
            "lines": [
                ("Outcome", outcome.state),
                ("Told", outcome.message or "nothing"),
                ("Result", canonical_json(outcome.result).decode()[:4000]),
            ]
        }

    @admin_action(
        label="Pause",
        question="Pause {obj}? Nothing is proposed and nothing begun until it is resumed.",
        form=ReasonForm,
        danger=True,
        available=lambda tool: _in_use(tool) and tool.paused_at is None,
    )
    def pause(self, request: HttpRequest, actor: Actor, obj: Tool, data: dict[str, Any]) -> str:
        services.pause_tool(actor, tool=obj, **data)
        return f"{obj} is paused."

    @admin_action(
        label="Resume",
        question="Resume {obj}? What was approved meanwhile begins within seconds.",
        available=lambda tool: tool.paused_at is not None,
    )
    def resume(self, request: HttpRequest, actor: Actor, obj: Tool, data: dict[str, Any]) -> str:
        services.resume_tool(actor, tool=obj)
        return f"{obj} is in use again."

    @admin_action(
        label="New signing secret",
        question="Make a new secret that signs what the webhook of {obj} gets? It is shown once; the one before ends at once.",
        available=lambda tool: _in_use(tool) and tool.current.definition["execution"] == CONSOLE,
    )
    def rotate_secret(
        self, request: HttpRequest, actor: Actor, obj: Tool, data: dict[str, Any]
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"The signing secret of {obj}",
            "tool": obj,
            "secret": services.rotate_secret(actor, tool=obj),
            "next": back_to(self, obj),
        }
        return TemplateResponse(
            request, "tools/secret_once.html", context, headers={"Cache-Control": "no-store"}
        ).render()

    @admin_action(
        label="Archive",
        question="Put {obj} away? Nobody can propose it any more.",
        available=_in_use,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Tool, data: dict[str, Any]) -> str:
        services.archive_tool(actor, tool=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Bring {obj} back?",
        available=lambda tool: tool.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Tool, data: dict[str, Any]) -> str:
        services.unarchive_tool(actor, tool=obj)
        return f"{obj} is back."
