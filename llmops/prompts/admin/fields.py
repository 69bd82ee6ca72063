"""Fields of the editor: variables as rows, and parts that are written as YAML or JSON."""

from __future__ import annotations

import json
from typing import Any

import yaml
from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from llmops.policies.settings_text import read_settings, write_settings
from llmops.prompts.variables import (
    BOOLEAN,
    CHOICE,
    INTEGER,
    LIST,
    MOST_VARIABLES,
    NUMBER,
    OBJECT,
    TEXT,
    TYPES,
)

SPARE_ROWS = 1
PARTS = ("name", "type", "required", "trusted", "default", "least", "most", "choices", "description")
TYPE_WORDS = {
    TEXT: "text",
    INTEGER: "whole number",
    NUMBER: "number",
    BOOLEAN: "yes or no",
    CHOICE: "one of a list",
    LIST: "list",
    OBJECT: "object",
}
#: What the two limits of a row are called in a declaration.
LIMITS = {
    TEXT: ("min_length", "max_length"),
    INTEGER: ("minimum", "maximum"),
    NUMBER: ("minimum", "maximum"),
    BOOLEAN: ("", ""),
    CHOICE: ("", ""),
    LIST: ("", "max_items"),
    OBJECT: ("", "max_length"),
}
MONO = {"style": "font-family: var(--mono, monospace); font-size: 0.8125rem", "spellcheck": "false"}
Row = dict[str, str]


def as_row(declared: Any) -> Row:
    """A declaration as a row; of one that is not right yet, what there is of it."""
    if not isinstance(declared, dict):
        return dict.fromkeys(PARTS, "")
    kind = declared.get("type", TEXT)
    least, most = LIMITS.get(kind, ("", ""))
    default = declared.get("default")
    if default is None or isinstance(default, str):
        shown = default or ""
    else:
        shown = json.dumps(default, ensure_ascii=False)
    choices = declared.get("choices") or ()
    return {
        "name": str(declared.get("name", "")),
        "type": kind,
        "required": "on" if declared.get("required", True) else "",
        "trusted": "on" if declared.get("trusted") else "",
        "default": shown,
        "least": str(declared.get(least, "")) if least else "",
        "most": str(declared.get(most, "")) if most else "",
        "choices": "\n".join(map(str, choices)) if isinstance(choices, list | tuple) else str(choices),
        "description": str(declared.get("description", "")),
    }


def declared_of(row: Row) -> dict[str, Any]:
    """A row as a declaration, right or not: whoever makes a version of it says what is wrong."""
    kind = row["type"] or TEXT
    found: dict[str, Any] = {"name": row["name"].strip(), "type": kind}
    if not row["required"]:
        found["required"] = False
    if row["trusted"]:
        found["trusted"] = True
    if row["default"].strip():
        found["default"] = row["default"] if kind in (TEXT, CHOICE) else _value(row["default"])
    for name, text in zip(LIMITS.get(kind, ("", "")), (row["least"], row["most"]), strict=True):
        if name and text.strip():
            found[name] = _value(text)
    if kind == CHOICE:
        found["choices"] = [line.strip() for line in row["choices"].splitlines() if line.strip()]
    if row["description"].strip():
        found["description"] = row["description"].strip()
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


