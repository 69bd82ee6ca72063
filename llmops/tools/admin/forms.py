"""The form of a tool: its definition, field by field."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.conf import settings
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from llmops.base.form_fields import LinesField
from llmops.core.errors import InvalidRequest
from llmops.tools import rules
from llmops.tools.models import Tool
from llmops.tools.services.tools import checked_definition

_MONO = {
    "spellcheck": "false",
    "style": "font-family: var(--mono, monospace); font-size: 0.8125rem",
}
_START = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
_ARROW = "=>"
_EXECUTORS = [
    ("webhook", "The console, with a signed request to a service"),
    ("python", "The console, with a function of this installation"),
    (rules.SERVICE, "The service that asks, with a token that works once"),
]


class JsonField(forms.CharField):
    """A JSON object as text."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", UnfoldAdminTextareaWidget(attrs={"rows": 12, **_MONO}))
        super().__init__(max_length=200_000, strip=True, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict) else value

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as wrong:
            raise forms.ValidationError(f"This is not JSON: {wrong}.") from None
        if not isinstance(found, dict):
            raise forms.ValidationError("A JSON object is needed.")
        return found


class ToolForm(forms.ModelForm):
    """A tool as its newest version has it; saving another definition adds a version."""

    description = forms.CharField(
        max_length=1000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="What the model is told that the tool does.",
    )
    says = forms.CharField(
        label="In words",
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="How a reviewer reads a call: Refund {amount} USD to {customer.name}.",
    )
    parameters = JsonField(label="Arguments", initial=_START, help_text="Their JSON Schema.")
    risk = forms.ChoiceField(
        choices=[(risk, f"{risk.capitalize()}: {words}") for risk, words in rules.RISK_WORDS.items()],
        initial=rules.DESTRUCTIVE,
        widget=UnfoldAdminSelectWidget,
    )
    rules = LinesField(
        label="Raised by",
        help_text="One a line: amount > 1000 => destructive, environment = production => irreversible. What cannot be told from "
        "the arguments counts as holding.",
    )
    approvals = LinesField(
        label="People who must agree",
        help_text="One a line, where it is not as usual (destructive 1, irreversible 2): write: 1",
    )
    approve_within_s = forms.IntegerField(
        label="Open for (seconds)", initial=86_400, widget=UnfoldAdminIntegerFieldWidget()
    )
    carried_out_by = forms.ChoiceField(
        choices=_EXECUTORS, initial="webhook", widget=UnfoldAdminSelectWidget, label="Carried out by"
    )
    url = forms.CharField(
        label="Address of the webhook",
        required=False,
        max_length=1000,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "url", "spellcheck": "false"}),
    )
    allow_private_network = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        label="It is on a private network",
        help_text="Otherwise no address of the console's own surroundings is spoken to.",
    )
    function = forms.ChoiceField(required=False, widget=UnfoldAdminSelectWidget)
    timeout_s = forms.IntegerField(
        label="Time-out (seconds)", initial=30, widget=UnfoldAdminIntegerFieldWidget()
    )
    concurrency = forms.IntegerField(label="At once", initial=4, widget=UnfoldAdminIntegerFieldWidget())
    callers = LinesField(
        label="Who may call", help_text="Names of service keys, one a line; empty: every key of the project."
    )
    dry_run = forms.BooleanField(
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        label="It knows dry runs",
        help_text='It looks at "dry_run" and then does nothing, so that it can be tested from here.',
    )
    note = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="What this version changes, and why.",
    )

    class Meta:
        model = Tool
        fields = ("project", "slug")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "function" in self.fields:
            known: Any = self.fields["function"]
            known.choices = [("", "none"), *((name, name) for name in settings.TOOL_FUNCTIONS)]
        current = self.instance.current if self.instance.current_id else None
        if current is not None:
            for name, value in _shown(current.definition).items():
                self.initial.setdefault(name, value)

    def _get_validation_exclusions(self) -> set[str]:
        # A name that is taken is for the service to say, which says it at the name.
        return {*super()._get_validation_exclusions(), "project"}  # type: ignore[misc]

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return data
        try:
            data["definition"] = checked_definition(_definition(data))
        except InvalidRequest as refused:
            param = (refused.param or "").removeprefix("definition.").removeprefix("settings.")
            name = param.partition("[")[0].partition(".")[0]
            name = "carried_out_by" if name == "executor" else name
            told = refused.message.removeprefix(f"{refused.param}: ")
            self.add_error(name if name in self.fields else None, told[:1].upper() + told[1:])
        return data


def _shown(definition: dict[str, Any]) -> dict[str, Any]:
    return {
        **{
            name: definition[name]
            for name in (
                "description", "says", "parameters", "risk", "approve_within_s", "timeout_s", "concurrency", "callers", "dry_run",
            )
        },
        "rules": [f"{rule['when']} {_ARROW} {rule['risk']}" for rule in definition["rules"]],
        "approvals": [f"{risk}: {number}" for risk, number in definition["approvals"].items()],
        "carried_out_by": definition["executor"] or rules.SERVICE,
        **definition["settings"],
    }  # fmt: skip


def _definition(data: dict[str, Any]) -> dict[str, Any]:
    by = data["carried_out_by"]
    own: dict[str, Any] = {"execution": rules.SERVICE}
    if by == "webhook":
        own = {
            "executor": by,
            "settings": {"url": data["url"], "allow_private_network": data["allow_private_network"]},
        }
    elif by == "python":
        own = {"executor": by, "settings": {"function": data["function"]}}
    return {
        **{
            name: data[name]
            for name in (
                "description", "says", "parameters", "risk", "approve_within_s", "timeout_s", "concurrency", "callers", "dry_run",
            )
        },
        "rules": [_rule(number, line) for number, line in enumerate(data["rules"])],
        "approvals": dict(_approval(line) for line in data["approvals"]),
        **own,
    }  # fmt: skip


def _rule(number: int, line: str) -> dict[str, str]:
    when, arrow, risk = line.rpartition(_ARROW)
    if not arrow:
        raise InvalidRequest(
            f"rules: line {number + 1}: write condition {_ARROW} class, as in: amount > 1000 {_ARROW} destructive.",
            param="rules",
        )
    return {"when": when.strip(), "risk": risk.strip()}


def _approval(line: str) -> tuple[str, int]:
    risk, _, number = line.partition(":")
    if not number.strip().isdecimal() or len(number.strip()) > 3:
        raise InvalidRequest("approvals: write class: number, as in: write: 1.", param="approvals")
    return risk.strip(), int(number)


class ArgumentsForm(forms.Form):
    arguments = JsonField(initial={}, help_text="As the model would give them.")


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Goes into the audit trail.",
    )
