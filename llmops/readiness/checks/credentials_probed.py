"""Provider keys in use were tried."""

from __future__ import annotations

from llmops.providers.models import Credential
from llmops.readiness.finding import TESTING, Check, Finding, every


def look() -> Finding:
    active = list(Credential.objects.filter(state="active").select_related("provider"))
    bare = [
        f"{one.provider.slug}/{one.name}" for one in active if not (one.last_probe_at or one.last_used_at)
    ]
    return every(active, bare, "keys in use", "were never tried")


CHECK = Check(
    "credentials-probed",
    TESTING,
    "Provider keys in use were tried",
    fix="Press Probe on the credential's page.",
    link="providers.credential",
    look=look,
)
