"""Prompts are served by label."""

from __future__ import annotations

from llmops.prompts.models import Label, Prompt
from llmops.readiness.finding import TESTING, Check, Finding, every


def look() -> Finding:
    prompts = list(Prompt.objects.filter(archived_at=None))
    labelled = set(Label.objects.filter(name="production").values_list("prompt_id", flat=True))
    return every(
        prompts,
        [one.slug for one in prompts if one.pk not in labelled],
        "prompts",
        "have no label production",
    )


CHECK = Check(
    "prompts-labelled",
    TESTING,
    "Prompts are served by label",
    fix="Move the label production to the version that services are to get.",
    link="prompts.prompt",
    look=look,
)
