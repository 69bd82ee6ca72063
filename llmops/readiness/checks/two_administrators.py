"""Two people can administer."""

from __future__ import annotations

from llmops.readiness.facts import administrators
from llmops.readiness.finding import SECURITY, Check, Finding, lacking, listed, met


def look() -> Finding:
    people = [one.get_username() for one in administrators()]
    return met(f"{listed(people)}.") if len(people) > 1 else lacking(f"{len(people)} administrator.")


CHECK = Check(
    "two-administrators",
    SECURITY,
    "Two people can administer",
    fix="Make a second person an administrator, so that one who is away or locked out stops nobody.",
    link="access.membership",
    look=look,
)
