"""Policies."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, StreamingHttpResponse
from django.template.loader import render_to_string
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from llmops.access.models import Project
from llmops.base.admin import ReadOnlyInline, ServiceAdmin, admin_action
from llmops.base.authority import authority
from llmops.base.stepwise import stepwise
from llmops.core.actors import Actor
from llmops.core.verdicts import AFTER
from llmops.policies import services
from llmops.policies.admin.check_fields import ChecksField
from llmops.policies.admin.versions import changes_in_words, checks_in_words
from llmops.policies.checks import describe
from llmops.policies.models import Policy, PolicyVersion
from llmops.policies.selectors import routes_naming
from llmops.policies.stored_trial import MOST_CALLS, StoredTrial, outcome_of, try_stored
from llmops.policies.trial import MOST_CHARS, ROLES, try_checks


class VersionsInline(ReadOnlyInline):
    model = PolicyVersion
    fk_name = "policy"
    verbose_name_plural = "versions"
    fields = ("number", "changes", "note", "created_by", "created_at")
    readonly_fields = fields
    ordering = ("-number",)

    @display(description="against the one before")
    def changes(self, version: PolicyVersion) -> str:
        return changes_in_words(version)


class PolicyForm(forms.ModelForm):
    """A policy as its current version has it; saving other checks adds a version."""

    checks = ChecksField(
        label="Checks",
        help_text="They run by their place, from the smallest: what one redacts, the next does not see. A row without a kind is "
        "left out. Settings are YAML (or JSON); what each kind takes is told above.",
    )
    note = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="What this version changes, and why.",
    )

    class Meta:
        model = Policy
        fields = ("slug", "description", "everywhere")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        current = self.instance.current if self.instance.current_id else None
        if current is not None and "checks" in self.fields:
            self.initial.setdefault("checks", current.checks)


class TryForm(forms.Form):
    asked = forms.CharField(
        max_length=MOST_CHARS,
        strip=False,
        label="What is asked",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 5}),
        help_text="A message as a service would send it. Nothing of it is kept, and no model is called.",
    )
    role = forms.ChoiceField(
        choices=[(role, role) for role in ROLES], label="Who says it", widget=UnfoldAdminSelectWidget
    )
    answer = forms.CharField(
        max_length=MOST_CHARS,
        strip=False,
        required=False,
        label="What is answered",
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 5}),
        help_text="Empty: only what is asked is looked at.",
    )


class StoredForm(forms.Form):
    calls = forms.IntegerField(
        min_value=1,
        max_value=MOST_CALLS,
        initial=1_000,
        label="How many",
        widget=UnfoldAdminIntegerFieldWidget(),
        help_text="The last ones whose texts are kept, of the projects that you may see.",
    )

    class Media:
        js = ("console/policy-trial.js",)


#: The type of an answer with a line of JSON each time something is to be shown.
AS_IT_GOES_ON = "application/x-ndjson"


def _lines(trials: Generator[StoredTrial], version: int) -> Iterator[bytes]:
    """How far a trial is, each as ``{version, done, of, matched, words, html, over}``."""
    with closing(trials):
        for trial in trials:
            shown = {"stored": trial, "version": version, "streamed": True}
            told = {
                "version": version,
                "done": trial.done,
                "of": trial.of,
                "matched": trial.matched,
                "words": trial.words,
                "html": render_to_string("policies/stored_trial.html", shown),
                "over": trial.over,
            }
            yield json.dumps(told).encode() + b"\n"


def _stored_facts(admin_: Any, request: HttpRequest, obj: Policy) -> dict[str, Any]:
    return {"answers": any(check["stage"] == AFTER for check in obj.current.checks) if obj.current else False}


@admin.register(Policy)
class PolicyAdmin(ServiceAdmin):
    view_permission, manage_permission = "policy.view", "policy.manage"
    project_path = None
    form = PolicyForm
    list_display = ("slug", "description", "holds_for", "version", "checks_now", "state")
    list_filter = ("everywhere",)
    list_select_related = ("current",)
    search_fields = ("slug", "description")
    list_before_template = "base/draft_note.html"
    change_form_before_template = "base/draft_note.html"
    inlines = (VersionsInline,)
    actions_detail = ("try_it", "try_on_calls", "archive", "restore")
    fieldsets = (
        (None, {"fields": ("slug", "description", "everywhere")}),
        ("Checks", {"fields": ("checks",)}),
        ("On the record", {"fields": ("note",)}),
    )
    _shown = ("slug", "description", "holds_for", "version", "checks_now", "state")

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related("current")

    def get_fieldsets(self, request: HttpRequest, obj: Policy | None = None) -> Any:
        if obj is None or self.has_change_permission(request, obj):
            return self.fieldsets
        # The rest stands in the table of versions below.
        return ((None, {"fields": self._shown}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Policy | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("slug",) if self.has_change_permission(request, obj) else self._shown

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Policy:
        return services.create_policy(actor, **data)

    def update(self, actor: Actor, obj: Policy, data: dict[str, Any]) -> Policy:
        checks, note = data.pop("checks"), data.pop("note")
        return services.update_policy(actor, policy=obj, changes=data, checks=checks, note=note)

    @display(description="holds")
    def holds_for(self, policy: Policy) -> str:
        if policy.everywhere:
            return "everywhere"
        return ", ".join(routes_naming(policy.slug)) or "nowhere yet"

    @display(description="version")
    def version(self, policy: Policy) -> int | None:
        return policy.current.number if policy.current else None

    @display(description="checks")
    def checks_now(self, policy: Policy) -> str:
        return checks_in_words(policy.current) if policy.current else "none"

    @display(description="state", label={"in use": "success", "archived": "default"})
    def state(self, policy: Policy) -> str:
        return "archived" if policy.archived_at is not None else "in use"

    @admin_action(
        label="Try it",
        question="What would {obj} say? The current version is asked, published or not.",
        permission="policy.view",
        form=TryForm,
        shows=True,
        template="policies/try.html",
        available=lambda policy: policy.current is not None,
    )
    def try_it(self, request: HttpRequest, actor: Actor, obj: Policy, data: dict[str, Any]) -> dict[str, Any]:
        version = obj.current
        assert version is not None
        trial = try_checks(
            obj.slug,
            version.number,
            version.checks,
            asked=data["asked"],
            answer=data["answer"] or None,
            role=data["role"],
        )
        outcomes = [("Before the call", trial.before), ("After the call", trial.after)]
        return {
            "version": version,
            "outcomes": [
                (
                    when,
                    outcome,
                    [(describe(verdict.check).title, verdict) for verdict in outcome.verdicts],
                )
                for when, outcome in outcomes
                if outcome is not None
            ],
        }

    @admin_action(
        label="Try it on calls",
        question="What would {obj} have done to the last calls? The current version is asked, published or not. No text is shown, and "
        "no model is called; that stored texts were read is on the record.",
        permission="policy.manage",
        form=StoredForm,
        shows=True,
        template="policies/try_stored.html",
        facts=_stored_facts,
        available=lambda policy: policy.current is not None and policy.archived_at is None,
    )
    def try_on_calls(
        self, request: HttpRequest, actor: Actor, obj: Policy, data: dict[str, Any]
    ) -> dict[str, Any] | StreamingHttpResponse:
        assert obj.current is not None
        everything = authority().may(request, "usage.view", None)
        seen = authority().visible(Project.objects.all(), request, "usage.view", project="pk")
        projects = None if everything else list(seen.values_list("pk", flat=True))
        number = obj.current.number
        trials = try_stored(actor, policy=obj, version=obj.current, projects=projects, calls=data["calls"])
        if request.headers.get("accept") == AS_IT_GOES_ON:
            return stepwise(request, _lines(trials, number), AS_IT_GOES_ON)
        return {"stored": outcome_of(trials), "version": number}

    @admin_action(
        label="Archive",
        question="Put {obj} away? It is left out of what is published next; until then it holds as before.",
        available=lambda policy: policy.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Policy, data: dict[str, Any]) -> str:
        services.archive_policy(actor, policy=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Bring {obj} back?",
        available=lambda policy: policy.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Policy, data: dict[str, Any]) -> str:
        services.unarchive_policy(actor, policy=obj)
        return f"{obj} is back as a draft."
