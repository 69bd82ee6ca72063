"""Who is told, and by which way."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from llmops.alerts import services
from llmops.alerts.channels import CHANNELS, channel_named
from llmops.alerts.models import SEVERITIES, Channel
from llmops.base.admin import ServiceAdmin, admin_action
from llmops.base.admin_actions import back_to
from llmops.base.form_fields import LinesField
from llmops.base.mail import mail_note
from llmops.core.actors import Actor

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


class QuietField(forms.CharField):
    """``22:00-07:00`` as two numbers of minutes, or two None."""

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return "" if None in value else "-".join(f"{one // 60:02}:{one % 60:02}" for one in value)
        return value

    def clean(self, value: Any) -> tuple[int | None, int | None]:
        text = super().clean(value).replace(" ", "")
        if not text:
            return None, None
        ends = [_CLOCK.fullmatch(part) for part in text.replace("–", "-").split("-")]
        if len(ends) != 2 or not all(ends):
            raise forms.ValidationError("Write the beginning and the end, such as 22:00-07:00.")
        start, end = (int(one[1]) * 60 + int(one[2]) for one in ends if one)
        return start, end


class ChannelForm(forms.ModelForm):
    kind = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    severities = forms.MultipleChoiceField(
        choices=SEVERITIES,
        initial=[name for name, _ in SEVERITIES],
        widget=forms.CheckboxSelectMultiple,
        label="Hears of what is",
    )
    addresses = LinesField(label="E-mail addresses", help_text="One a line.")
    url = forms.CharField(
        label="Address",
        required=False,
        max_length=1000,
        widget=UnfoldAdminTextInputWidget(
            attrs={"inputmode": "url", "spellcheck": "false", "autocomplete": "off"}
        ),
        help_text="Of the webhook. That of a chat is a secret: only its host is shown afterwards.",
    )
    quiet = QuietField(
        label="Quiet hours",
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Such as 22:00-07:00. What is critical is told all the same; the rest when they are over, if it is still there.",
    )

    class Meta:
        model = Channel
        fields = ("slug", "project", "allow_private_network", "after_minutes", "timezone", "enabled")
        labels = {
            "slug": "Name",
            "allow_private_network": "It is on a private network",
            "after_minutes": "Only if nobody acknowledged for (minutes)",
            "timezone": "Time zone of quiet hours",
            "enabled": "Switched on",
        }
        help_texts = {"after_minutes": "0: at once. More makes it an escalation."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            # Declared, so it would be asked for; what kind it is does not change.
            self.fields.pop("kind", None)
        if isinstance(field := self.fields.get("kind"), forms.ChoiceField):
            field.choices = [(name, channel_named(name).title) for name in CHANNELS]
        if (told := self.fields.get("addresses")) is not None:
            told.help_text = f"{told.help_text} {mail_note()}".strip()
        if not self.instance._state.adding:
            row = self.instance
            shown = {"severities": row.severities, "addresses": row.addresses, "url": row.url}
            self.initial.update({**shown, "quiet": (row.quiet_from, row.quiet_to)})

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if not self.errors:
            data["quiet_from"], data["quiet_to"] = data["quiet"]
        return data


@admin.register(Channel)
class ChannelAdmin(ServiceAdmin):
    view_permission, manage_permission = "alert.view", "alert.manage"
    form = ChannelForm
    list_display = ("slug", "way", "to", "hears", "project", "stands")
    list_filter = ("kind", "enabled")
    list_select_related = ("project",)
    search_fields = ("slug",)
    actions_detail = ("send_test", "rotate_secret", "archive", "restore")
    _names = (
        "project", "severities", "addresses", "url", "allow_private_network", "after_minutes", "quiet_from", "quiet_to",
        "timezone", "enabled",
    )  # fmt: skip
    _given = (
        ("Where", {"fields": ("addresses", "url", "allow_private_network")}),
        ("Of what, and when", {"fields": ("severities", "project", "after_minutes", "quiet", "timezone", "enabled")}),
    )  # fmt: skip
    fieldsets = ((None, {"fields": ("slug", "kind")}), *_given)
    _shown = ("slug", "way", "to", "hears", "project", "stands")

    def get_fieldsets(self, request: HttpRequest, obj: Channel | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        if not self.has_change_permission(request, obj):
            return ((None, {"fields": self._shown}),)
        return ((None, {"fields": ("slug", "way")}), *self._given)

    def get_readonly_fields(self, request: HttpRequest, obj: Channel | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("slug", "way") if self.has_change_permission(request, obj) else self._shown

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Channel:
        made, _ = services.create_channel(
            actor, slug=data["slug"], kind=data["kind"], **{name: data[name] for name in self._names}
        )
        return made

    def update(self, actor: Actor, obj: Channel, data: dict[str, Any]) -> Channel:
        return services.update_channel(actor, channel=obj, **{name: data[name] for name in self._names})

    @display(description="way")
    def way(self, channel: Channel) -> str:
        return channel_named(channel.kind).title

    @display(description="to")
    def to(self, channel: Channel) -> str:
        return ", ".join(channel.addresses) or channel.url or "-"

    @display(description="hears of")
    def hears(self, channel: Channel) -> str:
        said = ", ".join(channel.severities)
        return said + (f", after {channel.after_minutes} min" if channel.after_minutes else "")

    @display(description="state", label={"on": "success", "off": "warning", "archived": "danger"})
    def stands(self, channel: Channel) -> str:
        return "archived" if channel.archived_at else "on" if channel.enabled else "off"

    @admin_action(
        label="Send a test",
        question="Send a message to {obj} that says that it is a test?",
        available=lambda channel: channel.archived_at is None,
    )
    def send_test(self, request: HttpRequest, actor: Actor, obj: Channel, data: dict[str, Any]) -> str:
        problem = services.try_channel(actor, channel=obj)
        return f"It did not arrive: {problem}" if problem else "It was taken. Look whether it arrived."

    @admin_action(
        label="New signing secret",
        question="Make a new secret that signs what {obj} gets? It is shown once; the one before ends at once.",
        available=lambda channel: (
            channel.archived_at is None and channel_named(channel.kind).sealing == "signs"
        ),
    )
    def rotate_secret(
        self, request: HttpRequest, actor: Actor, obj: Channel, data: dict[str, Any]
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"The signing secret of {obj}",
            "channel": obj,
            "secret": services.rotate_secret(actor, channel=obj),
            "next": back_to(self, obj),
        }
        return TemplateResponse(
            request, "alerts/secret_once.html", context, headers={"Cache-Control": "no-store"}
        ).render()

    @admin_action(
        label="Archive",
        question="Put {obj} away? Nobody is told by it any more.",
        available=lambda channel: channel.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Channel, data: dict[str, Any]) -> str:
        services.archive_channel(actor, channel=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Have {obj} tell people again?",
        available=lambda channel: channel.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Channel, data: dict[str, Any]) -> str:
        services.restore_channel(actor, channel=obj)
        return f"{obj} tells people again."
