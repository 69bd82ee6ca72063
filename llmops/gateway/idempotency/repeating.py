"""A request with an ``Idempotency-Key``: the first is answered, every other gets the first answer again, free.

What is remembered is what may have cost something: answers, and failures that may have been billed. What was refused before
anything came of it (limits, budgets, a bad request, no connection) is not: the key is free again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from llmops.core.errors import Conflict, ServiceUnavailable
from llmops.gateway import settle
from llmops.gateway.endpoints.base import Members
from llmops.gateway.idempotency.lead import First, Lead, decode_first
from llmops.gateway.idempotency.ledger import DONE, LOST, LedgerAway
from llmops.gateway.idempotency.seal import HEADER, SHOWN, Fingerprint, Seal
from llmops.gateway.policing import calls as policing

if TYPE_CHECKING:
    from llmops.gateway.call import Call
    from llmops.gateway.forms.multipart import Form

#: How long a request waits for the same one that is under way.
WAIT_S = 30.0
#: Between two looks at what another process has under way, growing.
FIRST_LOOK_S, LAST_LOOK_S = 0.05, 1.0
RETRY_AFTER_S = 2
#: Larger requests are digested beside the loop.
OFF_LOOP_BYTES = 32 * 1024


async def answered(call: Call, members: Members, form: Form | None = None) -> bool:
    """Whether the call was answered by what was answered before; otherwise it is the first, and its answer is kept.

    The key and its right to the route were looked at before, as for any call. Policies that were published since the first answer
    look at the request again, and may refuse it; the answer is given as it was then. Raises what policies raise, ``InvalidRequest`` for a bad key, ``UnprocessableEntity`` for one that was sent with another request, ``Conflict`` when
    the first answer cannot be given, ``ServiceUnavailable``.
    """
    plane, key = call.plane, call.key
    assert key is not None
    seal = Seal(plane.digest_key, key.project_id, call.headers[HEADER])
    asked = await _fingerprint(call, seal, members, form)
    request = seal.sealed(asked)
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + WAIT_S, FIRST_LOOK_S
    while True:
        try:
            entry = await plane.flights.claim(seal.name, call.id, request)
        except LedgerAway:
            raise ServiceUnavailable(
                f"It cannot be told whether a request with this {SHOWN} was answered before. Try again, or leave the header "
                "out to be answered in any case.",
                code="idempotency_unavailable",
                retry_after=1,
            ) from None
        if entry is None:
            call.lead = Lead(call, seal)
            return False
        try:
            seal.check(asked, entry.request)
            first = decode_first(seal.open(entry.answer)) if entry.state == DONE else None
        except ValueError:
            raise _unknown() from None
        if first is not None:
            await _again(call, first)
            return True
        if entry.state == LOST:
            raise _unknown()
        left = until - loop.time()
        if left <= 0:
            raise Conflict(
                f"The first request with this {SHOWN} is still under way. Ask again in a moment to get its answer.",
                code="idempotency_in_progress",
                retry_after=RETRY_AFTER_S,
            )
        over = plane.flights.over(seal.name)
        with suppress(TimeoutError):
            async with asyncio.timeout(left if over is not None else min(pause, left)):
                # In another process nobody tells when it is over.
                await (over or asyncio.Event()).wait()
        pause = min(pause * 2, LAST_LOOK_S)


async def _fingerprint(call: Call, seal: Seal, members: Members, form: Form | None) -> Fingerprint:
    name = call.endpoint.name
    if form is None:
        size = call.bytes_in
        if size <= OFF_LOOP_BYTES:
            return seal.fingerprint(name, members)
        return await call.plane.off_loop(lambda: seal.fingerprint(name, members), size=size)
    found = seal.fingerprint(name, {})
    for part in form.parts:
        # Clients make another boundary each time: what counts is what stands between.
        digest = seal.digest(found.get(part.name, b""), part.file)
        async for piece in form.content(part):
            digest.update(piece)
        found[part.name] = digest.digest()
    return found


async def _again(call: Call, first: First) -> None:
    if first.body is None or not first.status:
        why = "has no end" if not first.status else "was too large to be kept"
        raise Conflict(
            f"The first request with this {SHOWN} was answered and is paid for (call {first.call}), but its answer {why}. Use a "
            "new key to ask again, at a new price.",
            code="idempotency_answer_not_kept",
        )
    resolution = call.resolution
    if (
        resolution is not None
        and resolution.guard is not None
        and first.revision != call.view.snapshot.revision
    ):
        await policing.before(call)
    call.bytes_out = len(first.body)
    settle.repeated(call, first)
    call.bytes_out = 0
    await call.send_again(first.status, first.headers, first.body, first.call)


def _unknown() -> Conflict:
    return Conflict(
        f"What became of the first request with this {SHOWN} is not known: the server that answered it stopped in the middle. It "
        "may have been paid for, so it is not sent again by itself. Use a new key to do so.",
        code="idempotency_outcome_unknown",
    )
