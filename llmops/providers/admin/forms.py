"""Forms and fields that several pages of this room use."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from llmops.core.errors import InvalidRequest
from llmops.core.money import format_usd, parse_usd
from llmops.providers.rules import CAPABILITIES


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Goes into the audit trail.",
    )


class PauseForm(forms.Form):
    reason = forms.CharField(
        max_length=300,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Callers and on-call read it, and it goes into the audit trail.",
    )


class UsdField(forms.CharField):
    """An amount of USD as text; nanodollars inside."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault(
            "widget", UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "placeholder": "2.50"})
        )
        super().__init__(max_length=30, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return format_usd(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> int | None:
        text = super().clean(value)
        if not text:
            return None
        try:
            return parse_usd(text, field=str(self.label or "amount"))
        except InvalidRequest as refused:
            raise forms.ValidationError(refused.message) from None


class JsonObjectField(forms.JSONField):
    """A JSON object, empty for none."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", UnfoldAdminTextareaWidget(attrs={"rows": 3, "spellcheck": "false"}))
        super().__init__(required=False, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        if value is None:
            return ""
        if isinstance(value, dict):
            return json.dumps(value, indent=2, ensure_ascii=False) if value else ""
        return super().prepare_value(value)

    def clean(self, value: Any) -> dict[str, Any]:
        found = super().clean(value)
        if found in (None, ""):
            return {}
        if not isinstance(found, dict):
            raise forms.ValidationError('Write a JSON object, such as {"temperature": 0}.')
        return found


class CapabilitiesField(forms.MultipleChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            choices=[(name, name.replace("_", " ")) for name in CAPABILITIES],
            required=False,
            widget=UnfoldAdminCheckboxSelectMultipleWidget,
            **kwargs,
        )
