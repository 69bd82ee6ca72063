"""A request body that is too large to be held: in memory at first, in a file without a name from a megabyte on.

The file is unlinked as it is made, so that nothing is left of it however the process ends. It is written and read in threads,
a quarter of a megabyte at a time: neither a slow disk nor a large body makes other calls wait, and memory stays flat.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmops.core.errors import ServiceUnavailable

#: Bodies up to this size stay in memory.
IN_MEMORY = 1024 * 1024
_STEP = 256 * 1024
#: Of the disk so much stays free: the journal may lie on it as well, and without that nothing is answered any more.
LEFT_FREE = 64 * 1024 * 1024

OffLoop = Callable[[Callable[[], Any]], Awaitable[Any]]
#: Bytes of ours, or the stretch of the spooled body from one offset to another.
Segment = bytes | tuple[int, int]


class _File:
    """A descriptor that is closed when nobody holds it any more. Who writes to it or reads from it in a thread does, however
    the call ends meanwhile: the number of one that was closed may be another file's already."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Spool:
    """Bytes that are written once, from the start to the end, and read any number of times. ``close`` it."""

    __slots__ = ("_directory", "_file", "_off_loop", "_waiting", "_written", "size")

    def __init__(self, off_loop: OffLoop, directory: Path | None = None) -> None:
        self._off_loop = off_loop
        self._directory = directory
        self._file: _File | None = None
        #: what is not in the file (yet)
        self._waiting = bytearray()
        self._written = 0
        self.size = 0

    @property
    def on_disk(self) -> bool:
        return self._file is not None

    def with_more(self, data: bytes) -> tuple[int, int]:
        """Bytes in memory and on the disk once ``data`` is written, at most."""
        if self.on_disk or len(self._waiting) + len(data) > IN_MEMORY:
            # What is written is a copy, until it is.
            return 2 * (len(self._waiting) + len(data)), self.size + len(data)
        return len(self._waiting) + len(data), 0

    async def write(self, data: bytes) -> None:
        """Raises ``ServiceUnavailable`` when the disk takes no more."""
        self._waiting += data
        self.size += len(data)
        if len(self._waiting) > (_STEP if self.on_disk else IN_MEMORY):
            await self._flush()

    async def end(self) -> None:
        """Everything was written."""
        if self.on_disk and self._waiting:
            await self._flush()

    async def _flush(self) -> None:
        waiting = bytes(self._waiting)
        try:
            await self._off_loop(lambda: self._store(waiting))
        except OSError as error:
            raise ServiceUnavailable(
                "The upload cannot be kept while it is passed on: there is no room for it. Try again later.",
                retry_after=30,
            ) from error
        self._waiting.clear()

    def _store(self, data: bytes) -> None:
        file = self._file
        if file is None:
            with tempfile.TemporaryFile(dir=self._directory, buffering=0) as made:
                file = self._file = _File(os.dup(made.fileno()))
        disk = os.fstatvfs(file.number)
        # A file system without a size of its own says nothing.
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < LEFT_FREE + len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = memoryview(data)
        while view:
            count = os.pwrite(file.number, view, self._written)
            self._written += count
            view = view[count:]

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from ``start`` to ``end``, in pieces. Only after ``end()``."""
        file = self._file
        if file is None:
            yield bytes(self._waiting[start:end])
            return
        while start < end:
            at, size = start, min(_STEP, end - start)
            piece: bytes = await self._off_loop(lambda at=at, size=size: os.pread(file.number, size, at))  # type: ignore[misc]
            if not piece:
                raise ServiceUnavailable("An upload that was kept to be passed on cannot be read any more.")
            yield piece
            start += len(piece)

    def close(self) -> None:
        self._file = None
        self._waiting.clear()


class Upload:
    """A body to send that is made of stretches of a spooled one and of bytes put in between. Can be sent again."""

    __slots__ = ("_segments", "_spool", "content_type", "size")

    def __init__(self, spool: Spool, segments: Sequence[Segment], content_type: str) -> None:
        self._spool = spool
        self._segments = segments
        self.content_type = content_type
        self.size = sum(len(one) if isinstance(one, bytes) else one[1] - one[0] for one in segments)

    async def pieces(self) -> AsyncIterator[bytes]:
        for segment in self._segments:
            if isinstance(segment, bytes):
                yield segment
            else:
                async for piece in self._spool.read(*segment):
                    yield piece


def declared_length(headers: Mapping[bytes, bytes]) -> int:
    """The length that a body is said to have, -1 when nothing sane is said. Figures beyond all sizes are as good as huge."""
    declared = headers.get(b"content-length", b"")
    if not declared.isdigit():
        return -1
    return int(declared) if len(declared) < 19 else 10**18
