"""Form fields that the admin pages of several rooms use."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSplitDateTimeWidget, UnfoldAdminTextareaWidget


class MomentField(forms.SplitDateTimeField):
    """A moment in UTC, as a date and a time, each of which says for itself what it is."""

    def __init__(self, *, label: str, **kwargs: Any) -> None:
        kwargs.setdefault("widget", UnfoldAdminSplitDateTimeWidget())
        super().__init__(label=label, **kwargs)
        what = label.removesuffix(" (UTC)")
        for widget, part in zip(self.widget.widgets, ("date", "time"), strict=True):
            widget.attrs["aria-label"] = f"{what}: {part} in UTC"
            if self.required:
                widget.attrs["aria-required"] = "true"


class LinesField(forms.CharField):
    """A list of names, one a line."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("widget", UnfoldAdminTextareaWidget(attrs={"rows": 3, "spellcheck": "false"}))
        super().__init__(required=False, max_length=40_000, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [line.strip() for line in (super().to_python(value) or "").splitlines() if line.strip()]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.to_python(self.prepare_value(initial)) != self.to_python(data)

    def run_validators(self, value: Any) -> None:
        super().run_validators("\n".join(value))
