"""Whose object is it: responses, files, batches, stored chats, whatever a provider made for a call and keeps.

An object belongs to the project whose key made it, and stays at the provider (and with the credential) that made it. Its
id is the provider's own, never rewritten. A creation is written into the journal before its answer goes out and remembered
in this process; other processes find it in the database, as soon as the journal is booked. So who asks for an id that is
not known waits a moment for it, and only then it is not there. Another project's id is not there in the very same way.
Who asks again for what was not there is told after one look; and when too many wait, the project that has the most of
them waiting loses one: no project's made-up ids stand in another's way.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from llmops.core.cancelling import cancel
from llmops.core.errors import QueueFull
from llmops.gateway.kept.memory import Memory
from llmops.gateway.kept.owners import (
    ITEM,
    NoShelf,
    Owner,
    Shelf,
    ShelfAway,
    cannot_tell,
    fits,
    item_of,
    may_be_id,
    not_there,
)
from llmops.serving.snapshot import KeyEntry
from llmops.usage.records import Gone, Holds, Kept, Record

log = logging.getLogger(__name__)

#: An object that another process made is booked within about this time (seconds).
PATIENCE_S = 2.0
#: Who asks gets an answer within this time, also when the database gives none.
_MOST_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.1
#: Objects that a process remembers by itself, and things inside of them.
REMEMBERED, ITEMS_REMEMBERED = 20_000, 50_000
#: Things inside of one object that are noted.
MAX_ITEMS = 1_000
#: Ids that are looked up at once, over all projects, which share these places fairly.
MAX_WAITING = 2_000
#: That an id is not there is remembered for so long (seconds), and of so many ids.
ABSENT_S, ABSENT_REMEMBERED = 60.0, 20_000


class _Waiter:
    __slots__ = ("found", "id", "kind", "project", "until")

    def __init__(self, kind: str | None, object_id: str, project: str, patience: float) -> None:
        self.kind = kind
        self.id = object_id
        self.project = project
        #: from when on an id that is not found is not there
        self.until = time.monotonic() + patience
        self.found: asyncio.Future[Owner] = asyncio.get_running_loop().create_future()


class Objects:
    """The registry of one process. Belongs to its event loop. ``record`` writes into the journal."""

    def __init__(self, record: Callable[[Record], None], shelf: Shelf | None = None) -> None:
        self._record = record
        self.shelf: Shelf = shelf or NoShelf()
        self._known = Memory(REMEMBERED)
        self._items = Memory(ITEMS_REMEMBERED)
        #: project -> who waits there, who came last at the end
        self._waiting: dict[str, dict[_Waiter, None]] = {}
        self._waiters = 0
        #: (project, id) -> until when it is remembered that it was not there, the longest ago first
        self._absent: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._looking: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------ made and gone

    def made(
        self,
        kind: str,
        object_id: str,
        *,
        key: KeyEntry,
        provider: str,
        credential: str = "",
        model: str = "",
        details: dict[str, Any] | None = None,
        due_in: float | None = None,
        items: Collection[str] = (),
    ) -> None:
        """The provider made an object for a call of ``key``. To be called before the client learns its id.

        ``due_in``: somebody is to look after it in so many seconds. ``items``: what it holds that has ids of its own.
        """
        if not may_be_id(object_id):
            return
        now = time.time_ns()
        owner = Owner(
            kind=kind,
            id=object_id,
            project=key.project_id,
            key=key.id,
            provider=provider,
            credential=credential,
            model=model,
            made_at=now / 1e9,
            details=details or {},
        )
        known = self._known.get(owner.project, object_id)
        if known is not None and not known.gone and (known.provider, known.kind) == (provider, kind):
            self.holds(known, items)
            return
        named = self._hold(owner, items)
        self._keep(owner, now, due=0 if due_in is None else now + int(due_in * 1e9), items=named)

    def holds(self, owner: Owner, items: Collection[str]) -> None:
        """A client is about to learn the ids of things inside of an object."""
        if items and (named := self._hold(owner, items)):
            self._record(
                Holds(
                    n=0,
                    at=time.time_ns(),
                    object=owner.id,
                    provider=owner.provider,
                    project=owner.project,
                    items=named,
                )
            )

    def known(self, kind: str | None, object_id: str, project_id: str) -> Owner | None:
        """The object of the project, or the thing inside of one, if this process knows it and it is not gone."""
        found = self._recall(kind, object_id, project_id)
        return None if found is None or found.gone else found

    def _recall(self, kind: str | None, object_id: str, project: str) -> Owner | None:
        found = None if kind == ITEM else self._known.get(project, object_id)
        if found is None and kind in (ITEM, None):
            found = self._items.get(project, object_id)
        return found if found is not None and fits(found, kind) else None

    def _hold(self, owner: Owner, items: Collection[str]) -> list[str]:
        """Remember what an object holds; what of it was not known before."""
        new = []
        for one in list(dict.fromkeys(items))[:MAX_ITEMS]:
            known = self._items.get(owner.project, one)
            if may_be_id(one) and (known is None or known.provider != owner.provider):
                self._items.add(item_of(owner, one))
                new.append(one)
        return new

    def came_of(self, kind: str, object_id: str, of: Owner, *, details: dict[str, Any] | None = None) -> None:
        """The provider made an object out of another one, whose owner it has."""
        if not may_be_id(object_id) or self._known.get(of.project, object_id) is not None:
            return
        now = time.time_ns()
        owner = msgspec.structs.replace(
            of, kind=kind, id=object_id, made_at=now / 1e9, gone=False, metered=False, details=details or {}
        )
        self._keep(owner, now, due=0)

    def _keep(self, owner: Owner, at: int, *, due: int, items: list[str] | None = None) -> None:
        self._record(
            Kept(
                n=0,
                at=at,
                object=owner.id,
                kind=owner.kind,
                project=owner.project,
                key=owner.key,
                provider=owner.provider,
                credential=owner.credential,
                model=owner.model,
                details=dict(owner.details),
                due=due,
                items=items or [],
            )
        )
        self._remember(owner)

    def gone(self, owner: Owner) -> None:
        """The provider deleted the object."""
        self._record(
            Gone(n=0, at=time.time_ns(), object=owner.id, provider=owner.provider, project=owner.project)
        )
        self._remember(msgspec.structs.replace(owner, gone=True))

    # ------------------------------------------------------------------ whose is it

    async def owner(
        self, kind: str | None, object_id: str, project_id: str, *, afresh: bool = False
    ) -> Owner:
        """Where the object ``object_id`` of the project is; ``kind`` None takes any kind.

        ``afresh`` asks the database even for what this process knows. Raises ``NotFound``, in the same words for an id
        that nobody has and for one of another project, and ``ServiceUnavailable`` when that cannot be found out.
        """
        known = self._recall(kind, object_id, project_id)
        if known is not None and not afresh:
            if known.gone:
                raise not_there(object_id)
            return known
        if not may_be_id(object_id):
            raise not_there(object_id)
        waiter = self._wait(kind, object_id, project_id)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        try:
            async with asyncio.timeout(_MOST_PATIENCE_S):
                found = await waiter.found
        except TimeoutError:
            raise cannot_tell() from None
        finally:
            self._leave(waiter)
        if found.gone:
            raise not_there(object_id)
        return found

    def _wait(self, kind: str | None, object_id: str, project: str) -> _Waiter:
        """A place among those who wait. Raises ``QueueFull`` when no project has more of them than this one."""
        if self._waiters >= MAX_WAITING:
            fullest = max(self._waiting.values(), key=len)
            if len(fullest) <= len(self._waiting.get(project, ())) + 1:
                raise _too_many()
            # As if it had not been let in: it waited the least.
            last = next(reversed(fullest))
            self._leave(last)
            if not last.found.done():
                last.found.set_exception(_too_many())
        known_absent = self._absent.get((project, object_id), 0.0) > time.monotonic()
        waiter = _Waiter(kind, object_id, project, 0.0 if known_absent else PATIENCE_S)
        self._waiting.setdefault(project, {})[waiter] = None
        self._waiters += 1
        return waiter

    def _leave(self, waiter: _Waiter) -> None:
        there = self._waiting.get(waiter.project)
        if there is None or waiter not in there:
            return
        del there[waiter]
        self._waiters -= 1
        if not there:
            del self._waiting[waiter.project]

    async def owned(self, kind: str, ids: Collection[str], *, provider: str, project_id: str) -> set[str]:
        """Which of ``ids`` are objects of the project at ``provider``. Raises ``ServiceUnavailable``."""
        ours = set()
        unknown = []
        for one in ids:
            known = self._known.get(project_id, one)
            if known is None or known.provider != provider:
                unknown.append(one)
            elif known.kind == kind and not known.gone:
                ours.add(one)
        for found in await self._ask(unknown):
            if (found.project, found.provider, found.kind) == (project_id, provider, kind) and not found.gone:
                self._remember(found)
                ours.add(found.id)
        return ours

    async def foreign(
        self, ids: Collection[str], *, provider: str | None = None, project_id: str
    ) -> set[str]:
        """Which of ``ids`` are known to be objects of other projects, or to be in them, at ``provider`` (None: anywhere), and
        not of this one. Raises ``ServiceUnavailable``."""

        def there(one: Owner) -> bool:
            return provider is None or one.provider == provider

        memories = (self._known, self._items)
        unknown = [one for one in ids if all(memory.get(project_id, one) is None for memory in memories)]
        # What was made just now is not in the database yet.
        known = {one for one in unknown for memory in memories if any(map(there, memory.all_of(one)))}
        found = [one for one in await self._ask([one for one in unknown if one not in known]) if there(one)]
        ours = {one.id for one in found if one.project == project_id}
        return known | ({one.id for one in found} - ours)

    async def _ask(self, ids: Collection[str]) -> list[Owner]:
        sane = [one for one in ids if may_be_id(one)]
        if not sane:
            return []
        try:
            async with asyncio.timeout(_MOST_PATIENCE_S):
                return await self.shelf.find(sane)
        except (ShelfAway, TimeoutError):
            raise cannot_tell() from None

    async def _look(self) -> None:
        """Ask the database for all that is waited for together, round after round, while anybody waits."""
        try:
            while self._waiting:
                began = time.monotonic()
                waiting = [waiter for there in self._waiting.values() for waiter in there]
                found: list[Owner] | None = None
                try:
                    found = await self.shelf.find({waiter.id for waiter in waiting})
                except ShelfAway:
                    pass
                except Exception:
                    log.exception("kept objects could not be looked up")
                self._tell(waiting, found)
                await asyncio.sleep(max(0.0, began + _LOOK_EVERY_S - time.monotonic()))
        finally:
            self._looking = None

    def _tell(self, waiting: list[_Waiter], found: list[Owner] | None) -> None:
        now = time.monotonic()
        for waiter in waiting:
            if waiter.found.done():
                continue
            ours = [
                one
                for one in found or ()
                if one.id == waiter.id and one.project == waiter.project and fits(one, waiter.kind)
            ]
            if ours:
                # The same id at two providers: the one that was made last is meant.
                last = max(ours, key=lambda one: (not one.gone, one.made_at))
                self._remember(last)
                waiter.found.set_result(last)
            elif now >= waiter.until and found is None:
                waiter.found.set_exception(cannot_tell())
            elif now >= waiter.until:
                self._missed(waiter.project, waiter.id, now)
                waiter.found.set_exception(not_there(waiter.id))

    def _missed(self, project: str, object_id: str, now: float) -> None:
        """An id was waited for in vain: who asks for it again gets one look and no patience."""
        self._absent[project, object_id] = now + ABSENT_S
        self._absent.move_to_end((project, object_id))
        if len(self._absent) > ABSENT_REMEMBERED:
            self._absent.popitem(last=False)

    def _remember(self, owner: Owner) -> None:
        (self._items if owner.kind == ITEM else self._known).add(owner)

    async def close(self) -> None:
        if self._looking is not None:
            await cancel(self._looking)
        await self.shelf.close()


def _too_many() -> QueueFull:
    return QueueFull(
        "This project's calls name too many objects that are not known here, all at once: try again, or ask for fewer.",
        retry_after=1,
    )
