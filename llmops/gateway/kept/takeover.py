"""Responses in the background whose follower died or gave up: another process asks how they ended, and their charge follows.

A follower (``background.py``) lives in one process. When that dies, whoever finishes its journal books the call as unknown, at
its full hold; a follower that stops, or waits no longer, books it in the same way. The row of such a response is due like that
of an open batch, and any data plane claims it (``metering.py``). What it does depends on what is booked:

- nothing yet: the response is followed, or its journal is not read yet. Nothing is asked, the row is due again later.
- a bill that is known, or that a person has corrected: there is nothing to do, ever.
- the hold, because nobody knew: the provider is asked. Once the response has ended, what its usage costs takes the place of
  the hold, by the same correction that a person would make, with its reason and its event in the audit.

Settled once: a call is corrected only while it stands at the very charge that was seen before the provider was asked, in one
transaction with the row, which is done then. A follower never writes into a journal that others have finished.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from llmops.core.ids import uuid7_text
from llmops.gateway.attempts.upstream import Failed, failure_of_status, read_whole
from llmops.gateway.endpoints.base import ErrorInside, Whole, tier_answered
from llmops.gateway.kept.background import ENDED, LONGEST_S
from llmops.gateway.kept.claims import Books, Claim
from llmops.gateway.kept.lines import Reading
from llmops.gateway.kept.places import Place

if TYPE_CHECKING:
    from llmops.gateway.plane import Plane
    from llmops.usage.records import Tokens

log = logging.getLogger(__name__)

#: When the row of a response in the background is looked at first, and how the pauses grow, in seconds.
FIRST_LOOK_S, GROWTH, MOST_PAUSE_S = 60.0, 1.5, 900.0
#: Whoever followed it has given up by then, and whoever finishes its journal had time for it.
GIVE_UP_S = LONGEST_S + 86_400.0


class TakeOver:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def look(self, books: Books, claim: Claim) -> float | None:
        """Look after one row; in how many seconds it is due again, None for never."""
        owner = claim.owner
        call, started = owner.details.get("call"), owner.details.get("started")
        if not isinstance(call, str) or not isinstance(started, int):
            return None
        if time.time() - owner.made_at > GIVE_UP_S:
            return None
        pause = min(FIRST_LOOK_S * GROWTH ** min(claim.looks, 30), MOST_PAUSE_S)
        bill = await books.bill(call, started)
        if bill is None:
            return pause
        if not bill.open:
            return None
        place = self._place(claim)
        if place is None:
            return MOST_PAUSE_S
        try:
            said = await self._ask(place, owner.id)
        except Failed as failed:
            if failed.failure.status == 404:
                log.warning(
                    "the response %s is gone at %s: call %s stays at its hold", owner.id, owner.provider, call
                )
                return None
            return pause
        if said is None or said.status not in ENDED:
            return pause
        tokens = self._tokens(said)
        cost = self._cost(claim, tokens, started / 1e9)
        if tokens is None or cost is None:
            log.warning("what the response %s cost cannot be told: call %s stays at its hold", owner.id, call)
            return None
        reason = (
            f"The response {owner.id} at {owner.provider} was {said.status} after all: {tokens.input} tokens in, "
            f"{tokens.output} out, as the provider says."
        )
        await books.correct(claim, call, bill, cost, reason)
        return None

    def _place(self, claim: Claim) -> Place | None:
        owner, snapshot = claim.owner, self._plane.view.snapshot
        provider = snapshot.providers.get(owner.provider)
        credentials = snapshot.live.credentials.get(owner.provider, ())
        if provider is None or not credentials or owner.provider in snapshot.live.paused_providers:
            return None
        return Place(provider, tuple(sorted(credentials, key=lambda one: one.id != owner.credential)))

    async def _ask(self, place: Place, response_id: str) -> Whole | None:
        from llmops.gateway.endpoints.responses import RESPONSES

        channel, credential = self._plane.transport.channel(place.provider), place.credentials[0]
        channel.in_flight += 1
        try:
            response = await channel.forward(
                "GET", f"/responses/{response_id}", b"", [], None, credential, f"{uuid7_text()}.1", Reading()
            )
            try:
                if response.status != 200:
                    raise Failed(await failure_of_status(response, credential, names_model=False))
                return RESPONSES.whole(await read_whole(response))
            finally:
                response.release()
        except ErrorInside:
            return None
        finally:
            channel.in_flight -= 1

    @staticmethod
    def _tokens(said: Whole) -> Tokens | None:
        from llmops.gateway.endpoints.responses import usage_of

        tokens = usage_of(said.usage)
        if tokens is not None and said.tier:
            tokens.tier = tier_answered(said.tier)
        return tokens

    def _cost(self, claim: Claim, tokens: Tokens | None, at: float) -> int | None:
        """At the prices of the model that was called, as they were when the call began."""
        model: Any = claim.owner.details.get("model")
        target = self._plane.view.targets.get(model) if isinstance(model, str) else None
        prices = target.prices.at(at) if target is not None else None
        if tokens is None or prices is None:
            return None
        return (prices.of_tier(tokens.tier) if tokens.tier else prices).cost(tokens)
