"""What a batch cost, counted once when it has ended, whichever process sees that.

The row of a batch says when somebody is to look (``due_at``). A data plane claims it by one conditional update, for a
while (``claimed_until``); it asks the provider, and puts the row back for later while the batch runs. When the batch has
ended it adds up the usage of its output, line by line as it streams, holds it against the lines that asked (``believing``), prices that at the batch tier, and writes one
``Metered`` record into its journal, with the whole call ``batches.usage``.

Counted exactly once: the ingester books a ``Metered`` record only if the row's ``metered_at`` is still empty, and fills it
in the same transaction as it books the call. So the claim saves work and decides nothing:

- killed after the claim, before the record: the claim runs out, another process begins anew; nothing was booked.
- killed after the record, before the row is put back: the journal is booked in the end, by whoever finds it. Another
  process may have counted again by then; of the two records the first that is booked counts, the other one does nothing.
- the record was written, but its journal is not booked for long, or never (its host is lost): the row stays due, a quarter
  of an hour later it is counted again, and again one record counts.
- two processes hold the claim, because the first was slower than it lasts: the same.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from llmops.budgets.scopes import scope_pairs
from llmops.core.cancelling import cancel
from llmops.core.ids import uuid7_text
from llmops.gateway.attempts.upstream import Failed, failure_of_status, read_whole
from llmops.gateway.kept.believing import Sums, add_tokens
from llmops.gateway.kept.claims import Claim, DeskAndBooks
from llmops.gateway.kept.lines import Reading, read_lines
from llmops.gateway.kept.objects import Objects
from llmops.gateway.kept.owners import FILE, RESPONSE, Owner, ShelfAway
from llmops.gateway.kept.places import Place
from llmops.gateway.kept.takeover import TakeOver
from llmops.gateway.routing import Target, View
from llmops.providers.rules import BATCH as BATCH_TIER
from llmops.usage.records import Ended, Metered, Origin, Outcome, Tokens

if TYPE_CHECKING:
    from llmops.gateway.plane import Plane
    from llmops.serving.snapshot import ModelEntry

log = logging.getLogger(__name__)

#: When a new batch is looked at first, and how the pauses grow while it runs, in seconds.
FIRST_LOOK_S, MOST_PAUSE_S = 5.0, 300.0
#: A claim lasts so long; a batch whose output takes longer to read may be read twice, and is counted once.
CLAIM_S = 600.0
#: A batch that was counted is due again after this time, if by then no journal with the count was booked.
COUNT_AGAIN_S = 900.0
#: A batch that the provider does not know any more is given up after this time; of output that makes no sense then counts
#: what does.
GIVE_UP_S = 3 * 86_400.0
#: How often a process looks for batches that are due while it found none.
_IDLE_S = 3.0
_REMEMBERED = 10_000
#: Lines that are looked at together, beside the loop, in bytes.
TOGETHER = 256 * 1024
#: What a file's id looks like that may stand in a path.
SAFE_FILE = re.compile(r"[A-Za-z0-9_-]{1,200}")
_OVER = frozenset(("completed", "failed", "expired", "cancelled"))


class _Batch(msgspec.Struct):
    status: str = ""
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None


_decode_batch = msgspec.json.Decoder(_Batch).decode


def target_named(view: View, provider: str, model: str, asked: Sequence[str] = ()) -> Target | None:
    """The model that a provider calls ``model`` in an answer: by that very name, by the dated name of one that floats, or
    the only one that was ``asked`` for."""
    here = [target for target in view.targets.values() if target.provider.slug == provider]
    for target in here:
        if target.entry.upstream_model == model:
            return target
    dated = [target for target in here if model.startswith(target.entry.upstream_model + "-")]
    if dated:
        return max(dated, key=lambda target: len(target.entry.upstream_model))
    if len(asked) == 1:
        return next((target for target in here if target.entry.upstream_model == asked[0]), None)
    return None


def note_files(objects: Objects, owner: Owner, batch: bytes) -> None:
    """The files that a batch came to are its owner's."""
    try:
        said = _decode_batch(batch)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    for name in (said.output_file_id, said.error_file_id):
        if name:
            objects.came_of(FILE, name, owner, details={"batch": owner.id})


