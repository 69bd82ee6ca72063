"""Checks of a policy as rows of one form, so that a change of them is one new version."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.forms import Script
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from llmops.core.errors import InvalidRequest
from llmops.core.verdicts import ACTIONS, ALLOW, STAGES
from llmops.policies.checks import CHECKS, describe
from llmops.policies.examples import EXAMPLES
from llmops.policies.rules import MOST_CHECKS, checked
from llmops.policies.settings_text import read_settings, write_settings
from llmops.policies.wording import ACTION_WORDS, STAGE_WORDS

#: Empty rows below those in use; after saving there are as many again.
SPARE_ROWS = 2
#: Said below an example that stops nothing.
EXAMPLE_NOTE = "What stands below is an example that only marks and stops nothing: put your own words in its place, then choose what follows."
PARTS = ("place", "kind", "stage", "action", "settings")

Row = dict[str, str]


def kinds_told() -> list[dict[str, Any]]:
    """Every kind for the page: what it finds, where it runs, what may follow, its settings and an example."""
    told: list[dict[str, Any]] = []
    for kind in CHECKS:
        described = describe(kind)
        example: dict[str, Any] = EXAMPLES[kind]
        told.append(
            {
                "kind": kind,
                "title": described.title,
                "summary": described.summary,
                "actions": {stage: list(actions) for stage, actions in described.actions.items()},
                "runs": [
                    (STAGE_WORDS[stage], ", ".join(ACTION_WORDS[action] for action in actions))
                    for stage, actions in described.actions.items()
                ],
                "settings": [
                    (name, part.get("description", ""), name in described.settings.get("required", ()))
                    for name, part in described.settings.get("properties", {}).items()
                ],
                "schema": described.settings,
                "example": {**example, "settings": write_settings(example["settings"])},
                "example_settings": example["settings"],
                "example_action": ACTION_WORDS[example["action"]],
                "example_note": EXAMPLE_NOTE if example["action"] == ALLOW and example["settings"] else "",
                "example_stage": STAGE_WORDS[example["stage"]],
            }
        )
    return told


def _known(settings: str) -> str:
    """Settings as JSON for the fields of the page; ``null`` where only their text can be shown."""
    try:
        return json.dumps(read_settings(settings.replace("\r\n", "\n")), allow_nan=False)
    except (ValueError, TypeError):
        return "null"


class ChecksWidget(forms.Widget):
    """Rows sent as ``<name>-<row>-place``, ``-kind``, ``-stage``, ``-action`` and ``-settings``; a row without a kind is none."""

    template_name = "policies/widgets/checks.html"

    class Media:
        css = {"all": ("console/policies.css",)}
        js = (Script("console/policy-checks.js", type="module"),)

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        rows = list(value or [])
        spare = min(SPARE_ROWS if rows else SPARE_ROWS + 1, max(0, MOST_CHECKS - len(rows)))
        rows += [dict.fromkeys(PARTS, "")] * spare
        first = (attrs or {}).get("id") or f"id_{name}"
        kinds = kinds_told()
        summaries = {told["kind"]: told["summary"] for told in kinds}
        context["rows"] = [
            {
                "number": index + 1,
                "empty": not row["kind"],
                "summary": summaries.get(row["kind"], ""),
                "known": _known(row["settings"]),
                **self._rendered(f"{name}-{index}", first if index == 0 else f"{first}-{index}", index, row),
            }
            for index, row in enumerate(rows)
        ]
        context["kinds"] = kinds
        return context

    def _rendered(self, name: str, identifier: str, index: int, row: Row) -> dict[str, Any]:
        number = index + 1
        kinds = [("", "no check"), *((kind, describe(kind).title) for kind in CHECKS)]
        stages = [(stage, STAGE_WORDS[stage]) for stage in STAGES]
        actions = [(action, ACTION_WORDS[action]) for action in ACTIONS]
        selects = {
            part: UnfoldAdminSelectWidget(choices=choices).render(
                f"{name}-{part}",
                row[part],
                {
                    "id": identifier if part == "kind" else f"{identifier}-{part}",
                    "data-check-part": part,
                },
            )
            for part, choices in (("kind", kinds), ("stage", stages), ("action", actions))
        }
        settings = row["settings"]
        return {
            **selects,
            "ids": {part: identifier if part == "kind" else f"{identifier}-{part}" for part in PARTS},
            "place": UnfoldAdminIntegerFieldWidget().render(
                f"{name}-place",
                row["place"] or str(number),
                {
                    "id": f"{identifier}-place",
                    "min": 1,
                    "max": MOST_CHECKS * 2,
                },
            ),
            "settings": UnfoldAdminTextareaWidget().render(
                f"{name}-settings",
                settings,
                {
                    "id": f"{identifier}-settings",
                    "aria-label": f"Settings of check {number}",
                    "rows": min(16, max(3, settings.count("\n") + 2)),
                    "spellcheck": "false",
                    "data-check-part": "settings",
                },
            ),
        }

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[Row]:
        rows = []
        for index in range(MOST_CHECKS + SPARE_ROWS + 1):
            if f"{name}-{index}-kind" in data:
                rows.append({part: str(data.get(f"{name}-{index}-{part}", "")) for part in PARTS})
        return [row for row in rows if row["kind"]]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return f"{name}-0-kind" not in data


class ChecksField(forms.Field):
    """``[{kind, stage, action, settings}]``, in the order of their places."""

    widget = ChecksWidget

    def prepare_value(self, value: Any) -> Any:
        """Checks as rows; rows that were typed stay as they are."""
        return [
            row
            if "place" in row
            else {**row, "place": str(number), "settings": write_settings(row["settings"])}
            for number, row in enumerate(value or [], start=1)
        ]

    def clean(self, value: Any) -> list[dict[str, Any]]:
        rows: list[Row] = list(value or [])
        if not rows:
            raise forms.ValidationError("Add at least one check.", code="required")
        checks: list[tuple[int, int, dict[str, Any]]] = []
        problems = []
        for number, row in enumerate(rows, start=1):
            place = row["place"].strip() or str(number)
            if not place.isdecimal() or int(place) > MOST_CHECKS * 2:
                problems.append(f"Check {number}: its place is a whole number.")
                continue
            try:
                settings = read_settings(row["settings"].replace("\r\n", "\n"))
            except ValueError as error:
                problems.append(f"Check {number}: settings: {error}.")
                continue
            check = {
                "kind": row["kind"],
                "stage": row["stage"],
                "action": row["action"],
                "settings": settings,
            }
            try:
                [kept] = checked([check])
            except InvalidRequest as refused:
                problems.append(f"Check {number}: {refused.message.removeprefix('checks[0].')}")
                continue
            checks.append((int(place), number, kept))
        if problems:
            raise forms.ValidationError(problems)
        ordered = [check for _, _, check in sorted(checks, key=lambda entry: entry[:2])]
        try:
            return checked(ordered)
        except InvalidRequest as refused:
            raise forms.ValidationError(refused.message.removeprefix("checks: ")) from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.prepare_value(initial) != self.prepare_value(data)
