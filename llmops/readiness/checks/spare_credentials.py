"""A provider key that is refused has a stand-in."""

from __future__ import annotations

from collections import Counter

from llmops.providers.models import Credential
from llmops.readiness.facts import providers_in_use
from llmops.readiness.finding import ERRORS, Check, Finding, every


def look() -> Finding:
    providers = providers_in_use()
    active = Credential.objects.filter(state="active").values_list("provider__slug", flat=True)
    counts = Counter(active)
    return every(
        providers,
        [slug for slug in providers if counts[slug] < 2],
        "providers in use",
        "have one key or none",
    )


CHECK = Check(
    "spare-credentials",
    ERRORS,
    "A provider key that is refused has a stand-in",
    fix="Add a second key of the provider, probe it and make it active.",
    link="providers.credential",
    look=look,
)
