"""Reading a file of lines that a provider keeps, as it streams: the input and the output of batches."""

from __future__ import annotations

from collections.abc import AsyncIterator

from llmops.gateway.attempts.failures import MALFORMED, Failure
from llmops.gateway.attempts.upstream import BROKE, Failed, Transport, failure_of, failure_of_status
from llmops.gateway.kept.places import Place

#: A line longer than this is none.
MAX_LINE = 32 * 1024 * 1024


class Reading:
    """Whoever reads, as the transport sees it."""

    sent = False
    whose = ""


async def read_lines(transport: Transport, place: Place, file_id: str, name: str) -> AsyncIterator[bytes]:
    """The lines of a file at ``place``, without their ends; empty ones are left out. ``name`` stands for the request.

    Raises ``Failed``. ``file_id`` must be safe in a path.
    """
    channel = transport.channel(place.provider)
    channel.in_flight += 1
    response = None
    try:
        credential = place.credentials[0]
        response = await channel.forward(
            "GET", f"/files/{file_id}/content", b"", [], None, credential, name, Reading()
        )
        if response.status != 200:
            raise Failed(await failure_of_status(response, credential, names_model=False))
        rest: list[bytes] = []
        size = 0
        async for piece in response.content.iter_any():
            *whole, last = piece.split(b"\n")
            if whole:
                rest.append(whole[0])
                whole[0] = b"".join(rest)
                rest, size = [], 0
                for line in whole:
                    if line and not line.isspace():
                        yield line
            rest.append(last)
            size += len(last)
            if size > MAX_LINE:
                raise Failed(Failure(MALFORMED, "a line of the file is longer than any real one"))
        if (line := b"".join(rest)) and not line.isspace():
            yield line
    except BROKE as error:
        raise Failed(failure_of(error)) from error
    finally:
        channel.in_flight -= 1
        if response is not None:
            response.close()
