"""Provider keys are younger than they may be."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from llmops.providers.models import Credential
from llmops.readiness.finding import SECURITY, Check, Finding, every


def look() -> Finding:
    now = timezone.now()
    active = list(Credential.objects.filter(state="active").select_related("provider"))
    old = [
        f"{one.provider.slug}/{one.name}"
        for one in active
        if (one.set_at or one.created_at)
        < now - timedelta(days=one.rotate_after_days or settings.PROVIDER_KEY_DAYS)
    ]
    return every(active, old, "keys in use", "are older")


CHECK = Check(
    "provider-keys-young",
    SECURITY,
    "Provider keys are younger than they may be",
    fix="Rotate the key; the page of the credential says how old it may be.",
    link="providers.rotation",
    look=look,
)
