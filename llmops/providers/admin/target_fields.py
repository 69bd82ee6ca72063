"""Targets and fallbacks of a route as rows of one form, so that a change of them is one change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget

from llmops.providers.models import Model

#: Empty rows below those in use; after saving there are as many again.
SPARE_ROWS = 3
MOST_ROWS = 60


class RowsWidget(forms.Widget):
    """Rows of a model and, for targets, a weight. Sent as ``<name>-<row>-model`` and ``<name>-<row>-weight``."""

    template_name = "providers/widgets/rows.html"

    def __init__(self, *, weighted: bool) -> None:
        super().__init__()
        self.weighted = weighted
        self.choices: Sequence[tuple[str, str]] = ()

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        rows = list(value or [])
        rows += [("", 100)] * min(SPARE_ROWS, MOST_ROWS - len(rows))
        model = UnfoldAdminSelectWidget(choices=[("", "no model"), *self.choices])
        weight = UnfoldAdminIntegerFieldWidget()
        first = (attrs or {}).get("id") or f"id_{name}"
        context["weighted"] = self.weighted
        context["rows"] = [
            {
                "model": model.render(
                    f"{name}-{index}-model",
                    chosen,
                    {
                        "id": first if index == 0 else f"{first}-{index}",
                        "aria-label": f"{name[:-1].capitalize()} {index + 1}",
                    },
                ),
                "weight": weight.render(
                    f"{name}-{index}-weight",
                    share,
                    {
                        "id": f"{first}-{index}-weight",
                        "aria-label": f"Weight of target {index + 1}",
                        "min": 0,
                        "max": 1_000_000,
                    },
                )
                if self.weighted
                else "",
            }
            for index, (chosen, share) in enumerate(rows)
        ]
        return context

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[tuple[str, str]]:
        rows = []
        for index in range(MOST_ROWS):
            if f"{name}-{index}-model" in data:
                rows.append((data[f"{name}-{index}-model"], data.get(f"{name}-{index}-weight", "100")))
        return [row for row in rows if row[0]]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return f"{name}-0-model" not in data


class RowsField(forms.Field):
    """``[(Model, weight)]`` for targets, ``[Model]`` for fallbacks in their order."""

    def __init__(self, *, weighted: bool, **kwargs: Any) -> None:
        self.weighted = weighted
        super().__init__(required=False, widget=RowsWidget(weighted=weighted), **kwargs)

    def get_bound_field(self, form: Any, field_name: str) -> Any:
        models = Model.objects.order_by("slug").values_list("slug", "archived_at")
        self.widget.choices = [
            (slug, slug if archived is None else f"{slug} (archived)") for slug, archived in models
        ]
        return super().get_bound_field(form, field_name)

    def clean(self, value: Any) -> list[Any]:
        rows = list(value or [])
        models = Model.objects.in_bulk([slug for slug, _ in rows], field_name="slug")
        cleaned = []
        for index, (slug, weight) in enumerate(rows, start=1):
            if slug not in models:
                raise forms.ValidationError(f"Row {index}: there is no such model.")
            text = str(weight).strip() or "100"
            if not text.isdecimal() or int(text) > 1_000_000:
                raise forms.ValidationError(f"Row {index}: a weight is a whole number from 0 to 1000000.")
            cleaned.append((models[slug], int(text)))
        return cleaned if self.weighted else [model for model, _ in cleaned]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return [(str(slug), str(weight)) for slug, weight in initial or []] != [
            (str(slug), str(weight)) for slug, weight in data or []
        ]
