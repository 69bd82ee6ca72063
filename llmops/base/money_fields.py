"""Amounts of USD on forms and in the API: exact text outside, nanodollars inside."""

from __future__ import annotations

from typing import Any

from django import forms
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from unfold.widgets import UnfoldAdminTextInputWidget

from llmops.core.errors import InvalidRequest
from llmops.core.money import format_usd, parse_usd


class UsdFormField(forms.CharField):
    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"}))
        super().__init__(max_length=30, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return format_usd(value) if isinstance(value, int) else value

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text and not self.required:
            return None
        try:
            return parse_usd(text, field="amount")
        except InvalidRequest as refusal:
            raise forms.ValidationError(refusal.message.removeprefix("amount: ")) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(super().has_changed(self.prepare_value(initial), data))


@extend_schema_field(
    {
        "type": "string",
        "pattern": r"^-?\d+(\.\d{1,9})?$",
        "description": "USD, exact to a billionth.",
        "example": "0.001250",
    }
)
class UsdField(serializers.Field[int, Any, str, Any]):
    """An amount of USD as text, exact; nanodollars inside."""

    def to_internal_value(self, data: Any) -> int:
        return parse_usd(data, field=str(self.field_name))

    def to_representation(self, value: int) -> str:
        return format_usd(value)
