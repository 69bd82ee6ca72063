"""What sending a request to a provider is made of, whichever way it goes: who sends, what came back, what went wrong."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from llmops.gateway.attempts.failures import Failure

#: Why a connection could not be made for want of something here: files, memory, ports.
OURS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))


class Failed(Exception):
    """An attempt failed before anything of its answer could be used."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Broken(Exception):
    """What was said of an answer that broke, by a client of HTTP that has errors of its own."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


#: What reading an answer may raise, whichever way it comes; ``upstream.failure_of`` says what it means.
BROKE = (Broken, TimeoutError, OSError)


class Sending(Protocol):
    """Whoever sends a request, and wants to know whether the provider may have got any of it."""

    sent: bool

    @property
    def whose(self) -> str:
        """The project that it is for; empty for what the console does by itself."""


class Body(Protocol):
    """The body of an answer as it comes. Reading raises one of ``BROKE``."""

    async def readany(self) -> bytes:
        """At least something; empty at the end."""

    async def read(self, most: int = -1) -> bytes:
        """At most so many bytes; empty at the end."""

    def iter_any(self) -> AsyncIterator[bytes]:
        """Pieces as they come."""

    def at_eof(self) -> bool:
        """Whether everything was read."""


class Response(Protocol):
    """An answer whose head is there. Names in ``headers`` are asked for in lower case."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content_length(self) -> int | None: ...

    @property
    def content(self) -> Body: ...

    async def read(self) -> bytes:
        """The whole body. Raises one of ``BROKE``."""

    def close(self) -> None:
        """Nobody wants the rest: the connection is closed at once, so that the provider stops."""

    def release(self) -> object:
        """It is done with: its connection is kept if the answer was complete, closed otherwise."""
