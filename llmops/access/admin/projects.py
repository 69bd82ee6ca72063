"""Projects and who belongs to them."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from llmops.access import services
from llmops.access.models import Membership, Project
from llmops.base.admin import ReadOnlyInline, ServiceAdmin, admin_action
from llmops.core.actors import Actor


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Goes into the audit trail.",
    )


class MembersInline(ReadOnlyInline):
    model = Membership
    fields = ("user", "role")

    def has_view_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return bool(self.admin_site._registry[Membership].has_view_permission(request))


@admin.register(Project)
class ProjectAdmin(ServiceAdmin):
    view_permission, manage_permission = "project.view", "project.manage"
    project_path = "pk"
    list_display = ("slug", "name", "owner", "cost_center", "open")
    search_fields = ("slug", "name", "owner", "cost_center")
    fieldsets = (
        (None, {"fields": ("slug", "name", ("owner", "cost_center"))}),
        (
            "Calls of all its keys together",
            {
                "fields": ("default_route", ("rpm", "tpm", "concurrency")),
                "description": "Felt by every data plane within a second. Empty: no limit beside those of each key.",
            },
        ),
        (
            "Texts of calls",
            {
                "fields": (("keep_texts_percent", "keep_texts_days"), "keep_texts_readable"),
                "description": "Only what is asked, after policies took out of it what they take out, without keys and passwords, "
                "at most 32 kB a call, encrypted: policies are tried on it, which is on the record. Nobody reads it, unless it is kept "
                "for people to read.",
            },
        ),
    )
    _state = ("Now", {"fields": ("archived_at",)})
    inlines = (MembersInline,)
    actions_detail = ("archive", "restore")

    def get_fieldsets(self, request: HttpRequest, obj: Project | None = None) -> Any:
        return self.fieldsets if obj is None else (*self.fieldsets, self._state)

    def get_readonly_fields(self, request: HttpRequest, obj: Project | None = None) -> tuple[str, ...]:
        return ("archived_at",) if obj is None else ("slug", "archived_at")

    def create(self, actor: Actor, data: dict[str, Any]) -> Project:
        return services.create_project(actor, **data)

    def update(self, actor: Actor, obj: Project, data: dict[str, Any]) -> Project:
        return services.update_project(actor, project=obj, **data)

    @display(description="open", boolean=True)
    def open(self, project: Project) -> bool:
        return project.archived_at is None

    @admin_action(
        label="Archive",
        question="Archive {obj}? Its service keys stop working at once. Everything recorded stays.",
        form=ReasonForm,
        danger=True,
        available=lambda project: project.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Project, data: dict[str, Any]) -> str:
        services.archive_project(actor, project=obj, **data)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Open {obj} again? Its keys that were not revoked work again.",
        form=ReasonForm,
        available=lambda project: project.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Project, data: dict[str, Any]) -> str:
        services.restore_project(actor, project=obj, **data)
        return f"{obj} is open again."


class MembershipForm(forms.ModelForm):
    # Typed, not chosen: whoever administers one project need not read the list of everybody's accounts.
    person = forms.CharField(
        max_length=150, widget=UnfoldAdminTextInputWidget(), help_text="The name with which they sign in."
    )

    class Meta:
        model = Membership
        fields = ("project", "role")

    def clean_person(self) -> Any:
        user = get_user_model().objects.filter(username=self.cleaned_data["person"]).first()
        if user is None:
            raise forms.ValidationError("There is no account of this name.")
        return user


@admin.register(Membership)
class MembershipAdmin(ServiceAdmin):
    view_permission, manage_permission = "member.view", "member.manage"
    list_display = ("user", "role", "where")
    list_filter = ("role",)
    list_select_related = ("user", "project")
    search_fields = ("user__username", "project__slug")
    form = MembershipForm

    def get_fields(self, request: HttpRequest, obj: Membership | None = None) -> tuple[str, ...]:
        return ("person", "role", "project") if obj is None else ("user", "role", "project")

    def get_readonly_fields(self, request: HttpRequest, obj: Membership | None = None) -> tuple[str, ...]:
        return () if obj is None else ("user", "project")

    def get_form(
        self, request: HttpRequest, obj: Any | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is not None:
            kwargs["form"] = forms.ModelForm
        return super().get_form(request, obj, change, **kwargs)

    def create(self, actor: Actor, data: dict[str, Any]) -> Membership:
        return services.add_member(actor, user=data["person"], project=data["project"], role=data["role"])

    def update(self, actor: Actor, obj: Membership, data: dict[str, Any]) -> Membership:
        return services.change_role(actor, membership=obj, role=data["role"])

    def remove(self, actor: Actor, obj: Membership) -> None:
        services.remove_member(actor, membership=obj)

    @display(description="where", ordering="project__slug")
    def where(self, membership: Membership) -> str:
        return membership.project.slug if membership.project else "the whole organisation"
