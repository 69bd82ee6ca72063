"""Targets and fallbacks of a route as rows of one form, so that a change of them is one change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.conf import settings
from django.utils.module_loading import import_string
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget

from llmops.providers.models import Model
from llmops.providers.rules import FAILURE_CLASSES

#: Empty rows below those in use; after saving there are as many again.
SPARE_ROWS = 3
MOST_ROWS = 60


class RowsWidget(forms.Widget):
    """Rows of a model and beside it a weight (targets), a class of failure (fallbacks by class), or nothing.

    Sent as ``<name>-<row>-model`` and ``<name>-<row>-weight`` or ``<name>-<row>-class``.
    """

    template_name = "providers/widgets/rows.html"

    def __init__(
        self, *, weighted: bool = False, classed: bool = False, what: str = "", empty: str = "no model"
    ) -> None:
        super().__init__()
        self.what, self.empty = what, empty
        self.beside = "weight" if weighted else "class" if classed else ""
        self.spare: tuple[str, Any] = ("", "" if classed else 100)
        self.choices: Sequence[tuple[str, str]] = ()

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        rows = list(value or [])
        rows += [self.spare] * min(SPARE_ROWS, MOST_ROWS - len(rows))
        model = UnfoldAdminSelectWidget(choices=[("", self.empty), *self.choices])
        first = (attrs or {}).get("id") or f"id_{name}"
        what = self.what or name.replace("_for", "")[:-1].capitalize()
        context["beside"] = self.beside
        context["rows"] = [
            {
                "model": model.render(
                    f"{name}-{index}-model",
                    chosen,
                    {
                        "id": first if index == 0 else f"{first}-{index}",
                        "aria-label": f"{what} {index + 1}",
                    },
                ),
                "beside": self._beside(f"{name}-{index}", f"{first}-{index}", index, other),
            }
            for index, (chosen, other) in enumerate(rows)
        ]
        return context

    def _beside(self, name: str, identifier: str, index: int, value: Any) -> str:
        if self.beside == "weight":
            return UnfoldAdminIntegerFieldWidget().render(
                f"{name}-weight",
                value,
                {
                    "id": f"{identifier}-weight",
                    "aria-label": f"Weight of target {index + 1}",
                    "min": 0,
                    "max": 1_000_000,
                },
            )
        if self.beside == "class":
            return UnfoldAdminSelectWidget(choices=[("", "after which failure"), *FAILURE_CLASSES]).render(
                f"{name}-class",
                value,
                {"id": f"{identifier}-class", "aria-label": f"Failure before fallback {index + 1}"},
            )
        return ""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[tuple[str, str]]:
        rows = []
        for index in range(MOST_ROWS):
            if f"{name}-{index}-model" in data:
                other = data.get(f"{name}-{index}-{self.beside}", self.spare[1])
                rows.append((data[f"{name}-{index}-model"], other))
        return [row for row in rows if row[0]]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return f"{name}-0-model" not in data


class RowsField(forms.Field):
    """``[(Model, weight)]`` for targets, ``[Model]`` for fallbacks in their order, ``{class: [Model]}`` for those by class."""

    def __init__(self, *, weighted: bool, classed: bool = False, **kwargs: Any) -> None:
        self.weighted, self.classed = weighted, classed
        super().__init__(required=False, widget=RowsWidget(weighted=weighted, classed=classed), **kwargs)

    def get_bound_field(self, form: Any, field_name: str) -> Any:
        models = Model.objects.order_by("slug").values_list("slug", "archived_at")
        self.widget.choices = [
            (slug, slug if archived is None else f"{slug} (archived)") for slug, archived in models
        ]
        return super().get_bound_field(form, field_name)

    def clean(self, value: Any) -> Any:
        rows = list(value or [])
        models = Model.objects.in_bulk([slug for slug, _ in rows], field_name="slug")
        for index, (slug, _) in enumerate(rows, start=1):
            if slug not in models:
                raise forms.ValidationError(f"Row {index}: there is no such model.")
        if self.classed:
            return self._by_class([(models[slug], other) for slug, other in rows])
        if not self.weighted:
            return [models[slug] for slug, _ in rows]
        cleaned = []
        for index, (slug, weight) in enumerate(rows, start=1):
            text = str(weight).strip() or "100"
            if not text.isdecimal() or int(text) > 1_000_000:
                raise forms.ValidationError(f"Row {index}: a weight is a whole number from 0 to 1000000.")
            cleaned.append((models[slug], int(text)))
        return cleaned

    def _by_class(self, rows: list[tuple[Model, str]]) -> dict[str, list[Model]]:
        known = dict(FAILURE_CLASSES)
        found: dict[str, list[Model]] = {}
        for index, (model, name) in enumerate(rows, start=1):
            if name not in known:
                raise forms.ValidationError(f"Row {index}: choose the failure after which {model} is tried.")
            found.setdefault(name, []).append(model)
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        return [(str(slug), str(other)) for slug, other in initial or []] != [
            (str(slug), str(other)) for slug, other in data or []
        ]


class PoliciesField(forms.Field):
    """Names of policies in their order. Which there are says the room beside this one: ``settings.POLICY_NAMES``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=RowsWidget(what="Policy", empty="no policy"), **kwargs)

    def get_bound_field(self, form: Any, field_name: str) -> Any:
        names: list[str] = import_string(settings.POLICY_NAMES)()
        kept = [
            (name, f"{name} (archived)") for name in form.initial.get(field_name) or [] if name not in names
        ]
        self.widget.choices = [*((name, name) for name in names), *kept]
        return super().get_bound_field(form, field_name)

    def prepare_value(self, value: Any) -> Any:
        return [row if isinstance(row, tuple) else (row, "") for row in value or []]

    def clean(self, value: Any) -> list[str]:
        return [name for name, _ in value or []]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return list(initial or []) != self.clean(data)
