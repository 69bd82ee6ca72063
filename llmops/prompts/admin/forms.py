"""The editor's form, and those of the buttons."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from llmops.prompts.admin.fields import MONO, SamplesField, SchemaField, VariablesField, YamlField
from llmops.prompts.content import EMPTY
from llmops.prompts.models import Prompt, label_validator
from llmops.prompts.parameters import EFFORTS
from llmops.prompts.rendering import LAYERS
from llmops.prompts.selectors import content_to_edit
from llmops.prompts.templating import MOST_SOURCE
from llmops.providers.models import Route

DRAFT, VERSION = "draft", "version"
_HELP = {
    "system": "What holds for every answer: who the model is, what it never does.",
    "task": "What is to be done this time.",
    "context": "What was found for it: documents, records. It is set off as data, and the model is told not to follow it.",
    "user": "What the end user brings. It is set off as data, too.",
}
_PLAIN = ("temperature", "max_output_tokens", "reasoning_effort")


def _layer(name: str) -> forms.CharField:
    return forms.CharField(
        label=LAYERS[name],
        required=False,
        strip=False,
        max_length=MOST_SOURCE,
        help_text=_HELP[name],
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 5, "data-layer": name, **MONO}),
    )


class PromptForm(forms.ModelForm):
    """A prompt as its draft has it, or its newest version. Saving keeps a draft, or makes the next version."""

    system = _layer("system")
    task = _layer("task")
    context = _layer("context")
    user = _layer("user")
    variables = VariablesField(
        label="Variables",
        required=False,
        help_text="Write {{ name }} where a value belongs. Names that no row declares are an error; without any row, every name that "
        "the layers use is a text.",
    )
    output_schema = SchemaField(
        label="Output contract",
        help_text="A JSON Schema that answers follow. Empty: answers are free text.",
    )
    route = forms.ChoiceField(
        label="Route",
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text="Where a request goes that names the prompt and no model.",
    )
    temperature = forms.CharField(
        required=False, widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal"})
    )
    max_output_tokens = forms.CharField(
        label="Output tokens at most",
        required=False,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"}),
    )
    reasoning_effort = forms.ChoiceField(
        required=False,
        choices=[("", "as the model has it"), *((effort, effort) for effort in EFFORTS)],
        widget=UnfoldAdminSelectWidget,
    )
    more_parameters = YamlField(
        help_text="As YAML: top_p, seed, stop, verbosity, presence_penalty, frequency_penalty, parallel_tool_calls. A request's own values go before."
    )
    token_ceiling = forms.IntegerField(
        required=False,
        min_value=1,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text="No sample may take more input tokens, or it is not published. Empty: no ceiling.",
    )
    samples = SamplesField(
        rows=6,
        help_text="As YAML: a name, and below it a value for each variable. Each version keeps what its samples are rendered to, and "
        "publishing refuses it when that has changed.",
    )
    then = forms.ChoiceField(
        label="On saving",
        choices=[(DRAFT, "keep it as a draft"), (VERSION, "make the next version of it")],
        initial=DRAFT,
        widget=UnfoldAdminSelectWidget,
        help_text="Neither changes what is live: that takes a label that points to the version, and publishing.",
    )
    note = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="What this version changes, and why. Kept with the version.",
    )
    expected = forms.IntegerField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Prompt
        fields = ("slug", "project", "description")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "system" not in self.fields:
            return
        saved = self.instance.pk is not None and not self.instance._state.adding
        content = content_to_edit(self.instance) if saved else {**EMPTY, "variables": None}
        parameters = dict(content["parameters"]) if isinstance(content["parameters"], dict) else {}
        shown = {
            name: content[name]
            for name in (*LAYERS, "variables", "output_schema", "route", "token_ceiling", "samples")
        }
        shown |= {name: parameters.pop(name, "") for name in _PLAIN}
        shown["more_parameters"] = parameters
        shown["expected"] = self.instance.current.number if saved and self.instance.current else 0
        for name, value in shown.items():
            self.initial.setdefault(name, value)
        routes = list(Route.objects.filter(archived_at=None).order_by("slug").values_list("slug", flat=True))
        if content["route"] and content["route"] not in routes:
            routes.append(content["route"])
        chosen: Any = self.fields["route"]
        chosen.choices = [
            ("", "none: the request or its project decides"),
            *((slug, slug) for slug in routes),
        ]

    def content(self) -> dict[str, Any]:
        """What was typed, as content of a draft."""
        data = self.cleaned_data
        parameters = {**data["more_parameters"]}
        for name in _PLAIN:
            if text := str(data[name] or "").strip():
                parameters[name] = text if name == "reasoning_effort" else _number(text)
        return {
            **{name: data[name].replace("\r\n", "\n") for name in LAYERS},
            "variables": data["variables"],
            "output_schema": data["output_schema"],
            "route": data["route"],
            "parameters": parameters,
            "token_ceiling": data["token_ceiling"],
            "samples": data["samples"],
        }

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if not self.errors and "system" in self.fields:
            cleaned["content"] = self.content()
        return cleaned


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text.replace(",", ".") if kind is float else text)
        except ValueError:
            continue
    return text


class _ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=300,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Why; kept with the label's history and in the audit trail.",
    )


class RemoveLabelForm(_ReasonForm):
    pass


class BackForm(_ReasonForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].initial = "Back to where it was."


class MoveForm(_ReasonForm):
    version = forms.IntegerField(
        min_value=1,
        max_value=2_147_483_647,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text="The number of a version.",
    )
    field_order = ("version", "reason")


class _NamedForm(_ReasonForm):
    name = forms.CharField(
        label="Label",
        max_length=63,
        initial="production",
        validators=[label_validator],
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="A request that names no version means the label production.",
    )
    field_order: tuple[str, ...] = ("name", "reason")


class PointForm(_NamedForm):
    """Of a version: the label alone is asked for."""


class LabelForm(_NamedForm):
    version = forms.IntegerField(
        min_value=1,
        max_value=2_147_483_647,
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text="The number of a version.",
    )
    field_order = ("name", "version", "reason")


class CompareForm(forms.Form):
    earlier = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=2_147_483_647,
        label="Version",
        widget=UnfoldAdminIntegerFieldWidget(),
    )
    later = forms.IntegerField(
        required=False, min_value=1, max_value=2_147_483_647, label="with version", widget=UnfoldAdminIntegerFieldWidget(),
        help_text="Left empty: the draft, or else the newest version.",
    )  # fmt: skip


class CopyForm(forms.Form):
    slug = forms.SlugField(max_length=63, label="Name of the copy", widget=UnfoldAdminTextInputWidget())


class ImportForm(forms.Form):
    archive = forms.FileField(
        label="ZIP archive",
        widget=UnfoldAdminFileFieldWidget(attrs={"accept": ".zip"}),
        help_text="One folder a prompt: prompt.yaml, system.md, task.md, context.md, user.md, output_schema.json. An export is one.",
    )
    project = forms.CharField(
        required=False,
        max_length=63,
        widget=UnfoldAdminTextInputWidget(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="The name of a project that you manage. Empty: shared by the whole organisation.",
    )
    note = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Kept with each new version.",
    )
