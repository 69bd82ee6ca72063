"""Kept objects in the database, read by a thread of its own: the shelf behind ``objects.Objects``."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

from django.db import DatabaseError, InterfaceError

from llmops.gateway.database import drop_connection, use_own_connection
from llmops.gateway.objects import Owner, ShelfAway
from llmops.usage.models import KeptObject

#: Ids that are asked for in one query at most.
_AT_ONCE = 500


class DatabaseShelf:
    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="gateway-shelf", initializer=use_own_connection
        )

    async def find(self, ids: Collection[str]) -> list[Owner]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, find, list(ids))

    async def close(self) -> None:
        self._thread.submit(drop_connection)
        self._thread.shutdown(wait=False)


def find(ids: list[str]) -> list[Owner]:
    """The objects with these ids. Raises ``ShelfAway``."""
    try:
        return [
            owner_of(row)
            for start in range(0, len(ids), _AT_ONCE)
            for row in KeptObject.objects.filter(object_id__in=ids[start : start + _AT_ONCE])
        ]
    except (DatabaseError, InterfaceError) as error:
        drop_connection()
        raise ShelfAway from error


def owner_of(row: KeptObject) -> Owner:
    return Owner(
        kind=row.kind,
        id=row.object_id,
        project=str(row.project_id),
        key=str(row.key_id),
        provider=row.provider,
        credential=row.credential,
        model=row.model,
        made_at=row.made_at.timestamp(),
        gone=row.gone_at is not None,
        metered=row.metered_at is not None,
        details=row.details,
    )
