"""What pages that make something live ask for."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import HttpRequest
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminFileFieldWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from llmops.access.models import Project
from llmops.core.errors import InvalidRequest
from llmops.serving.rules import Rule
from llmops.serving.selectors import publishing_rule


class PublishForm(forms.Form):
    reason = forms.CharField(
        max_length=300,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Why; kept with the revision and in the audit trail.",
    )


def seen(request: HttpRequest) -> dict[str, Any]:
    """What whoever presses the button was shown, as the page carries it. Raises ``InvalidRequest`` when it is not there: nobody
    publishes what they did not look at."""
    posted = request.POST
    numbers = [posted.get(name, "") for name in ("expected_revision", "as_of")]
    if not all(text.isascii() and text.isdecimal() and len(text) < 19 for text in numbers):
        raise InvalidRequest("Open this page again, look at what would change, and press the button there.")
    return {
        "expected_revision": int(numbers[0]),
        "as_of": int(numbers[1]),
        "expected_digest": posted.get("expected_digest", ""),
    }


class BringForm(forms.Form):
    file = forms.FileField(
        widget=UnfoldAdminFileFieldWidget, help_text="A file that “Export” of a revision wrote, as it is."
    )
    digest = forms.CharField(
        required=False,
        max_length=64,
        widget=UnfoldAdminTextInputWidget,
        help_text="Optional: the digest that whoever exported it tells you by another way. Another one is refused.",
    )


class RuleForm(forms.Form):
    always = forms.BooleanField(
        label="For whatever is published",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="Another person must approve before anything new is live.",
    )
    projects = forms.MultipleChoiceField(
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        label="For prompts of these projects",
        help_text="Otherwise only when a prompt of one of these changes. None chosen: nobody else is needed.",
    )
    restore_alone = forms.BooleanField(
        label="Going back takes one person",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="In an emergency an earlier revision is live again with one click.",
    )
    reason = forms.CharField(
        max_length=300,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        help_text="Goes into the audit trail. A looser rule takes a second person itself.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        present: Rule = publishing_rule()
        kwargs.setdefault(
            "initial",
            {
                "always": present.always,
                "projects": sorted(present.projects),
                "restore_alone": present.restore_alone,
            },
        )
        super().__init__(*args, **kwargs)
        slugs = Project.objects.filter(archived_at=None).order_by("slug").values_list("slug", flat=True)
        self.fields["projects"].choices = [(slug, slug) for slug in slugs]  # type: ignore[attr-defined]
