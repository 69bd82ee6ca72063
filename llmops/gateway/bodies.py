"""The body of a call as it comes in, and what is kept of it while the call is under way.

What is kept is counted as it comes, for a key and its project (``core.portions``): however many clients send at once, and
however slowly, they take no more memory and no more room on the disk than there is for them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmops.core.errors import InvalidRequest, QueueFull, RequestTooLarge
from llmops.core.portions import AHEAD, UNCOUNTED
from llmops.core.texts import size_words
from llmops.gateway.call import ClientGone
from llmops.gateway.forms.spool import declared_length

if TYPE_CHECKING:
    from llmops.core.portions import Portion, SharedBytes
    from llmops.gateway.call import Call
    from llmops.serving.snapshot import KeyEntry

#: A body must be complete within this time.
BODY_TIMEOUT_S = 60.0
RETRY_AFTER_S = 2


async def read_body(call: Call) -> bytes:
    """Raises ``RequestTooLarge`` as soon as more than the limit has come, ``QueueFull`` as soon as more has come than there is
    room for, and ``ClientGone``."""
    largest = call.plane.max_body
    length = declared_length(call.headers)
    if length > largest:
        raise _too_large(largest)
    message = await call.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if len(body) != length and message.get("more_body"):
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                body = await _rest(call, body, largest)
        except TimeoutError:
            raise InvalidRequest(
                f"The body was not complete after {BODY_TIMEOUT_S:g} s.", code="request_timeout"
            ) from None
    if len(body) > UNCOUNTED:
        if len(body) > largest:
            raise _too_large(largest)
        keep(call, len(body))
    call.bytes_in = len(body)
    return body


async def _rest(call: Call, first: bytes, largest: int) -> bytes:
    # Small pieces are put together: a list of bytes that come one by one would take forty times their length.
    parts, small, size, counted = list[bytes](), bytearray(first), len(first), UNCOUNTED
    while True:
        if size > counted:
            if size > largest:
                raise _too_large(largest)
            counted = min(size + AHEAD, largest)
            keep(call, counted)
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if len(small) + len(part) > AHEAD:
            parts += (bytes(small), part)
            small.clear()
        else:
            small += part
        if not message.get("more_body"):
            return b"".join((*parts, small))


def keep(call: Call, memory: int, disk: int = 0) -> None:
    """From now on so many bytes of the body are kept in memory and on the disk. Raises ``QueueFull``."""
    key, plane = call.key, call.plane
    assert key is not None
    if call.in_memory is None:
        if memory <= UNCOUNTED and not disk:
            return
        call.in_memory = portion(call)
    if not call.in_memory.keep(memory):
        raise _no_room(plane.bodies, key, "CONSOLE_BODY_BYTES")
    if disk:
        if call.on_disk is None:
            call.on_disk = plane.spooled.portion(key.id, key.project_id)
        if not call.on_disk.keep(disk):
            raise _no_room(plane.spooled, key, "CONSOLE_SPOOL_BYTES")


def portion(call: Call) -> Portion:
    """For more that is kept of the call in memory; whoever asks closes it."""
    assert call.key is not None
    return call.plane.bodies.portion(call.key.id, call.key.project_id)


def _too_large(largest: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"The body is larger than the {size_words(largest)} that are read here. Send less in one request; whoever runs the "
        "gateway can allow more."
    )


def _no_room(room: SharedBytes, key: KeyEntry, setting: str) -> QueueFull:
    had = room.of_project(key.project_id)
    who = f"the project {key.project!r} has its share of that" if had else "other requests fill it"
    return QueueFull(
        f"This server keeps so many bytes of requests at once, and {who}. Try again when some of them are answered, send fewer "
        f"large ones at once or smaller ones, or ask an operator to raise {setting}.",
        code="bodies_full",
        retry_after=RETRY_AFTER_S,
    )
