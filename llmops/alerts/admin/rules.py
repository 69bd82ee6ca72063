"""Rules, with what each would have done in the last days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget

from llmops.alerts import runbooks, services
from llmops.alerts.kinds import Kind, kind_named, kinds
from llmops.alerts.models import Rule
from llmops.alerts.selectors import preview
from llmops.base.admin import ServiceAdmin, admin_action
from llmops.base.clock import database_now
from llmops.base.form_fields import LinesField
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest

_TONES = {"critical": "danger", "warning": "warning", "info": "info"}


def numbers_of(lines: list[str]) -> dict[str, float]:
    """``percent = 5`` a line. Raises ``ValidationError``."""
    found: dict[str, float] = {}
    for line in lines:
        name, equals, value = (part.strip() for part in line.partition("="))
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise forms.ValidationError(f"{line[:60]!r} is not of the form: percent = 5")
    return found


def lines_of(kind: Kind, settings: Mapping[str, Any]) -> list[str]:
    return [f"{one.name} = {float(settings.get(one.name, one.default)):g}" for one in kind.settings]


def numbers_in_words(kind: Kind) -> str:
    """What the numbers of a kind mean, with what they are unless somebody says otherwise."""
    told = [
        f"{one.name}: {one.label.lower()}, usually {one.default:g} {one.unit}".strip()
        for one in kind.settings
    ]
    return "; ".join(told) or "none"


class RuleForm(forms.ModelForm):
    kind = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    numbers = LinesField(
        label="Numbers",
        help_text="One a line, such as: percent = 5. What is left out is as usual for the kind.",
    )
    runbook = forms.ChoiceField(required=False, widget=UnfoldAdminSelectWidget)

    class Meta:
        model = Rule
        fields = (
            "slug",
            "project",
            "route",
            "model",
            "feature",
            "severity",
            "resolve_after_s",
            "enabled",
        )
        labels = {
            "slug": "Name",
            "model": "Model",
            "resolve_after_s": "Ends after being well for (seconds)",
            "enabled": "Switched on",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            # Declared, so it would be asked for; what kind it is does not change.
            self.fields.pop("kind", None)
        if isinstance(field := self.fields.get("kind"), forms.ChoiceField):
            field.choices = [(kind.name, kind.title) for kind in kinds()]
        if isinstance(field := self.fields.get("runbook"), forms.ChoiceField):
            names = [(name, runbooks.title_of(name)) for name in runbooks.names()]
            field.choices = [("", "That of its kind"), *names]
        if not self.instance._state.adding and "numbers" in self.fields:
            kind = kind_named(self.instance.kind)
            self.initial.setdefault("numbers", lines_of(kind, self.instance.settings))
            self.initial.setdefault("runbook", self.instance.runbook)
            self.fields["numbers"].help_text = numbers_in_words(kind)

    def clean_numbers(self) -> dict[str, float]:
        return numbers_of(self.cleaned_data["numbers"])

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return data
        name = data.get("kind") or self.instance.kind
        try:
            data["settings"] = services.rules.checked_settings(kind_named(name), data["numbers"])
        except InvalidRequest as refused:
            self.add_error("numbers", refused.message)
        return data


class TrialForm(forms.Form):
    numbers = LinesField(label="With these numbers", help_text="One a line, such as: percent = 5.")

    def clean_numbers(self) -> dict[str, float]:
        return numbers_of(self.cleaned_data["numbers"])


@admin.register(Rule)
class RuleAdmin(ServiceAdmin):
    view_permission, manage_permission = "alert.view", "alert.manage"
    form = RuleForm
    list_display = ("slug", "watches", "where", "danger", "stands")
    list_filter = ("severity", "enabled", "kind")
    list_select_related = ("project",)
    search_fields = ("slug", "kind", "route", "feature")
    actions_detail = ("try_it", "archive", "restore")
    _given = ("numbers", "severity", "runbook", "resolve_after_s", "enabled")
    _narrowed = ("project", "route", "model", "feature")
    fieldsets = (
        (None, {"fields": ("slug", "kind")}),
        ("When", {"fields": _given}),
        ("Of which calls", {"fields": _narrowed}),
    )
    _shown = (
        "slug",
        "watches",
        "told_numbers",
        "danger",
        "where",
        "told_runbook",
        "stands",
        "would_have_fired",
    )

    def get_fieldsets(self, request: HttpRequest, obj: Rule | None = None) -> Any:
        if obj is None:
            return self.fieldsets
        if not self.has_change_permission(request, obj):
            return ((None, {"fields": self._shown}),)
        return (
            (None, {"fields": ("slug", "watches", "would_have_fired")}),
            *self.fieldsets[1:],
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Rule | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return (
            ("slug", "watches", "would_have_fired")
            if self.has_change_permission(request, obj)
            else self._shown
        )

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Rule:
        return services.create_rule(
            actor,
            slug=data["slug"],
            kind=data["kind"],
            project=data["project"],
            **{name: data[name] for name in ("route", "model", "feature", "settings", "severity", "resolve_after_s", "enabled")},
            **({"runbook": data["runbook"]} if data["runbook"] else {}),
        )  # fmt: skip

    def update(self, actor: Actor, obj: Rule, data: dict[str, Any]) -> Rule:
        names = (*self._narrowed, "settings", "severity", "resolve_after_s", "enabled")
        return services.update_rule(
            actor,
            rule=obj,
            runbook=data["runbook"] or kind_named(obj.kind).runbook,
            **{name: data[name] for name in names},
        )

    @display(description="watches")
    def watches(self, rule: Rule) -> str:
        kind = kind_named(rule.kind)
        return f"{kind.title}. {kind.says}"

    @display(description="numbers")
    def told_numbers(self, rule: Rule) -> str:
        return ", ".join(lines_of(kind_named(rule.kind), rule.settings)) or "-"

    @display(description="of which calls")
    def where(self, rule: Rule) -> str:
        named = [
            f"{name} {value}"
            for name, value in (
                ("project", rule.project),
                ("route", rule.route),
                ("model", rule.model),
                ("feature", rule.feature),
            )
            if value
        ]
        return ", ".join(named) or "all"

    @display(description="runbook")
    def told_runbook(self, rule: Rule) -> str:
        return runbooks.title_of(rule.runbook) if rule.runbook else "-"

    @display(description="severity", label=_TONES)
    def danger(self, rule: Rule) -> str:
        return rule.severity

    @display(description="state", label={"on": "success", "off": "warning", "archived": "danger"})
    def stands(self, rule: Rule) -> str:
        return "archived" if rule.archived_at else "on" if rule.enabled else "off"

    @display(description="would have fired")
    def would_have_fired(self, rule: Rule) -> str:
        return in_words(rule)

    @admin_action(
        label="Try other numbers",
        question="How often would {obj} have fired in the last 7 days with other numbers? Nothing is changed.",
        permission="alert.view",
        form=TrialForm,
        shows=True,
        template="alerts/try.html",
        initial=lambda rule: {"numbers": lines_of(kind_named(rule.kind), rule.settings)},
        available=lambda rule: kind_named(rule.kind).measure is not None,
    )
    def try_it(self, request: HttpRequest, actor: Actor, obj: Rule, data: dict[str, Any]) -> dict[str, Any]:
        numbers = services.rules.checked_settings(kind_named(obj.kind), data["numbers"])
        tried = Rule(
            slug=obj.slug, kind=obj.kind, project=obj.project, route=obj.route, model=obj.model, feature=obj.feature,
            settings=numbers,
        )  # fmt: skip
        where = self.where(obj)
        return {"tried": f"Of {'all calls' if where == 'all' else where}: {in_words(tried)}"}

    @admin_action(
        label="Archive",
        question="Put {obj} away? It is not looked at any more, and what is open of it ends.",
        available=lambda rule: rule.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Rule, data: dict[str, Any]) -> str:
        services.archive_rule(actor, rule=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Look at {obj} again?",
        available=lambda rule: rule.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Rule, data: dict[str, Any]) -> str:
        services.restore_rule(actor, rule=obj)
        return f"{obj} is looked at again."


def in_words(rule: Rule) -> str:
    found = preview(rule, database_now())
    if found is None:
        return "No past figures are kept of what it looks at."
    if not found.fired:
        return "Not once in the last 7 days, hour by hour."
    last = [
        f"{at:%a %d %b %H:%M} UTC ({place or 'calls that name a model'})" for place, at in found.fired[-3:]
    ]
    times = "once" if len(found.fired) == 1 else f"{len(found.fired)} times"
    return f"{times.capitalize()} in the last 7 days, hour by hour; lately {', '.join(last)}."
