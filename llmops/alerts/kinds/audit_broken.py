"""The trail of changes does not hold together."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind
from llmops.audit.checking import check_newest
from llmops.audit.models import Verification


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    """What the last verification found, and whether the newest events still follow from one another."""
    last = Verification.objects.exclude(state=Verification.RUNNING).order_by("-started_at").first()
    if last is not None and last.state == Verification.BROKEN:
        yield Finding(
            subject="verification",
            title="The audit trail was changed",
            says=f"The verification of {last.started_at:%Y-%m-%d %H:%M} UTC found: {'; '.join(map(str, last.problems[:3]))}"[:480],
            facts={"page": "dashboards:audit_verify"},
        )  # fmt: skip
    if problem := check_newest():
        yield Finding(
            subject="newest",
            title="The newest events of the audit trail do not hold together",
            says=problem[:480],
            facts={"page": "dashboards:audit_verify"},
        )


KIND = Kind(
    name="audit_broken",
    title="The audit trail was changed",
    says="A verification found a change, or the newest events do not follow from one another.",
    look=_look,
    runbook="audit-broken",
    every_s=60,
)
