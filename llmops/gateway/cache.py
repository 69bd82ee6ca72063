"""Answers to requests that were made before, word for word: in the memory of one process, apart for each project.

An entry stands under the digest of everything that can change an answer: project, name and revision served, endpoint, and
the members of the request in canonical JSON, all but those that only say who asks. It is taken from the request as the
caller sent it, before any policy changed it. Of many equal requests under way one goes upstream, the others wait for its
answer; if it fails they go by themselves, if its client leaves the next one takes its place.

What is kept are the very bytes that the client got. Not kept: what a fallback answered, what broke off, what a content
filter stopped, requests that make an object at the provider, and requests that offer tools (unless the route says so).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from llmops.core.once import quotes
from llmops.core.portions import Pieces, Portion
from llmops.gateway.endpoints.base import NULL, Members, decode_any
from llmops.serving.snapshot import RouteEntry

MAX_ENTRY_BYTES = 1024 * 1024
DEFAULT_BYTES = 64 * 1024 * 1024
#: An answer that nothing newer replaced serves as the last resort for so long.
STALE_S = 86_400.0

OFF, BYPASS, MISS, HIT, JOINED, STALE = b"off", b"bypass", b"miss", b"hit", b"joined", b"stale"

_CACHEABLE = frozenset(("chat.completions", "embeddings", "responses"))
#: Members that say who asks or how the provider is to file it, and nothing about the answer.
_IGNORED = frozenset(
    ("model", "user", "safety_identifier", "metadata", "prompt_cache_key", "prompt_cache_retention")
)
#: Members that make a request act, or make it one of a chain.
_TOOLS = ("tools", "functions", "web_search_options")
_CHAINED = ("previous_response_id", "conversation", "background")
_EMPTY = (NULL, b"[]", b"{}", b"false", b'""')
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(slots=True, frozen=True)
class Kept:
    """An answer as a client got it. ``cost`` is what it cost then, in nanodollars; ``at`` monotonic seconds."""

    body: bytes
    streamed: bool
    at: float
    model: str
    model_version: int
    provider: str
    upstream_model: str
    finish: str
    cost: int


@dataclass(slots=True)
class Flight:
    """A request under way that others wait for. ``failed``: they had better go by themselves."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    failed: bool = False


class Filling:
    """The answer of a call on its way into the cache; ``kept`` is set when it is known to be whole."""

    __slots__ = ("_pieces", "cache", "kept", "key", "leads")

    def __init__(self, cache: Cache, key: bytes, portion: Portion, *, leads: bool) -> None:
        self.cache = cache
        self.key = key
        self.leads = leads
        self.kept: Callable[[bytes], Kept] | None = None
        self._pieces = Pieces(portion, MAX_ENTRY_BYTES)

    @property
    def too_large(self) -> bool:
        return self._pieces.over

    def add(self, data: bytes) -> None:
        self._pieces.add(data)

    def end(self, *, gone: bool) -> None:
        """The call is over: keep its answer if it is one, and let those who wait for it go on. ``gone``: it has not
        failed, its client left."""
        failed = not gone
        if self.kept is not None and self._pieces:
            self.cache.put(self.key, self.kept(self._pieces.joined()))
            failed = False
        self._pieces.close()
        if self.leads:
            self.cache.land(self.key, failed=failed)


class Cache:
    """Belongs to one event loop. Holds at most ``max_bytes`` of answers; who was not asked for longest goes first."""

    def __init__(
        self, max_bytes: int = DEFAULT_BYTES, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_bytes = max_bytes
        self.monotonic = monotonic
        self.size = 0
        self.hits = self.misses = self.joins = 0
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._flights: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def fresh(self, key: bytes, ttl_s: float) -> Kept | None:
        """The answer under ``key`` if it is younger than ``ttl_s``."""
        kept = self._kept.get(key)
        if kept is None or self.monotonic() - kept.at >= ttl_s:
            return None
        self._kept.move_to_end(key)
        return kept

    def stale(self, key: bytes) -> Kept | None:
        """The answer under ``key``, however old: for when nothing else answers."""
        return self.fresh(key, STALE_S)

    def put(self, key: bytes, kept: Kept) -> None:
        self._forget(key)
        self._kept[key] = kept
        self.size += len(kept.body)
        while self.size > self.max_bytes:
            self._forget(next(iter(self._kept)))

    def tick(self) -> None:
        """Forget what is of no use to anybody any more; a few entries at a time."""
        oldest = self.monotonic() - STALE_S
        for key in [
            key for key, _ in zip(self._kept, range(256), strict=False) if self._kept[key].at < oldest
        ]:
            self._forget(key)

    def flight(self, key: bytes) -> Flight | None:
        return self._flights.get(key)

    def lead(self, key: bytes) -> None:
        self._flights[key] = Flight()

    def land(self, key: bytes, *, failed: bool) -> None:
        flight = self._flights.pop(key)
        flight.failed = failed
        flight.over.set()

    def _forget(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size -= len(kept.body)


def cacheable(endpoint: str, members: Members, route: RouteEntry) -> bool:
    """Whether a request can be answered by what was answered before."""
    if endpoint not in _CACHEABLE:
        return False
    if not route.cache_tools and any(_says(members, name) for name in _TOOLS):
        return False
    if any(_says(members, name) for name in _CHAINED):
        return False
    # Chat keeps an object at the provider when it is asked to, responses unless they are asked not to.
    stored = members.get("store")
    return (
        (stored is not None and bytes(stored) == b"false")
        if endpoint == "responses"
        else not _says(members, "store")
    )


def _says(members: Members, name: str) -> bool:
    raw = members.get(name)
    return raw is not None and bytes(raw) not in _EMPTY


def digest(*, project: str, name: str, revision: str, endpoint: str, members: Members) -> bytes:
    """The key of a request; empty for one that can be read in two ways, so that nobody is answered as another was asked."""
    told = sha256(_encode([project, name, revision, endpoint]))
    for member in sorted(members):
        if member not in _IGNORED:
            encoded = _encode(decode_any(members[member]))
            if quotes(encoded) != quotes(bytes(members[member])):
                return b""
            told.update(_encode(member) + encoded)
    return told.digest()
