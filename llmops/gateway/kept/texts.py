"""What is asked, of some calls of a project that says so, for policies to be tried on: as policies left it, without keys and passwords,
cut to a bound, sealed before it is written down. Nothing of a call may fail for it."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING

import msgspec

from llmops.core.redaction import redact_text
from llmops.gateway.policing.texts import asked_places
from llmops.usage.records import TextKept, kept_text_identity

if TYPE_CHECKING:
    from llmops.gateway.call import Call

log = logging.getLogger(__name__)

#: Of the texts of one call together, in bytes.
MOST_BYTES = 32 * 1024
#: A larger request is not looked at for it: that would take longer than it is worth.
MOST_ASKED_BYTES = 1024 * 1024
_OFF_LOOP_BYTES = 16 * 1024
_encode = msgspec.json.Encoder().encode


async def keep(call: Call) -> None:
    """Write the texts of the request into the journal, if this call is one of those; sealed under the installation's key."""
    asked, resolution, origin, seal = call.asked, call.resolution, call.origin, call.plane.seal
    assert asked is not None and resolution is not None
    if seal is None or origin is None or asked.size > MOST_ASKED_BYTES:
        return
    if resolution.keeps < 100 and random.random() * 100 >= resolution.keeps:
        return

    def work() -> str:
        places, _ = asked_places(asked.members)
        texts = bounded([(place.text.role, place.text.text) for place in places])
        return seal(_encode(texts).decode(), kept_text_identity(call.id)) if texts else ""

    try:
        small = asked.size <= _OFF_LOOP_BYTES
        sealed = work() if small else await call.plane.off_loop(work, size=asked.size)
    except Exception as error:
        # A request that cannot be read is refused elsewhere; the text of an error may hold what was asked.
        log.warning("the texts of call %s are not kept (%s)", call.id, type(error).__name__)
        return
    if sealed:
        call.plane.write(
            TextKept(
                n=0,
                at=time.time_ns(),
                call=call.id,
                project=origin.project,
                route=origin.route,
                started=origin.started,
                sealed=sealed,
            )
        )


def bounded(texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Redacted, the last ones first where there is not room for all: what is asked now stands at the end."""
    left, kept = MOST_BYTES, list[tuple[str, str]]()
    for role, text in reversed(texts):
        if left <= 0:
            break
        # Cut by bytes before it is read for secrets, and again after it.
        cut = redact_text(_cut(text, left * 2))
        cut = _cut(cut, left)
        left -= len(cut.encode())
        kept.append((role, cut))
    return kept[::-1]


def _cut(text: str, most: int) -> str:
    return text if len(text) * 4 <= most else text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
