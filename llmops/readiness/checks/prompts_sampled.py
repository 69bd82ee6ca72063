"""Prompts have samples whose renderings are known."""

from __future__ import annotations

from llmops.prompts.models import Prompt
from llmops.readiness.finding import TESTING, Check, Finding, every


def look() -> Finding:
    prompts = list(Prompt.objects.filter(archived_at=None).select_related("current"))
    bare = [one.slug for one in prompts if one.current is None or not one.current.renderings]
    return every(prompts, bare, "prompts", "have no sample")


CHECK = Check(
    "prompts-sampled",
    TESTING,
    "Prompts have samples whose renderings are known",
    fix="Add samples to the prompt: a change that renders otherwise is then refused.",
    link="prompts.prompt",
    look=look,
)
