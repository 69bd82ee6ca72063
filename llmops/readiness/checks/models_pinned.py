"""Models are pinned to a snapshot."""

from __future__ import annotations

from llmops.readiness.facts import current_versions
from llmops.readiness.finding import TESTING, Check, Finding, every


def look() -> Finding:
    current = current_versions()
    return every(
        current,
        [one.model.slug for one in current if one.floats],
        "models in use",
        "may change without notice",
    )


CHECK = Check(
    "models-pinned",
    TESTING,
    "Models are pinned to a snapshot",
    fix="Name the dated snapshot in place of an alias that floats.",
    link="providers.model",
    look=look,
)
