"""Hiding a provider's key in what comes in pieces: wherever the pieces are cut, none of it goes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol


class Readable(Protocol):
    """The body of an answer: the next piece, empty at its end."""

    async def readany(self) -> bytes: ...


class Masking:
    """``secret`` is masked by as many stars. What may be its beginning waits for what follows: less than its length."""

    __slots__ = ("_held", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        secret = self._secret
        if self._held:
            data = self._held + data
        if secret in data:
            data = data.replace(secret, b"*" * len(secret))
        kept = _beginning(data, secret)
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept] if kept else data

    def rest(self) -> bytes:
        rest, self._held = self._held, b""
        return rest


def _beginning(data: bytes, secret: bytes) -> int:
    """How many of the last bytes of ``data`` are the first of ``secret``, and not all of it."""
    start = max(0, len(data) - len(secret) + 1)
    while (start := data.find(secret[:1], start)) >= 0:
        if secret.startswith(data[start:]):
            return len(data) - start
        start += 1
    return 0


async def masked(content: Readable, secret: bytes) -> AsyncIterator[bytes]:
    """The pieces of ``content``, none of them empty, without ``secret`` (empty: as they are)."""
    if not secret:
        while data := await content.readany():
            yield data
        return
    mask = Masking(secret)
    while data := await content.readany():
        if out := mask.feed(data):
            yield out
    if rest := mask.rest():
        yield rest
