"""Kept objects in the database, read by a thread of its own: the shelf behind ``objects.Objects``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.db import DatabaseError, InterfaceError, transaction
from django.db.models import Q

from llmops.base.clock import database_now
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.digests import short_digest
from llmops.core.errors import Conflict, NotFound
from llmops.gateway.database import drop_connection, use_own_connection
from llmops.gateway.kept.claims import Bill, Claim
from llmops.gateway.kept.owners import Owner, ShelfAway, item_of
from llmops.usage.models import Call, Correction, KeptItem, KeptObject
from llmops.usage.services import correct_call

log = logging.getLogger(__name__)

#: Ids that are asked for in one query at most.
_AT_ONCE = 500
#: Rows that one query of things inside of objects brings at most: a provider may give one id again and again.
_AT_MOST = 20 * _AT_ONCE
#: Rows that are tried when others claim at the same time.
_CANDIDATES = 5
Result = TypeVar("Result")
#: Who corrects what a call cost when a response has ended that its process did not see to its end.
_ACTOR = Actor(kind="system", identifier="gateway", name="data plane")


class DatabaseShelf:
    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="gateway-shelf", initializer=use_own_connection
        )

    async def find(self, ids: Collection[str]) -> list[Owner]:
        return await self._in_thread(partial(find, list(ids)))

    async def claim(self, token: str, seconds: float) -> Claim | None:
        return await self._in_thread(partial(claim, token, seconds))

    async def put_back(self, claim: Claim, due_in: float | None) -> None:
        await self._in_thread(partial(put_back, claim, due_in))

    async def bill(self, call: str, started: int) -> Bill | None:
        return await self._in_thread(partial(bill, call, started))

    async def correct(self, claim: Claim, call: str, bill: Bill, cost: int, reason: str) -> None:
        await self._in_thread(partial(correct, claim, call, bill, cost, reason))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        self._thread.submit(drop_connection)
        self._thread.shutdown(wait=False)


def find(ids: list[str]) -> list[Owner]:
    """The objects with these ids. Raises ``ShelfAway``."""
    try:
        found: list[Owner] = []
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            found += map(owner_of, KeptObject.objects.filter(object_id__in=some))
            digests = {short_digest(one): one for one in some}
            found += [
                item_of(owner_of(row.kept), digests[row.digest])
                for row in KeptItem.objects.filter(digest__in=digests).select_related("kept")[:_AT_MOST]
            ]
        return found
    except (DatabaseError, InterfaceError) as error:
        drop_connection()
        raise ShelfAway from error


def claim(token: str, seconds: float) -> Claim | None:
    """The row that is due longest and nobody looks after, by one conditional update. Raises ``ShelfAway``."""
    try:
        now = database_now()
        free = Q(claimed_until=None) | Q(claimed_until__lte=now)
        for row in KeptObject.objects.filter(free, due_at__lte=now).order_by("due_at")[:_CANDIDATES]:
            change = {
                "claimed_by": token,
                "claimed_until": now + timedelta(seconds=seconds),
                "looks": row.looks + 1,
            }
            expect = {"claimed_by": row.claimed_by, "claimed_until": row.claimed_until, "looks": row.looks}
            if compare_and_set(row, expect=expect | {"due_at": row.due_at}, change=change):
                return Claim(row=row.pk, token=token, owner=owner_of(row), looks=row.looks)
        return None
    except (DatabaseError, InterfaceError) as error:
        drop_connection()
        raise ShelfAway from error


def put_back(claim: Claim, due_in: float | None) -> None:
    """The row is due in so many seconds (None: never), unless its cost is booked by now or somebody else has it. Raises
    ``ShelfAway``."""
    try:
        ours = KeptObject.objects.filter(pk=claim.row, claimed_by=claim.token, metered_at=None)
        due = None if due_in is None else database_now() + timedelta(seconds=due_in)
        ours.update(due_at=due, claimed_by="", claimed_until=None)
    except (DatabaseError, InterfaceError) as error:
        drop_connection()
        raise ShelfAway from error


def bill(call: str, started: int) -> Bill | None:
    """What is booked of a call; None while nothing is. Raises ``ShelfAway``."""
    try:
        # Calls lie in tables by day: the time tells in which.
        at, around = datetime.fromtimestamp(started / 1e9, tz=UTC), timedelta(seconds=1)
        row = Call.objects.filter(pk=UUID(call), started_at__range=(at - around, at + around)).first()
        if row is None:
            return None
        corrected = Correction.objects.filter(call_id=row.pk).exists()
        return Bill(cost=row.cost_nano, open=row.charged_at_hold and not corrected)
    except (DatabaseError, InterfaceError) as error:
        drop_connection()
        raise ShelfAway from error


def correct(claim: Claim, call: str, bill: Bill, cost: int, reason: str) -> None:
    """The call cost so much instead of ``bill``, and the row is done, both or neither. Raises ``ShelfAway``."""
    try:
        with transaction.atomic():
            ours = KeptObject.objects.filter(pk=claim.row, claimed_by=claim.token, metered_at=None)
            if not ours.update(metered_at=database_now(), due_at=None, claimed_by="", claimed_until=None):
                return
            if cost != bill.cost:
                correct_call(
                    _ACTOR, call_id=UUID(call), cost_nano=cost, reason=reason, expected_nano=bill.cost
                )
    except (Conflict, NotFound) as error:
        log.info("call %s was not corrected: %s", call, error.message)
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
