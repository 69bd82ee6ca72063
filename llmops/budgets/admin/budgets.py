"""Budgets, how their windows stand, and asking for more."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from llmops.base.admin import ReadOnlyInline, ServiceAdmin, admin_action
from llmops.base.admin_actions import show_refusal
from llmops.base.form_fields import MomentField
from llmops.base.mail import mail_note
from llmops.base.money_fields import UsdFormField
from llmops.budgets import services
from llmops.budgets.admin.leads import calls_of
from llmops.budgets.admin.standing import gauge_text, standing_of, usd_text
from llmops.budgets.guard import check_change, check_new
from llmops.budgets.models import (
    Budget,
    Raise,
    ThresholdCrossing,
    ThresholdNotice,
    Window,
)
from llmops.budgets.scopes import KEY, ORGANISATION, PROJECT
from llmops.budgets.selectors import Gauge, gauges_of, scope_text
from llmops.budgets.services.loosening import WHAT
from llmops.core.actors import Actor
from llmops.core.errors import InvalidRequest
from llmops.core.money import format_usd

_FIXED = ("scope_kind", "scope_value", "project", "period", "timezone")


class PercentagesField(forms.CharField):
    """A list of percentages, as text with commas."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[int]:
        items = [item.strip().removesuffix("%") for item in super().clean(value).split(",")]
        wrong = [item for item in items if item and not (item.isascii() and item.isdigit())]
        if wrong:
            raise forms.ValidationError(
                f"{wrong[0]!r} is not a whole percentage. Write, for example, 50, 80, 100."
            )
        return [int(item) for item in items if item]


