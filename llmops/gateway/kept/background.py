"""Responses that go on at the provider after their call was answered: followed until they end, settled once.

The money stays held and the call unrecorded until then. A follower asks the provider again and again, ever more slowly; a
client's own look at the response, or its cancellation, may bring the end sooner (``saw``). What cannot be followed to its
end is charged at its hold: a response that was deleted, one that takes longer than anybody waits, one that still runs when
the process stops. A process that dies leaves a hold without an end in its journal, which is booked in the same way.
What is booked at its hold so is looked after by ``takeover``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from llmops.core.errors import QueueFull
from llmops.gateway import settle
from llmops.gateway.attempts.failures import Failure
from llmops.gateway.attempts.trial import Trial
from llmops.gateway.attempts.upstream import Failed, read_whole
from llmops.gateway.endpoints.base import ErrorInside, Whole, tier_answered
from llmops.gateway.money import estimating
from llmops.gateway.throttling.sharing import Crowd, many
from llmops.serving.snapshot import CredentialEntry, ProviderEntry

if TYPE_CHECKING:
    from llmops.gateway.call import Call
    from llmops.gateway.plane import Plane

log = logging.getLogger(__name__)

#: States of a response that has not ended, and of one that has.
RUNNING = frozenset(("queued", "in_progress"))
ENDED = frozenset(("completed", "failed", "cancelled", "incomplete"))
#: Responses that one process follows at once.
MAX_FOLLOWED = 4_096
#: Seconds between two questions: the first, by how much they grow, the most.
FIRST_S, GROWTH, SLOWEST_S = 1.0, 1.5, 10.0
#: A response that takes longer is not waited for.
LONGEST_S = 6 * 3600.0
#: One question, and the last ones when the process stops, may take this long.
ASK_S, LAST_ASK_S = 30.0, 1.0

#: The kind of failure: the end of a response was not seen.
LOST = "lost"
STOPPED = "this server stopped while the response was still under way at the provider"
DELETED = "the response was deleted at the provider before it had ended"
TOO_LONG = f"the response had not ended after {LONGEST_S / 3600:g} hours"


class Followed:
    """One response under way."""

    __slots__ = ("call", "ending", "id", "look", "seen", "task", "trial")

    def __init__(self, call: Call, trial: Trial, response_id: str) -> None:
        self.call = call
        self.trial = trial
        self.id = response_id
        #: somebody has seen the end and settles it
        self.ending = False
        #: set to look at once
        self.look = asyncio.Event()
        #: how it ended, as somebody else saw it
        self.seen: tuple[Whole, bytes] | None = None
        self.task: asyncio.Task[None] | None = None


class _Looking:
    """A request that costs nothing, wherever it got to."""

    sent = False
    whose = ""


class Background:
    """All responses that this process follows. Belongs to the event loop."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._followed: dict[tuple[str, str], Followed] = {}
        self._crowd = Crowd()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._followed)

    def credentials(self) -> list[str]:
        """Of each response that is followed, the id of the credential that made it."""
        return [one.trial.step.credential.id for one in self._followed.values()]

    def room(self, project: str) -> None:
        """Raises ``QueueFull`` when no further response of ``project`` can be followed."""
        if len(self._followed) >= MAX_FOLLOWED:
            raise QueueFull(
                "This server follows as many background responses as it can. Try again when some have ended.",
                retry_after=10,
            )
        if len(self._followed) >= many(MAX_FOLLOWED):
            whose = (one.call.key.project_id for one in self._followed.values() if one.call.key is not None)
            if not self._crowd.takes(project, MAX_FOLLOWED, lambda: whose, time.monotonic()):
                raise QueueFull(
                    "This server follows nearly as many background responses as it can, and this project has its share of them. "
                    "Try again when some have ended.",
                    retry_after=10,
                )

    def follow(self, call: Call, trial: Trial, response_id: str) -> None:
        """From now on the call is settled and recorded here, and nowhere else."""
        trial.followed = call.ended = call.reached = True
        one = Followed(call, trial, response_id)
        self._followed[trial.record.provider, response_id] = one
        one.task = asyncio.get_running_loop().create_task(self._until_ended(one))

    def saw(self, provider: str, response_id: str, body: bytes) -> None:
        """The provider said how a response is: it is settled now, if it has ended."""
        one = self._followed.get((provider, response_id))
        if one is None or one.ending:
            return
        said = _read(one, body)
        if said is not None and said.status in ENDED:
            one.seen = said, body
            one.look.set()

    def gone(self, provider: str, response_id: str) -> None:
        """A response was deleted."""
        one = self._followed.get((provider, response_id))
        if one is not None:
            one.look.set()

    async def close(self) -> None:
        """The process stops: ask once more, and charge what still runs at its hold."""
        self._stopping = True
        tasks = []
        for one in self._followed.values():
            one.look.set()
            if one.task is not None:
                tasks.append(one.task)
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_ASK_S)
        for one in list(self._followed.values()):
            if one.task is not None:
                one.task.cancel()
            self._unknown(one, STOPPED)

    # ------------------------------------------------------------------ one response

    async def _until_ended(self, one: Followed) -> None:
        delay, over = FIRST_S, time.monotonic() + LONGEST_S
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await one.look.wait()
                one.look.clear()
                if one.seen is not None:
                    await self._settle(one, *one.seen)
                    return
                status, body = await self._ask(one)
                said = _read(one, body) if status == 200 else None
                if said is not None and said.status in ENDED:
                    await self._settle(one, said, body)
                    return
                if status == 404:
                    self._unknown(one, DELETED)
                    return
                if self._stopping:
                    self._unknown(one, STOPPED)
                    return
                if time.monotonic() > over:
                    self._unknown(one, TOO_LONG)
                    return
                delay = min(delay * GROWTH, SLOWEST_S)
        except Exception:
            log.exception("the background response of call %s cannot be followed", one.call.id)
            self._unknown(one, "an error of the console itself")

    async def _ask(self, one: Followed) -> tuple[int, bytes]:
        """The provider's answer to a look at the response; status 0 when there is none."""
        provider, credential = self._where(one)
        channel = self._plane.transport.channel(provider)
        channel.in_flight += 1
        response = None
        try:
            async with asyncio.timeout(LAST_ASK_S if self._stopping else ASK_S):
                response = await channel.forward(
                    "GET",
                    f"/responses/{one.id}",
                    b"",
                    [],
                    None,
                    credential,
                    f"{one.call.id}.look",
                    _Looking(),
                )
                return response.status, await read_whole(response)
        except (Failed, TimeoutError):
            return 0, b""
        finally:
            channel.in_flight -= 1
            if response is not None:
                response.release()

    def _where(self, one: Followed) -> tuple[ProviderEntry, CredentialEntry]:
        """The provider as it is configured now, and the credential that made the response while it is in use."""
        step, snapshot = one.trial.step, self._plane.snapshot
        slug = step.target.provider.slug
        credentials = snapshot.live.credentials.get(slug, ())
        same = next((each for each in credentials if each.id == step.credential.id), None)
        credential = same or (credentials[0] if credentials else step.credential)
        return snapshot.providers.get(slug, step.target.provider), credential

    async def _settle(self, one: Followed, said: Whole, body: bytes) -> None:
        call, trial = one.call, one.trial
        if one.ending:
            return
        one.ending = True
        tokens = await estimating.of_whole(call, trial, call.endpoint, said, body)
        unknown = tokens.estimated and estimating.hides(call, trial, said.thought)
        if said.tier:
            tokens.tier = tier_answered(said.tier)
        cancelled = said.status == "cancelled"
        try:
            settle.answered(
                call,
                trial,
                tokens,
                said,
                charge_hold=unknown,
                status=settle.CLIENT_CLOSED if cancelled else settle.OK,
                code="cancelled" if cancelled else "",
                message="the response was cancelled" if cancelled else "",
            )
        finally:
            self._forget(one)

    def _unknown(self, one: Followed, why: str) -> None:
        if one.ending:
            return
        one.ending = True
        try:
            failure = Failure(LOST, why, status=one.trial.record.status, billed=None)
            settle.gave_up(one.call, one.trial, failure, http=200, code="background_unknown")
        finally:
            self._forget(one)

    def _forget(self, one: Followed) -> None:
        self._followed.pop((one.trial.record.provider, one.id), None)


def _read(one: Followed, body: bytes) -> Whole | None:
    try:
        return one.call.endpoint.whole(body)
    except ErrorInside:
        return None
