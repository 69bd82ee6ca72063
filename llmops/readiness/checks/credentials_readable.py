"""Every data plane can read the provider keys."""

from __future__ import annotations

from llmops.providers.models.health import CredentialTrouble
from llmops.readiness.finding import MONITORING, Check, Finding, none_of


def look() -> Finding:
    found = CredentialTrouble.objects.select_related("credential__provider")
    return none_of(
        sorted({f"{one.credential.provider.slug}/{one.credential.name} on {one.host}" for one in found}),
        "cannot be read",
        "All of them can.",
    )


CHECK = Check(
    "credentials-readable",
    MONITORING,
    "Every data plane can read the provider keys",
    fix="Look at the trouble on the credential's page: a file or variable is missing on a host.",
    link="providers.credential",
    look=look,
)
