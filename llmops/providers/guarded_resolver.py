"""Name resolution that hands out only addresses the guard allows, for aiohttp's connector.

The connection is made to the very address that was judged, so a name that changes its answer in between gains nothing.
aiohttp does not ask a resolver about hosts that are addresses already: judge those with ``host_refusal`` first.
"""

from __future__ import annotations

import socket

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from llmops.providers.network_guard import host_refusal, refusal


class AddressRefused(OSError):
    """A host leads to an address that the guard refuses; the text says which and why."""


class GuardedResolver(AbstractResolver):
    """Wraps ``inner`` (by default the system's resolver). One refused address refuses the host as a whole."""

    def __init__(self, *, allow_private: bool, inner: AbstractResolver | None = None) -> None:
        self._allow_private = allow_private
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if reason := host_refusal(host, allow_private=self._allow_private):
            raise AddressRefused(f"{host}: {reason}")
        found = await self._inner.resolve(host, port, family)
        for entry in found:
            if reason := refusal(entry["host"], allow_private=self._allow_private):
                raise AddressRefused(f"{host} leads to an address that is refused: {reason}")
        return found

    async def close(self) -> None:
        await self._inner.close()
