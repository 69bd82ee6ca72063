"""What data planes say they still do on keys that are draining. Observations of processes: no audit event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from django.db import transaction

from llmops.base.clock import database_now
from llmops.providers.models import Credential, CredentialUse

#: Rows of processes that ended without taking them back.
FORGOTTEN_AFTER = timedelta(hours=1)


def report_uses(uses: Mapping[str, tuple[int, int]], *, process: UUID, host: str) -> None:
    """Keep what ``process`` does now on draining keys, as credential id -> (calls, responses in the background)."""
    now = database_now()
    with transaction.atomic():
        CredentialUse.objects.filter(process=process).exclude(credential__in=list(uses)).delete()
        CredentialUse.objects.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
        for credential in Credential.objects.filter(pk__in=list(uses)).order_by("pk"):
            calls, background = uses[str(credential.pk)]
            CredentialUse.objects.update_or_create(
                credential=credential,
                process=process,
                defaults={"host": host[:200], "calls": calls, "background": background, "seen_at": now},
            )
