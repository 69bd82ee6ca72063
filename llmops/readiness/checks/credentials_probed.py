"""Provider keys in use were tried, and worked."""

from __future__ import annotations

from llmops.providers.models import Credential
from llmops.readiness.finding import TESTING, Check, Finding, every


def look() -> Finding:
    active = list(Credential.objects.filter(state="active").select_related("provider"))
    bare = [f"{one.provider.slug}/{one.name}" for one in active if not _worked(one)]
    return every(active, bare, "keys in use", "were never tried, or failed when they were last")


def _worked(one: Credential) -> bool:
    if one.last_failure_at is None:
        return bool(one.last_probe_at or one.last_used_at)
    # A probe that works takes the failure away; a call that is answered leaves it there.
    return one.last_used_at is not None and one.last_used_at > one.last_failure_at


CHECK = Check(
    "credentials-probed",
    TESTING,
    "Provider keys in use were tried, and worked",
    fix="Press Probe on the credential's page.",
    link="providers.credential",
    look=look,
)