class Metering:
    """Looks after the open batches of the installation, and after responses that nobody follows any more, one at a time in each
    process. Belongs to the event loop."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._token = uuid7_text()
        self._task: asyncio.Task[None] | None = None
        self._next = 0.0
        #: batches that this process counted, for its metrics
        self._counted: dict[str, None] = {}
        self.desk: DeskAndBooks | None = None
        self._take_over = TakeOver(plane)

    def tick(self) -> None:
        now = time.monotonic()
        if self.desk is None or now < self._next or (self._task is not None and not self._task.done()):
            return
        self._next = now + _IDLE_S
        self._task = asyncio.get_running_loop().create_task(self._round())

    async def close(self) -> None:
        if self._task is not None:
            await cancel(self._task)

    async def _round(self) -> None:
        """Look after what is due, until nothing is."""
        desk = self.desk
        assert desk is not None
        try:
            while (claim := await desk.claim(self._token, CLAIM_S)) is not None:
                if claim.owner.kind == RESPONSE:
                    await desk.put_back(claim, await self._take_over.look(desk, claim))
                else:
                    await desk.put_back(claim, await self.look(claim))
        except ShelfAway:
            return
        except Exception:
            log.exception("open batches could not be looked after; they are tried again")

    async def look(self, claim: Claim) -> float:
        """Ask for the batch, and count it if it has ended; in how many seconds it is due again."""
        pause = min(FIRST_LOOK_S * 1.5 ** min(claim.looks, 30), MOST_PAUSE_S)
        place = self._place(claim.owner)
        if place is None:
            return MOST_PAUSE_S
        try:
            body = await self._batch(place, claim.owner.id)
            batch = _decode_batch(body)
            note_files(self._plane.objects, claim.owner, body)
            if batch.status not in _OVER:
                return pause
            sums = Sums(str(claim.owner.details.get("endpoint", "")))
            if batch.output_file_id:
                await self._sum(place, claim.owner, batch, sums)
            if sums.odd and not self._old(claim.owner):
                log.warning("the output of the batch %s is not what it should be", claim.owner.id)
                return MOST_PAUSE_S
        except Failed as failed:
            if failed.failure.status != 404 or not self._old(claim.owner):
                log.warning(
                    "the batch %s at %s: %s", claim.owner.id, place.provider.slug, failed.failure.message
                )
                return MOST_PAUSE_S
            self._write(claim.owner, Sums(), "the provider does not know it any more", code="batch_lost")
            return COUNT_AGAIN_S
        except (msgspec.DecodeError, UnicodeDecodeError):
            return MOST_PAUSE_S
        self._write(claim.owner, sums, f"{batch.status}: {sums.lines} lines answered")
        return COUNT_AGAIN_S

    @staticmethod
    def _old(owner: Owner) -> bool:
        return time.time() - owner.made_at > GIVE_UP_S

    def _place(self, owner: Owner) -> Place | None:
        """Where the batch is; None while it cannot be reached."""
        snapshot = self._plane.view.snapshot
        provider = snapshot.providers.get(owner.provider)
        credentials = snapshot.live.credentials.get(owner.provider, ())
        if provider is None or not credentials or owner.provider in snapshot.live.paused_providers:
            return None
        return Place(provider, tuple(sorted(credentials, key=lambda one: one.id != owner.credential)))

    async def _batch(self, place: Place, batch_id: str) -> bytes:
        channel = self._plane.transport.channel(place.provider)
        channel.in_flight += 1
        try:
            credential = place.credentials[0]
            response = await channel.forward(
                "GET", f"/batches/{batch_id}", b"", [], None, credential, f"{uuid7_text()}.1", Reading()
            )
            try:
                if response.status != 200:
                    raise Failed(await failure_of_status(response, credential, names_model=False))
                return await read_whole(response)
            finally:
                response.release()
        finally:
            channel.in_flight -= 1

    async def _sum(self, place: Place, owner: Owner, batch: _Batch, sums: Sums) -> None:
        view, asked = self._plane.view, _texts(owner.details.get("models"))
        known: dict[str, ModelEntry | None] = {}

        def entry_of(model: str) -> ModelEntry | None:
            if model not in known:
                target = target_named(view, owner.provider, model, asked)
                known[model] = target.entry if target is not None else None
            return known[model]

        assert batch.output_file_id is not None
        await self._read(place, batch.output_file_id, lambda lines: sums.add_all(lines, entry_of))
        source = owner.details.get("input") or batch.input_file_id
        if not isinstance(source, str) or not SAFE_FILE.fullmatch(source):
            return
        try:
            await self._read(place, source, lambda lines: sums.check(lines, entry_of))
        except Failed as failed:
            # What was deleted cannot be looked at any more: then what is stated is believed.
            if failed.failure.status != 404:
                raise

    async def _read(self, place: Place, file_id: str, work: Callable[[list[bytes]], None]) -> None:
        """``work`` on the lines of a file, some at a time, beside the loop."""
        some: list[bytes] = []
        size = 0
        async for line in read_lines(self._plane.transport, place, file_id, f"{uuid7_text()}.1"):
            some.append(line)
            size += len(line)
            if size > TOGETHER:
                await self._plane.off_loop(partial(work, some), size=size)
                some, size = [], 0
        if some:
            await self._plane.off_loop(partial(work, some), size=size)

    def _write(self, owner: Owner, sums: Sums, said: str, *, code: str = "") -> None:
        """One record with the whole of it."""
        plane, known = self._plane, owner.details
        now = time.time_ns()
        total, cost, unpriced = Tokens(), 0, 0
        dearest: tuple[int, Target | None, str] = (-1, None, "")
        for name, tokens in sums.by_model.items():
            target = target_named(plane.view, owner.provider, name, _texts(known.get("models")))
            prices = target.prices.at(now / 1e9) if target is not None else None
            spent = prices.of_tier(BATCH_TIER).cost(tokens) if prices is not None else 0
            unpriced += prices is None
            cost += spent
            add_tokens(total, tokens)
            dearest = max(dearest, (spent, target, name), key=lambda one: one[0])
        total.tier = BATCH_TIER
        if unpriced:
            said += f"; {unpriced} models have no price here"
        if sums.silent or sums.odd:
            said += f"; {sums.silent + sums.odd} lines tell no usage"
        if sums.doubted:
            said += f"; of {sums.doubted} lines the stated usage cannot be true: it was counted"
        if sums.strange:
            said += f"; {sums.strange} lines answer what was not asked, and do not count"
        _, target, name = dearest
        outcome = Outcome(
            status="ok" if not code else "error",
            http=200 if not code else 404,
            provider=owner.provider,
            model=target.slug if target is not None else "",
            model_version=target.entry.version if target is not None else None,
            upstream_model=name[:120],
            code=code,
            message=said[:300],
            tokens=total,
            cost=cost,
        )
        origin = Origin(
            call=uuid7_text(),
            started=now,
            project=owner.project,
            key=owner.key,
            endpoint="batches.usage",
            revision=plane.view.snapshot.revision,
            feature=str(known.get("feature", "")),
            user=str(known.get("user", "")),
            session=str(known.get("session", "")),
            tags=_texts(known.get("tags")),
        )
        end = Ended(
            n=0,
            at=now,
            attempt=0,
            origin=origin,
            soft=self._budgets(owner),
            cost=cost,
            outcome=outcome,
        )
        plane.write(Metered(n=0, at=now, object=owner.id, provider=owner.provider, end=end))
        if owner.id not in self._counted:
            # Of several records about one batch one is booked, and here one is counted.
            self._counted[owner.id] = None
            if len(self._counted) > _REMEMBERED:
                self._counted.pop(next(iter(self._counted)))
            plane.metrics.spent(end)

    def _budgets(self, owner: Owner) -> list[str]:
        """Those it was made under, and those that by now hold for its project and key; a hard one among them is charged
        as far as it has room, and what is left is its overrun."""
        view = self._plane.view
        project = str(owner.details.get("project", ""))
        found = dict.fromkeys(_texts(owner.details.get("budgets")))
        for pair in scope_pairs(project=project, key=owner.key, route=""):
            for budget in view.snapshot.budgets_by_scope.get(pair, ()):
                if budget.project in (None, project):
                    found[budget.id] = None
        return [budget for budget in found if budget in view.budgets_by_id]


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
