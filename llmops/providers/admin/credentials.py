"""Provider keys: they can be written, never read."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from llmops.base.admin import ServiceAdmin, admin_action
from llmops.core.actors import Actor
from llmops.core.errors import UnprocessableEntity
from llmops.providers import services
from llmops.providers.admin.forms import ReasonForm
from llmops.providers.models import Credential
from llmops.providers.rules import CREDENTIAL_SOURCES
from llmops.providers.secret_stores import STORES
from llmops.providers.selectors import (
    age_of,
    due_after,
    heard_of,
    rotation_of,
    troubles_of,
    with_troubles,
)

_SOURCES = [(name, label) for name, label in CREDENTIAL_SOURCES if name == "sealed" or name in STORES]


class SecretFields(forms.Form):
    source = forms.ChoiceField(
        choices=_SOURCES, initial="sealed", widget=UnfoldAdminSelectWidget, label="Where the key is"
    )
    secret = forms.CharField(
        required=False,
        strip=True,
        max_length=10_000,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        label="Key",
        help_text="For a key that is kept here. It can be replaced later, never read.",
    )
    reference = forms.CharField(
        required=False,
        max_length=300,
        widget=UnfoldAdminTextInputWidget(),
        help_text="For the other places: the name of an environment variable of the data plane, the path of a file, in Vault "
        "path#field such as kv/openai#key, in AWS the name or ARN of the secret, with #field where it holds JSON.",
    )


class CredentialForm(SecretFields, forms.ModelForm):
    class Meta:
        model = Credential
        fields = ("provider", "name", "source", "reference")


class RotateForm(SecretFields):
    keep_minutes = forms.IntegerField(
        min_value=0,
        max_value=7 * 24 * 60,
        initial=15,
        widget=UnfoldAdminIntegerFieldWidget(),
        label="Minutes for which the old key is kept at least",
        help_text="So long it can be put back, by you or by itself when the new one is refused.",
    )
    deadline_hours = forms.IntegerField(
        min_value=1,
        max_value=30 * 24,
        initial=24,
        widget=UnfoldAdminIntegerFieldWidget(),
        label="Hours after which the old key is revoked in any case",
        help_text="Batches take up to a day; what is left then goes on with the new key.",
    )
    by_itself = forms.BooleanField(
        required=False,
        initial=True,
        widget=UnfoldBooleanSwitchWidget(),
        label="Revoke the old key by itself, when nothing uses it any more",
    )
    unprobed_reason = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        label="Why it is staged untried",
        help_text="Leave empty to try the new key with a real call: if it does not work, nothing changes.",
    )
    reason = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Goes into the audit trail.",
    )


class RemindForm(forms.Form):
    days = forms.IntegerField(
        min_value=0,
        max_value=3_650,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget(),
        label="Days after which it is due",
        help_text="Empty: as the installation has it (CONSOLE_PROVIDER_KEY_DAYS). 0: never.",
    )


class ActivateForm(forms.Form):
    unprobed_reason = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        label="Why it is used unprobed",
        help_text="Only for a key that was never seen working; goes into the audit trail.",
    )


def _state_in(*states: str) -> Any:
    return lambda credential: credential.state in states


@admin.register(Credential)
class CredentialAdmin(ServiceAdmin):
    view_permission, manage_permission = "provider.view", "provider.manage"
    project_path = None
    form = CredentialForm
    list_display = (
        "name",
        "provider",
        "state_in_words",
        "readable",
        "kept",
        "fingerprint",
        "age",
        "last_used_at",
    )
    list_filter = ("state", "provider")
    list_select_related = ("provider",)
    search_fields = ("name", "provider__slug", "fingerprint")
    actions_detail = (
        "rotate",
        "probe",
        "activate",
        "read_again",
        "replace",
        "drain",
        "remind",
        "revoke",
    )
    _shown = (
        "provider",
        "name",
        "state_in_words",
        "trouble",
        "rotation",
        "kept",
        "fingerprint",
        "origin",
        "state_changed_at",
        "age",
        "last_probe_at",
        "last_probe_result",
        "last_used_at",
        "last_failure_at",
        "last_failure",
        "history",
    )

    def get_fields(self, request: HttpRequest, obj: Credential | None = None) -> tuple[str, ...]:
        return ("provider", "name", "source", "secret", "reference") if obj is None else self._shown

    def get_readonly_fields(self, request: HttpRequest, obj: Credential | None = None) -> tuple[str, ...]:
        return () if obj is None else self._shown

    def get_queryset(self, request: HttpRequest) -> QuerySet[Credential]:
        return with_troubles(super().get_queryset(request))

    def create(self, actor: Actor, data: dict[str, Any]) -> Credential:
        return services.add_credential(actor, **data)

    @display(
        description="state",
        ordering="state",
        label={
            "Staged": "info",
            "Probed": "info",
            "Active": "success",
            "Draining": "warning",
            "Revoked": "danger",
        },
    )
    def state_in_words(self, credential: Credential) -> str:
        return credential.get_state_display()

    @display(description="data planes", label={"cannot read it": "danger", "read it": "success"})
    def readable(self, credential: Credential) -> str:
        if credential.state not in ("active", "draining"):
            return ""
        return "cannot read it" if troubles_of(credential) else "read it"

    @display(description="trouble")
    def trouble(self, credential: Credential) -> str:
        """Which data planes cannot read the key, and why."""
        found = troubles_of(credential)
        if not found:
            return "none"
        return format_html_join(
            "",
            '<p>A data plane on {} cannot read this key since <time datetime="{}" data-as="moment">{}</time>. {}</p>',
            (
                (one.host, one.since.isoformat(), one.since.strftime("%Y-%m-%d %H:%M UTC"), one.reason)
                for one in found
            ),
        )

    @display(description="what its provider said")
    def history(self, credential: Credential) -> str:
        """Refusals, and when it was accepted again: the last ones."""
        found = heard_of(credential)
        if not found:
            return "nothing"
        return format_html_join(
            "",
            '<p><time datetime="{}">{}</time> {} {}</p>',
            (
                (
                    one.at.isoformat(),
                    one.at.strftime("%Y-%m-%d %H:%M:%S UTC"),
                    one.get_kind_display().lower(),
                    f"({one.text})" if one.text else "",
                )
                for one in found
            ),
        )

    @display(description="kept")
    def kept(self, credential: Credential) -> str:
        if credential.source == "sealed":
            return "here, encrypted" if credential.sealed else "wiped"
        return f"{credential.source}:{credential.reference}"

    @display(description="age", ordering="set_at")
    def age(self, credential: Credential) -> str:
        """Days since the key was set, and whether it is due."""
        days, after = age_of(credential, timezone.now()), due_after(credential)
        if credential.state == "revoked":
            return ""
        told = f"{days:,} {'day' if days == 1 else 'days'}"
        if after is None or credential.provider.kind == "simulator":
            return told
        return f"{told}, due to be rotated" if days >= after else f"{told} (due after {after:,})"

    @display(description="rotation")
    def rotation(self, credential: Credential) -> str:
        """The rotation under way in which it takes part."""
        found = rotation_of(credential)
        if found is None:
            return "none"
        address = reverse(f"{self.admin_site.name}:providers_rotation_change", args=[found.pk])
        return format_html('<a href="{}">{}</a>', address, f"{found}: {found.get_state_display()}")

    @admin_action(
        label="Rotate",
        question="Put a new key in the place of {obj} without a failed call? It is tried first; you then decide when it is "
        "used, and the old one ends when nothing uses it any more.",
        form=RotateForm,
        available=lambda credential: credential.state == "active" and rotation_of(credential) is None,
    )
    def rotate(
        self, request: HttpRequest, actor: Actor, obj: Credential, data: dict[str, Any]
    ) -> HttpResponse:
        rotation = services.begin_rotation(actor, credential=obj, **data)
        messages.success(
            request,
            f"{rotation.probe_result or 'The new key is staged, untried.'} Nothing uses it yet: go on below.",
        )
        return HttpResponseRedirect(
            reverse(f"{self.admin_site.name}:providers_rotation_change", args=[rotation.pk])
        )

    @admin_action(
        label="Remind",
        question="When is {obj} due to be rotated? Overview and an e-mail then say so.",
        form=RemindForm,
        available=_state_in("staged", "probed", "active", "draining"),
    )
    def remind(self, request: HttpRequest, actor: Actor, obj: Credential, data: dict[str, Any]) -> str:
        services.remind_after(actor, credential=obj, **data)
        return f"{obj}: noted."

    @admin_action(
        label="Read again",
        question="Have every process read {obj} from its store again? Do so when the secret changed there.",
        available=lambda credential: credential.source != "sealed" and credential.state != "revoked",
    )
    def read_again(self, request: HttpRequest, actor: Actor, obj: Credential, data: dict[str, Any]) -> str:
        services.read_again(actor, credential=obj)
        return f"{obj} is read again by every process, within a second."

    @admin_action(
        label="Probe",
        question="Try {obj} with a real, small call? It takes at most 15 seconds.",
        available=_state_in("staged", "probed", "active", "draining"),
    )
    def probe(self, request: HttpRequest, actor: Actor, obj: Credential, data: dict[str, Any]) -> str:
        credential = services.probe_credential(actor, credential=obj)
        if credential.last_failure:
            # What was tried is on record; the page says it where the button was pressed.
            raise UnprocessableEntity(f"{credential}: {credential.last_probe_result}")
        return f"{credential}: {credential.last_probe_result}"

    @admin_action(
        label="Activate",
        question="Use {obj} from now on? Data planes follow within a second.",
        form=ActivateForm,
        available=_state_in("staged", "probed", "draining"),
    )
    def activate(self, request: HttpRequest, actor: Actor, obj: Credential, data: dict[str, Any]) -> str:
        services.activate_credential(actor, credential=obj, **data)
        return f"{obj} is in use."

    @admin_action(
        label="Replace",
        question="Put another key in the place of {obj}? If it is in use, the new one is used at once, untried. "
        "To try a key first, add it as a second one instead.",
        form=SecretFields,
        danger=True,
        available=_state_in("staged", "probed", "active", "draining"),
    )
    def replace(self, request: HttpRequest, actor: Actor, obj: Credential, data: dict[str, Any]) -> str:
        services.replace_secret(actor, credential=obj, **data)
        return f"{obj} was replaced."

    @admin_action(
        label="Drain",
        question="Start no more calls on {obj} while another key is in use? Calls under way finish on it.",
        form=ReasonForm,
        available=_state_in("active"),
    )
    def drain(self, request: HttpRequest, actor: Actor, obj: Credential, data: dict[str, Any]) -> str:
        services.drain_credential(actor, credential=obj, **data)
        return f"{obj} is draining."

    @admin_action(
        label="Revoke",
        question="Never use {obj} again? A key that is kept here is wiped. This cannot be undone.",
        form=ReasonForm,
        danger=True,
        available=_state_in("staged", "probed", "active", "draining"),
    )
    def revoke(self, request: HttpRequest, actor: Actor, obj: Credential, data: dict[str, Any]) -> str:
        services.revoke_credential(actor, credential=obj, **data)
        return f"{obj} is revoked."
