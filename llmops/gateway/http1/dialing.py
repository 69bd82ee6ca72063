"""From a host's name to a connection: to the very address that was judged, so that a name which changes its answer in between
gains nothing. TLS as a browser does it: the name verified, HTTP/1.1 agreed on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import aiohappyeyeballs

from llmops.providers.guarded_names import AddressRefused, GuardedNames
from llmops.providers.network_guard import host_refusal, parse

#: What a name leads to is asked again after so long, and as soon as nothing answers there.
_KNOWN_S = 30.0
#: RFC 8305: the next address is tried beside one that is so slow.
_NEXT_ADDRESS_S = 0.25

_P = TypeVar("_P", bound=asyncio.Protocol)
_AddrInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


@dataclass(frozen=True, slots=True)
class Origin:
    """``host`` in the form that goes onto the wire (ASCII), an IPv6 address without its brackets."""

    secure: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As the ``Host`` field says it (RFC 9110, section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


#: Made as the process starts: reading the system's certificates takes 40 ms, for which no call should have to wait.
_TLS = _tls()


class Dialer:
    """Makes connections to one origin. ``allow_private``: also to addresses on private networks."""

    def __init__(self, origin: Origin, *, allow_private: bool, tls: ssl.SSLContext | None = None) -> None:
        self._origin = origin
        self._allow_private = allow_private
        self._tls = (tls or _TLS) if origin.secure else None
        self._resolver = GuardedNames(allow_private=allow_private)
        self._known: list[_AddrInfo] = []
        self._known_until = 0.0
        self._looking: asyncio.Task[list[_AddrInfo]] | None = None

    async def dial(self, protocol: Callable[[], _P]) -> _P:
        """Raises ``AddressRefused`` and whatever else kept it from coming about, all of them ``OSError``."""
        loop = asyncio.get_running_loop()
        addresses = await self._addresses(loop)
        try:
            sock = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1
            )
        except OSError:
            self._known_until = 0.0
            raise
        try:
            _, made = await loop.create_connection(
                protocol,
                sock=sock,
                ssl=self._tls,
                server_hostname=self._origin.host.rstrip(".") if self._tls is not None else None,
            )
        except BaseException:
            if sock.fileno() >= 0:
                sock.close()
            raise
        return made

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await self._resolver.close()

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> list[_AddrInfo]:
        if loop.time() < self._known_until:
            return self._known
        looking = self._looking
        if looking is None:
            looking = self._looking = loop.create_task(self._look_up())
            looking.add_done_callback(self._looked)
        # Others may wait for the same name: whoever gives up does not end it for them.
        return await asyncio.shield(looking)

    def _looked(self, task: asyncio.Task[list[_AddrInfo]]) -> None:
        self._looking = None
        if not task.cancelled() and task.exception() is None:
            self._known = task.result()
            self._known_until = asyncio.get_running_loop().time() + _KNOWN_S

    async def _look_up(self) -> list[_AddrInfo]:
        host, port = self._origin.host, self._origin.port
        if (address := parse(host)) is not None:
            # Not asked of a resolver, so judged here.
            if (reason := host_refusal(host, allow_private=self._allow_private)) is not None:
                raise AddressRefused(reason)
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            return [_info(family, str(address), port)]
        found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        return [_info(one["family"], one["host"], one["port"]) for one in found]


def _info(family: int, host: str, port: int) -> _AddrInfo:
    where = (host, port, 0, 0) if family == socket.AF_INET6 else (host, port)
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where)
