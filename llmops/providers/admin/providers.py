"""Providers."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from llmops.base.admin import ReadOnlyInline, ServiceAdmin, admin_action
from llmops.base.form_fields import LinesField
from llmops.core.actors import Actor
from llmops.providers import services
from llmops.providers.admin.forms import PauseForm, ReasonForm
from llmops.providers.models import Credential, Provider
from llmops.providers.rules import origin_of
from llmops.providers.selectors import keys_given_elsewhere


class CredentialsInline(ReadOnlyInline):
    model = Credential
    verbose_name_plural = "keys"
    fields = ("name", "state", "kept", "fingerprint", "last_probe_result", "last_used_at")
    readonly_fields = fields

    @display(description="kept")
    def kept(self, credential: Credential) -> str:
        return _place(credential)


def _place(credential: Credential) -> str:
    if credential.source == "sealed":
        return "here, encrypted" if credential.sealed else "wiped"
    return f"{credential.source}:{credential.reference}"


class ProviderForm(forms.ModelForm):
    # The service knows which hosts and schemes are allowed, and says so; Django's own check would say less.
    base_url = forms.CharField(
        max_length=300,
        label="Base URL",
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "url"}),
        help_text="Up to and including the version, such as https://api.openai.com/v1",
    )
    passthrough = LinesField(
        label="Paths passed through",
        help_text="Other paths below /v1 that services may call here, one a line, such as /vector_stores and "
        "/vector_stores/*. A * stands for one segment, or at the end for everything below. Such calls have the key's "
        "limits, but no policy; what they cost is not known before, so a hard budget refuses them.",
    )
    shared_objects = LinesField(
        label="Objects for every project",
        help_text="What was made outside of this console (a prompt, a vector store, a custom voice, a skill) belongs to no "
        "project, so no request may name it unless its id stands here, one a line, such as vs_abc123. pmpt_* stands for "
        "all ids that begin so and that no project made.",
    )


@admin.register(Provider)
class ProviderAdmin(ServiceAdmin):
    view_permission, manage_permission = "provider.view", "provider.manage"
    project_path = None
    form = ProviderForm
    list_display = ("slug", "name", "kind_in_words", "base_url", "state", "keys_in_use")
    list_filter = ("kind",)
    search_fields = ("slug", "name", "base_url")
    list_before_template = "base/draft_note.html"
    change_form_before_template = "base/draft_note.html"
    inlines = (CredentialsInline,)
    actions_detail = ("pause", "resume", "archive", "restore")
    fieldsets = (
        (None, {"fields": ("slug", "name", "kind", "base_url", "allow_private_network")}),
        (
            "Time-outs (milliseconds) and connections",
            {
                "fields": (
                    ("connect_timeout_ms", "read_timeout_ms"),
                    ("write_timeout_ms", "pool_timeout_ms"),
                    "max_connections",
                )
            },
        ),
        ("On the way", {"fields": ("proxy_url", "organization", "provider_project")}),
        ("Beyond models", {"fields": ("passthrough", "shared_objects")}),
    )
    _state = ("Now", {"fields": ("state", "pause_reason", "archived_at")})

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("credentials")

    def get_fieldsets(self, request: HttpRequest, obj: Provider | None = None) -> Any:
        return self.fieldsets if obj is None else (*self.fieldsets, self._state)

    def get_readonly_fields(self, request: HttpRequest, obj: Provider | None = None) -> tuple[str, ...]:
        shown = ("state", "pause_reason", "archived_at")
        return shown if obj is None else ("slug", *shown)

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Provider:
        slug, kind, base_url = data.pop("slug"), data.pop("kind"), data.pop("base_url")
        return services.create_provider(actor, slug=slug, kind=kind, base_url=base_url, fields=data)

    def update(self, actor: Actor, obj: Provider, data: dict[str, Any]) -> Provider:
        return services.update_provider(actor, provider=obj, changes=data)

    def response_change(self, request: HttpRequest, obj: Provider) -> HttpResponse:
        if left := keys_given_elsewhere(obj):
            names = ", ".join(key.name for key in left)
            messages.warning(
                request,
                f"{names} {'was' if len(left) == 1 else 'were'} given for {left[0].origin or 'another place'}, so nothing sends "
                f"{'it' if len(left) == 1 else 'them'} to {origin_of(obj.base_url)}. Add a key of the new place, or replace "
                "these, before you publish.",
            )
        return super().response_change(request, obj)

    @display(description="state", label={"in use": "success", "paused": "warning", "archived": "default"})
    def state(self, provider: Provider) -> str:
        if provider.archived_at is not None:
            return "archived"
        return "paused" if provider.paused_at is not None else "in use"

    @display(description="kind", ordering="kind")
    def kind_in_words(self, provider: Provider) -> str:
        return provider.get_kind_display()

    @display(description="keys in use")
    def keys_in_use(self, provider: Provider) -> int:
        return sum(credential.state == "active" for credential in provider.credentials.all())

    @admin_action(
        label="Pause",
        question="Send nothing to {obj} from now on? Routes use their other targets and fallbacks.",
        form=PauseForm,
        danger=True,
        available=lambda provider: provider.paused_at is None and provider.archived_at is None,
    )
    def pause(self, request: HttpRequest, actor: Actor, obj: Provider, data: dict[str, Any]) -> str:
        services.pause_provider(actor, provider=obj, **data)
        return f"{obj} is paused; data planes follow within a second."

    @admin_action(
        label="Resume",
        question="Send calls to {obj} again?",
        form=ReasonForm,
        available=lambda provider: provider.paused_at is not None,
    )
    def resume(self, request: HttpRequest, actor: Actor, obj: Provider, data: dict[str, Any]) -> str:
        services.resume_provider(actor, provider=obj, **data)
        return f"{obj} is in use again."

    @admin_action(
        label="Archive",
        question="Put {obj} away? It is left out of what is published next.",
        available=lambda provider: provider.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Provider, data: dict[str, Any]) -> str:
        services.archive_provider(actor, provider=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Bring {obj} back?",
        available=lambda provider: provider.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Provider, data: dict[str, Any]) -> str:
        services.unarchive_provider(actor, provider=obj)
        return f"{obj} is back as a draft."
