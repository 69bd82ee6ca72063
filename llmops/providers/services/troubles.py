"""What data planes say about keys that they cannot read. Observations of processes, like a key's last use: no audit event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from django.db import transaction

from llmops.base.clock import database_now
from llmops.providers.models import Credential, CredentialTrouble

#: Rows of processes that ended without taking them back are removed after this long; nobody looks at them by then.
FORGOTTEN_AFTER = timedelta(days=1)


def report_unreadable(reasons: Mapping[str, str], *, process: UUID, host: str) -> None:
    """Keep what ``process`` cannot read now, as credential id -> sentence; what it said before and does not say now goes."""
    now = database_now()
    with transaction.atomic():
        CredentialTrouble.objects.filter(process=process).exclude(credential__in=list(reasons)).delete()
        CredentialTrouble.objects.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
        for credential in Credential.objects.filter(pk__in=list(reasons)).order_by("pk"):
            seen = {"host": host[:200], "reason": reasons[str(credential.pk)][:500], "seen_at": now}
            CredentialTrouble.objects.update_or_create(
                credential=credential, process=process, defaults=seen, create_defaults={**seen, "since": now}
            )