class VariablesWidget(forms.Widget):
    """Rows sent as ``<name>-<row>-name``, ``-type`` and so on; a row without a name is none."""

    template_name = "prompts/widgets/variables.html"

    class Media:
        js = ("console/prompt-editor.js",)
        css = {"all": ("console/prompts.css",)}

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        rows = list(value or [])
        spare = min(SPARE_ROWS, max(0, MOST_VARIABLES - len(rows)))
        rows += [{**dict.fromkeys(PARTS, ""), "type": TEXT, "required": "on"}] * spare
        first = (attrs or {}).get("id") or f"id_{name}"
        context["rows"] = [self._rendered(name, first, index, row) for index, row in enumerate(rows)]
        context["blank"] = self._rendered(
            name, first, "__row__", {**dict.fromkeys(PARTS, ""), "type": TEXT, "required": "on"}
        )
        return context

    def _rendered(self, name: str, first: str, index: int | str, row: Row) -> dict[str, Any]:
        number = index + 1 if isinstance(index, int) else "__number__"
        base = first if index == 0 else f"{first}-{index}"

        def text(part: str, label: str, **more: Any) -> str:
            found: str = UnfoldAdminTextInputWidget().render(
                f"{name}-{index}-{part}",
                row[part],
                {
                    "id": base if part == "name" else f"{base}-{part}",
                    "data-variable-part": part,
                    "autocomplete": "off",
                    **more,
                },
            )
            return found

        return {
            "number": number,
            "base": base,
            "name": text("name", "Name", spellcheck="false"),
            "type": UnfoldAdminSelectWidget(choices=[(kind, TYPE_WORDS[kind]) for kind in TYPES]).render(
                f"{name}-{index}-type", row["type"], {"id": f"{base}-type", "data-variable-part": "type"}
            ),
            "required": bool(row["required"]),
            "trusted": bool(row["trusted"]),
            "required_name": f"{name}-{index}-required",
            "trusted_name": f"{name}-{index}-trusted",
            "default": text("default", "Default"),
            "least": text("least", "At least", inputmode="numeric"),
            "most": text("most", "At most", inputmode="numeric"),
            "choices": UnfoldAdminTextareaWidget().render(
                f"{name}-{index}-choices",
                row["choices"],
                {"id": f"{base}-choices", "rows": 3, "data-variable-part": "choices"},
            ),
            "description": text("description", "Description"),
        }

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[Row]:
        rows = []
        for index in range(MOST_VARIABLES + SPARE_ROWS + 1):
            if f"{name}-{index}-name" in data:
                rows.append({part: str(data.get(f"{name}-{index}-{part}", "")) for part in PARTS})
        return [row for row in rows if row["name"].strip()]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return f"{name}-0-name" not in data


class VariablesField(forms.Field):
    """Declarations, or None for no rows: then what the layers name is declared as text."""

    widget = VariablesWidget

    def prepare_value(self, value: Any) -> Any:
        return [row if isinstance(row, dict) and "least" in row else as_row(row) for row in value or []]

    def clean(self, value: Any) -> list[dict[str, Any]] | None:
        rows: list[Row] = list(value or [])
        return [declared_of({**row, "choices": row["choices"].replace("\r\n", "\n")}) for row in rows] or None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.prepare_value(initial) != self.prepare_value(data)


class SchemaField(forms.CharField):
    """A JSON Schema; empty for none."""

    widget = UnfoldAdminTextareaWidget

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False, strip=True, widget=UnfoldAdminTextareaWidget(attrs={"rows": 8, **MONO}), **kwargs
        )

    def prepare_value(self, value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False, indent=2) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        if not text:
            return None
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as wrong:
            where = f" (line {wrong.lineno})" if isinstance(wrong, json.JSONDecodeError) else ""
            raise forms.ValidationError(f"This is not JSON{where}.") from None
        if not isinstance(found, dict):
            raise forms.ValidationError("Give a JSON Schema as an object.")
        return found


class YamlField(forms.CharField):
    """Members as YAML, of which JSON is a part; empty for none."""

    def __init__(self, *, rows: int = 3, **kwargs: Any) -> None:
        super().__init__(
            required=False,
            strip=False,
            widget=UnfoldAdminTextareaWidget(attrs={"rows": rows, **MONO}),
            **kwargs,
        )

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return write_settings(value)
        return value

    def to_python(self, value: Any) -> Any:
        try:
            return read_settings((super().to_python(value) or "").replace("\r\n", "\n"))
        except ValueError as wrong:
            raise forms.ValidationError(f"{str(wrong).capitalize()}.") from None


class SamplesField(YamlField):
    """Samples as YAML: the name of each, with its variables."""

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, list):
            return _samples_text(value)
        return value

    def to_python(self, value: Any) -> Any:
        found = super().to_python(value)
        samples = []
        for name, variables in found.items():
            if not isinstance(variables, dict):
                raise forms.ValidationError(
                    f"{name}: write a value for each variable below the sample's name."
                )
            samples.append({"name": str(name), "variables": variables})
        return samples


def _samples_text(samples: list[Any]) -> str:
    told = {
        str(one.get("name") or f"sample {index}"): one.get("variables") or {}
        for index, one in enumerate(samples, start=1)
        if isinstance(one, dict)
    }
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=100) if told else ""
