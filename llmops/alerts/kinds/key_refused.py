"""Provider keys that their provider refuses: revoked, leaked and blocked, or out of money."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind
from llmops.providers.selectors import refused_credentials


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    for credential, event in refused_credentials():
        yield Finding(
            subject=f"credential:{credential.pk}",
            title=f"A provider refuses a key: {credential}",
            says=f"{event.get_kind_display()} at {event.at:%Y-%m-%d %H:%M:%S} UTC ({event.text}). Calls go on with other keys, if there are any.",
            facts={"page": "admin:providers_credential_change", "object": str(credential.pk), "error": "upstream_auth"},
        )  # fmt: skip


KIND = Kind(
    name="key_refused",
    title="A provider refuses a key",
    says="Provider keys in use whose last word from their provider was a refusal.",
    look=_look,
    runbook="key-leaked",
)
