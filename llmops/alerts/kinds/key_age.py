"""Provider keys that are due to be rotated."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind
from llmops.providers.selectors import keys_due


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    for due in keys_due(figures.now):
        yield Finding(
            subject=f"credential:{due.credential.pk}",
            title=f"A provider key is due to be rotated: {due.credential}",
            says=f"It is {due.in_words()}.",
            value=float(due.days),
            bound=float(due.after),
            facts={"page": "admin:providers_credential_change", "object": str(due.credential.pk)},
        )


KIND = Kind(
    name="key_age",
    title="A provider key is due",
    says="Provider keys in use that are older than they are to become (each key's own setting, or the installation's).",
    look=_look,
    runbook="rotate-a-provider-key",
    every_s=300,
)
