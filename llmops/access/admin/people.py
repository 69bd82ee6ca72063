"""Accounts."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminPasswordWidget

from llmops.access import services
from llmops.access.admin.projects import ReasonForm
from llmops.access.models import Membership, Passkey, SecondFactor
from llmops.access.second_factor import has_factor
from llmops.base.admin import ReadOnlyInline, ServiceAdmin, admin_action
from llmops.core.actors import Actor


class RolesInline(ReadOnlyInline):
    model = Membership
    fields = ("project", "role")
    verbose_name_plural = "roles"


class NewUserForm(forms.ModelForm):
    password = forms.CharField(
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        help_text="Empty: nobody can sign in with this account until a password is set.",
    )

    class Meta:
        model = User
        fields = ("username", "email", "first_name", "last_name", "is_superuser")


class PasswordForm(forms.Form):
    password = forms.CharField(
        strip=False, widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"})
    )
    again = forms.CharField(
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}),
        label="Password again",
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("password") != data.get("again"):
            self.add_error("again", "The two passwords differ.")
        return data


@admin.register(User)
class UserAdmin(ServiceAdmin):
    view_permission, manage_permission = "member.view", "member.manage"
    project_path = None
    organisation_only = True
    list_display = ("username", "email", "first_name", "last_name", "is_superuser", "is_active", "last_login")
    list_filter = ("is_active", "is_superuser")
    search_fields = ("username", "email", "first_name", "last_name")
    ordering = ("username",)
    inlines = (RolesInline,)
    actions_detail = (
        "set_password",
        "deactivate",
        "activate",
        "unlock",
        "end_sessions",
        "reset_factor",
    )

    def get_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        names = ("username", "email", "first_name", "last_name", "is_superuser")
        shown = ("is_active", "factor", "sessions", "date_joined", "last_login")
        return (*names, "password") if obj is None else (*names, *shown)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("username", "is_active", "factor", "sessions", "date_joined", "last_login")

    def get_form(
        self, request: HttpRequest, obj: Any | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is None:
            kwargs["form"] = NewUserForm
        return super().get_form(request, obj, change, **kwargs)

    @display(description="second factor")
    def factor(self, user: User) -> str:
        found = SecondFactor.objects.filter(user=user).first()
        keys = Passkey.objects.filter(user=user).count()
        ways = [f"app since {found.created_at:%Y-%m-%d %H:%M} UTC"] if found else []
        ways += [f"{keys} passkey{'s' if keys > 1 else ''}"] if keys else []
        return ", ".join(ways) or "off"

    @display(description="signed in")
    def sessions(self, user: User) -> str:
        """From where, and when each was last seen."""
        found = services.sign_ins_of(user)
        return (
            "; ".join(f"{one.ip or 'unknown'}, seen {one.seen_at:%Y-%m-%d %H:%M} UTC" for one in found)
            or "nowhere"
        )

    def create(self, actor: Actor, data: dict[str, Any]) -> User:
        return services.create_user(actor, **{**data, "password": data["password"] or None})

    def update(self, actor: Actor, obj: User, data: dict[str, Any]) -> User:
        return services.update_user(actor, user=obj, **data)

    @admin_action(
        label="Set password",
        question="Set a new password for {obj}? Every session of theirs ends.",
        form=PasswordForm,
    )
    def set_password(self, request: HttpRequest, actor: Actor, obj: User, data: dict[str, Any]) -> str:
        services.set_password(actor, user=obj, password=data["password"])
        return f"The password of {obj} was set."

    @admin_action(
        label="Deactivate",
        question="Close the account {obj}? Its sessions end with their next request.",
        form=ReasonForm,
        danger=True,
        available=lambda user: user.is_active,
    )
    def deactivate(self, request: HttpRequest, actor: Actor, obj: User, data: dict[str, Any]) -> str:
        services.deactivate_user(actor, user=obj, **data)
        return f"{obj} can no longer sign in."

    @admin_action(
        label="Activate",
        question="Open the account {obj} again, with the roles it has?",
        form=ReasonForm,
        available=lambda user: not user.is_active,
    )
    def activate(self, request: HttpRequest, actor: Actor, obj: User, data: dict[str, Any]) -> str:
        services.activate_user(actor, user=obj, **data)
        return f"{obj} can sign in again."

    @admin_action(
        label="Lift sign-in pause",
        question="Let {obj} try to sign in again at once, after too many wrong passwords?",
        form=ReasonForm,
    )
    def unlock(self, request: HttpRequest, actor: Actor, obj: User, data: dict[str, Any]) -> str:
        services.unlock_user(actor, user=obj, **data)
        return f"{obj} may try to sign in again."

    @admin_action(
        label="End sessions",
        question="Sign {obj} out everywhere, with their next request?",
        form=ReasonForm,
    )
    def end_sessions(self, request: HttpRequest, actor: Actor, obj: User, data: dict[str, Any]) -> str:
        ended = services.end_sessions(actor, user=obj, **data)
        return f"{ended} {'session' if ended == 1 else 'sessions'} of {obj} ended."

    @admin_action(
        label="Reset second factor",
        question="Remove the second factor of {obj}, whose phone and recovery codes are lost? Be sure that it is they who ask.",
        form=ReasonForm,
        danger=True,
        available=has_factor,
    )
    def reset_factor(self, request: HttpRequest, actor: Actor, obj: User, data: dict[str, Any]) -> str:
        services.reset_factor(actor, user=obj, **data)
        return f"{obj} signs in without a second factor until they turn one on."
