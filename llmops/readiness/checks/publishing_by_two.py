"""What goes live is seen by a second person."""

from __future__ import annotations

from llmops.readiness.finding import SECURITY, Check, Finding, lacking, met
from llmops.serving.models import PublishingRule


def look() -> Finding:
    rule = PublishingRule.objects.first()
    if rule is not None and (rule.always or rule.projects):
        return met("Always." if rule.always else "For some projects.")
    return lacking("One person alone publishes.")


CHECK = Check(
    "publishing-by-two",
    SECURITY,
    "What goes live is seen by a second person",
    fix="Ask for a second person under Revisions, Publishing rule.",
    link="serving.revision",
    look=look,
)
