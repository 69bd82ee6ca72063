"""What goes on: work at providers, and the data planes that there are. ``settings.WORK_ON_CREDENTIAL`` and
``settings.DATA_PLANES`` point here, for rooms below this one."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Count

from llmops.usage.models import Journal, KeptObject


def work_on_credential(credential: str) -> dict[str, int]:
    """What was begun with a provider key and has not ended at the provider, as kind -> how many."""
    rows = KeptObject.objects.filter(credential=credential, due_at__isnull=False, gone_at=None)
    return dict(rows.order_by().values_list("kind").annotate(number=Count("pk")))


def open_data_planes() -> list[tuple[UUID, str]]:
    """Id and host of each data-plane process whose journal is open."""
    return list(Journal.objects.filter(state=Journal.OPEN).order_by("host").values_list("pk", "host"))
