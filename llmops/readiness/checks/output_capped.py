"""Answers end where nobody says how long they may be."""

from __future__ import annotations

from llmops.readiness.facts import current_versions
from llmops.readiness.finding import COST, Check, Finding, every


def look() -> Finding:
    current = [one for one in current_versions() if one.max_output_tokens]
    long = [one.model.slug for one in current if one.default_max_output_tokens >= one.max_output_tokens]
    return every(current, long, "models in use", "answer at their longest by default")


CHECK = Check(
    "output-capped",
    COST,
    "Answers end where nobody says how long they may be",
    fix="Set the model's default output below its maximum.",
    link="providers.model",
    look=look,
)
