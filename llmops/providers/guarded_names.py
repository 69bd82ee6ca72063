"""Name resolution that hands out only addresses the guard allows.

The connection is made to the very address that was judged, so a name that changes its answer in between gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Protocol

from llmops.providers.network_guard import host_refusal, refusal

# What macOS has beyond this mask it does not take here.
_ASKED = socket.AI_ADDRCONFIG & getattr(socket, "AI_MASK", socket.AI_ADDRCONFIG)
_NUMERIC = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


class AddressRefused(OSError):
    """A host leads to an address that the guard refuses; the text says which and why."""


class Names(Protocol):
    """Whoever finds addresses of names: aiohttp's ``AbstractResolver``, whose answers have these members and more."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = ...) -> list[Any]: ...
    async def close(self) -> None: ...


class GuardedNames:
    """Wraps ``inner`` (by default what the system answers). One refused address refuses the host as a whole."""

    def __init__(self, *, allow_private: bool, inner: Names | None = None) -> None:
        self._allow_private = allow_private
        self._inner = inner or SystemNames()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[Any]:
        """Members ``host`` (the address), ``port``, ``family``, ``proto``, ``flags`` and ``hostname`` (the name)."""
        if reason := host_refusal(host, allow_private=self._allow_private):
            raise AddressRefused(f"{host}: {reason}")
        found = await self._inner.resolve(host, port, family)
        for entry in found:
            if reason := refusal(entry["host"], allow_private=self._allow_private):
                raise AddressRefused(f"{host} leads to an address that is refused: {reason}")
        return found

    async def close(self) -> None:
        await self._inner.close()


class SystemNames:
    """What the system's resolver answers, asked in a thread."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[Any]:
        loop = asyncio.get_running_loop()
        answers = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=_ASKED)
        found = []
        for kind, _, proto, _, address in answers:
            shown = str(address[0])
            if kind == socket.AF_INET6 and len(address) == 4 and address[3]:
                # A link-local address is nothing without its interface, which only this form names.
                shown, _ = await loop.getnameinfo(address, _NUMERIC)
            found.append(
                {"hostname": host, "host": shown, "port": address[1], "family": kind, "proto": proto,
                 "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV}
            )  # fmt: skip
        return found

    async def close(self) -> None:
        pass