class AddressesField(forms.CharField):
    """E-mail addresses, as text with commas, blanks or lines between them."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        return [item for item in re.split(r"[\s,;]+", super().clean(value)) if item]


class BudgetForm(forms.ModelForm):
    limit_usd = UsdFormField(
        label="Limit, USD", help_text="Per period, exact to nine decimals, such as 50.00"
    )
    carry_over_usd = UsdFormField(
        label="Carry over at most, USD",
        required=False,
        help_text="What a period leaves over goes on into the next, up to this. Empty or 0: nothing does.",
    )
    notify = AddressesField(
        label="Tell by e-mail",
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Addresses that get one e-mail for each threshold that is crossed.",
    )
    thresholds = PercentagesField(
        required=False,
        initial=[50, 80, 100],
        widget=UnfoldAdminTextInputWidget(),
        help_text="Percentages of the limit at which to tell.",
    )
    reason = forms.CharField(
        max_length=500,
        required=False,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Goes into the audit trail.",
    )

    class Media:
        js = ("console/budget-form.js",)

    class Meta:
        model = Budget
        fields = (
            "slug",
            "scope_kind",
            "scope_value",
            "project",
            "period",
            "timezone",
            "hard",
            "at_limit_route",
            "second_person",
        )
        labels = {
            "slug": "Name",
            "scope_kind": "Scope",
            "scope_value": "Which one",
            "timezone": "Time zone",
            "at_limit_route": "Cheaper route at the limit",
        }
        help_texts = {
            "hard": "Refuses what it cannot pay for, to the last cent. Off: a soft budget, which only tells.",
            "at_limit_route": "Slug of a route that serves calls which no longer fit, as long as they fit there. Empty: such "
            "calls are refused.",
            "scope_value": "The key's id, the route's slug, or the feature, end user or tag as callers send it. Empty for "
            "a project and for the organisation.",
            "project": "The one that a project's budget is for; narrows a feature, route, user or tag to one. Follows from a "
            "key.",
            "timezone": "Where a day begins, such as Europe/Berlin.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if (project := self.fields.get("project")) is not None and self._names_its_scope():
            project.required = False
        if (told := self.fields.get("notify")) is not None:
            told.help_text = f"{told.help_text} {mail_note()}".strip()
        if not self.instance._state.adding:
            self.initial["limit_usd"] = self.instance.limit_nano
            self.initial["thresholds"] = self.instance.thresholds
            self.initial["notify"] = self.instance.notify
            self.initial["carry_over_usd"] = self.instance.carry_over_nano or None

    def _names_its_scope(self) -> bool:
        """Whether the project follows from what is typed; who may set the budget there is asked with the project it has."""
        kind, value = self.data.get("scope_kind"), self.data.get("scope_value")
        return kind == KEY or (kind == PROJECT and bool(value))

    def clean(self) -> dict[str, Any] | None:
        """Tells all that is wrong at once: what the service would refuse, too. A project is chosen, or its slug typed."""
        data = super().clean()
        chosen = self.cleaned_data.get("project")
        if self.cleaned_data.get("scope_kind") == PROJECT and not self.cleaned_data.get("scope_value"):
            if chosen is not None:
                self.cleaned_data["scope_value"] = chosen.slug
            else:
                self.cleaned_data.pop("scope_value", None)
                if "project" not in self.errors:
                    self.add_error("project", "Choose the project that the budget is for.")
        budget = None if self.instance._state.adding else self.instance
        given = _arguments(self.cleaned_data)
        given.pop("reason", None)
        # Validation has not written on the instance yet; the service is asked about what is stored.
        if problems := services.budget_problems(given, budget):
            show_refusal(self, InvalidRequest("", data={"problems": problems}))
        return data


class ArchiveForm(forms.Form):
    reason = forms.CharField(
        max_length=500, required=False, widget=UnfoldAdminTextareaWidget(attrs={"rows": 2})
    )


class RaiseForm(forms.Form):
    amount_usd = UsdFormField(label="Raise by, USD", help_text="On top of the limit, such as 25.00")
    ends_at = MomentField(
        label="Until (UTC)",
        help_text="Then the limit is what it was before.",
    )
    starts_at = MomentField(
        label="From (UTC)",
        required=False,
        help_text="Empty: as soon as it is approved.",
    )
    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Whoever approves it decides by this.",
    )


class LoosenForm(forms.Form):
    what = forms.ChoiceField(choices=WHAT, widget=UnfoldAdminSelectWidget)
    limit_usd = UsdFormField(
        label="New limit, USD", required=False, help_text="For a higher limit: per period, such as 75.00"
    )
    reason = forms.CharField(
        max_length=500,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Whoever approves it decides by this.",
    )


class RaisesInline(ReadOnlyInline):
    model = Raise
    verbose_name_plural = "raises"
    fields = ("amount", "starts_at", "ends_at", "reason", "asked_by", "approved_by")
    readonly_fields = ("amount",)
    show_change_link = False
    per_page = 12

    @display(description="raised by, USD")
    def amount(self, row: Raise) -> str:
        return format_usd(row.amount_nano)


class WindowsInline(ReadOnlyInline):
    model = Window
    verbose_name_plural = "periods"
    fields = ("starts_at", "ends_at", "stand", "refusals", "carried", "crossed", "overrun", "unattributed")
    readonly_fields = ("stand", "refusals", "carried", "crossed", "overrun", "unattributed")
    ordering = ("-starts_at",)
    show_change_link = False
    per_page = 12

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("budget").prefetch_related("crossings__notices")

    @display(description="settled + held of limit, USD")
    def stand(self, window: Window) -> Any:
        settled = usd_text(window.settled_nano)
        rest = gauge_text(window.settled_nano, window.leased_nano, window.limit_nano).removeprefix(settled)
        exact = f"{format_usd(window.settled_nano)} + {format_usd(window.leased_nano)} of {format_usd(window.limit_nano)}"
        return format_html('<span title="{}">{}{}</span>', exact, calls_of(window, settled), rest)

    @display(description="refused calls")
    def refusals(self, window: Window) -> Any:
        return calls_of(window, "show", refused=True) if window.hard else "-"

    @display(description="carried over, USD")
    def carried(self, window: Window) -> str:
        parts = [f"{format_usd(window.carried_nano)} in"] if window.carried_nano else []
        parts += [f"{format_usd(window.passed_on_nano)} out"] if window.passed_on_nano else []
        return ", ".join(parts) or "-"

    @display(description="thresholds crossed")
    def crossed(self, window: Window) -> Any:
        told = [_crossing_text(one) for one in reversed(window.crossings.all())]
        return format_html_join(", ", "{}", ((one,) for one in told)) if told else "-"

    @display(description="overrun, USD")
    def overrun(self, window: Window) -> Any:
        return _leading(window.overrun_nano, "overrun", f"?q={window.budget.slug}")

    @display(description="unattributed, USD")
    def unattributed(self, window: Window) -> Any:
        return _leading(window.unattributed_nano, "lease", f"?state__exact=forfeited&q={window.budget.slug}")


@admin.register(Budget)
class BudgetAdmin(ServiceAdmin):
    view_permission, manage_permission = "budget.view", "budget.manage"
    form = BudgetForm
    change_form_before_template = "budgets/standing.html"
    list_display = ("name", "scope", "period", "kind", "at_the_limit", "stand", "resets")
    list_filter = ("scope_kind", "period", "hard")
    list_select_related = ("project",)
    search_fields = ("slug", "scope_value", "project__slug")
    inlines = (WindowsInline, RaisesInline)
    actions_detail = ("ask_for_a_raise", "ask_to_loosen", "archive")
    fields = (
        "slug",
        ("scope_kind", "scope_value"),
        "project",
        ("period", "timezone"),
        ("limit_usd", "carry_over_usd"),
        ("hard", "at_limit_route"),
        ("thresholds", "notify"),
        "second_person",
        "reason",
    )

    def get_fields(self, request: HttpRequest, obj: Budget | None = None) -> Any:
        """Once the scope is fixed, only what belongs to it."""
        if obj is None or not self.get_readonly_fields(request, obj):
            return self.fields
        scope: tuple[str, ...] = ("scope_kind", "scope_value")
        if obj.scope_kind == PROJECT:
            scope = ("scope_kind", "project")
        elif obj.scope_kind == ORGANISATION:
            scope = ("scope_kind",)
        rest = [one for one in self.fields[2:] if one != "project"]
        narrowed = ("project",) if obj.project_id and obj.scope_kind != PROJECT else ()
        return (self.fields[0], scope, *narrowed, *rest)

    def get_readonly_fields(self, request: HttpRequest, obj: Budget | None = None) -> tuple[str, ...]:
        return _FIXED if obj is not None and obj.windows.exists() else ()

    def get_inlines(self, request: HttpRequest, obj: Budget | None) -> Any:
        return self.inlines if obj is not None else ()

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.archived_at is None)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        budget: Budget | None = kwargs.get("obj")
        if budget is not None:
            # Of what is stored: a form that was refused has written what it says on the row.
            stored = Budget.objects.select_related("project").get(pk=budget.pk) if request.POST else budget
            context["standing"] = standing_of(stored, lambda name: self.holds(request, name, stored))
        return super().render_change_form(request, context, *args, **kwargs)

    def check_create(self, request: HttpRequest, data: dict[str, Any]) -> None:
        check_new(request, _arguments(data))

    def check_update(self, request: HttpRequest, obj: Budget, data: dict[str, Any]) -> None:
        check_change(request, obj, _arguments(data))

    def create(self, actor: Actor, data: dict[str, Any]) -> Budget:
        return services.create_budget(actor, **_arguments(data))

    def update(self, actor: Actor, obj: Budget, data: dict[str, Any]) -> Budget:
        return services.update_budget(actor, budget_id=obj.pk, **_arguments(data))

    @display(description="name", ordering="slug")
    def name(self, budget: Budget) -> str:
        return budget.slug

    @display(description="scope")
    def scope(self, budget: Budget) -> str:
        return scope_text(budget)

    @display(description="kind", label={"hard": "info", "soft": "warning", "archived": "danger"})
    def kind(self, budget: Budget) -> str:
        if budget.archived_at is not None:
            return "archived"
        return "hard" if budget.hard else "soft"

    @display(description="at the limit")
    def at_the_limit(self, budget: Budget) -> Any:
        if not budget.hard:
            return "only tells"
        what = f"by the route {budget.at_limit_route}" if budget.at_limit_route else "refuses"
        if budget.archived_at is None and _gauge(budget).used_up:
            return format_html('<b class="used-up">used up: {}</b>', what)
        return what

    @display(description="settled + held of limit, USD")
    def stand(self, budget: Budget) -> str:
        gauge = _gauge(budget)
        return gauge_text(gauge.settled_nano, gauge.held_nano, gauge.limit_nano)

    @display(description="resets")
    def resets(self, budget: Budget) -> Any:
        return _gauge(budget).resets_at or "never"

    @admin_action(
        label="Ask for a raise",
        question="Ask for a higher limit of {obj} for a while? Another person has to approve it.",
        permission="budget.request",
        form=RaiseForm,
        available=lambda budget: budget.archived_at is None and budget.hard,
    )
    def ask_for_a_raise(self, request: HttpRequest, actor: Actor, obj: Budget, data: dict[str, Any]) -> str:
        row = services.ask_raise(
            actor,
            budget_id=obj.pk,
            amount_nano=data["amount_usd"],
            starts_at=data["starts_at"],
            ends_at=data["ends_at"],
            reason=data["reason"],
        )
        return f"Asked: {row.title}. It waits under Approvals for another person."

    @admin_action(
        label="Ask to loosen",
        question="Ask to make {obj} looser for good? Another person has to approve it.",
        permission="budget.request",
        form=LoosenForm,
        available=lambda budget: budget.archived_at is None and budget.second_person,
    )
    def ask_to_loosen(self, request: HttpRequest, actor: Actor, obj: Budget, data: dict[str, Any]) -> str:
        row = services.ask_loosening(
            actor, budget_id=obj.pk, what=data["what"], limit_nano=data["limit_usd"], reason=data["reason"]
        )
        return f"Asked: {row.title}. It waits under Approvals for another person."

    @admin_action(
        label="Archive",
        question="Archive {obj}? Calls are no longer held against it. What was spent stays on record.",
        form=ArchiveForm,
        danger=True,
        available=lambda budget: budget.archived_at is None and not budget.second_person,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Budget, data: dict[str, Any]) -> str:
        services.archive_budget(actor, budget_id=obj.pk, **data)
        return f"{obj} is archived."


def _gauge(budget: Budget) -> Gauge:
    """The gauge of a row of the list, read once for its columns."""
    read: Gauge | None = budget.__dict__.get("_gauge_read")
    if read is None:
        read = budget.__dict__["_gauge_read"] = gauges_of([budget], timezone.now())[budget.pk]
    return read


def _crossing_text(crossing: ThresholdCrossing) -> Any:
    text = "first refusal" if crossing.refusing else f"{crossing.percent} %"
    if crossing.limit_nano != crossing.window.limit_nano:
        # The limit was another one then, so that the same threshold may stand there twice.
        text += f" of {format_usd(crossing.limit_nano)}"
    notices = crossing.notices.all()
    missed = sum(one.state in (ThresholdNotice.FAILED, ThresholdNotice.UNKNOWN) for one in notices)
    return format_html(
        '{} on <time datetime="{}" data-as="moment">{} UTC</time>{}',
        text,
        crossing.crossed_at.isoformat(),
        f"{crossing.crossed_at.astimezone(UTC):%d %b %H:%M}",
        f" ({missed} of {len(notices)} e-mails not sent)" if missed else "",
    )


def _leading(amount: int, model: str, query: str) -> Any:
    """An amount that leads to what is behind it; a plain one where nothing is."""
    if not amount:
        return format_usd(0)
    address = reverse(f"admin:budgets_{model}_changelist") + query
    return format_html('<a class="underline" href="{}">{}</a>', address, format_usd(amount))


def _arguments(data: dict[str, Any]) -> dict[str, Any]:
    """What the form says, as the services' arguments."""
    values = {
        name: value for name, value in data.items() if name not in ("project", "limit_usd", "carry_over_usd")
    }
    if "limit_usd" in data:
        values["limit_nano"] = data["limit_usd"]
    if "carry_over_usd" in data:
        values["carry_over_nano"] = data["carry_over_usd"] or 0
    if "project" in data:
        values["project_id"] = data["project"].pk if data["project"] else None
    return values
