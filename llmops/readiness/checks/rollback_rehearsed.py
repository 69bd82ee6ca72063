"""Going back to an earlier revision was rehearsed."""

from __future__ import annotations

from llmops.readiness.finding import TESTING, Check, Finding, lacking, met
from llmops.serving.models import Revision


def look() -> Finding:
    last = Revision.objects.exclude(restores=None).order_by("-number").first()
    return (
        met(f"Revision {last.number} restored {last.restores}.")
        if last
        else lacking("Nobody ever went back.")
    )


CHECK = Check(
    "rollback-rehearsed",
    TESTING,
    "Going back to an earlier revision was rehearsed",
    fix="Restore an earlier revision once, and restore the newest again.",
    link="serving.revision",
    look=look,
)
