"""What all data planes of an installation tell each other about breakers, over Redis.

A process that opens a breaker says so, and the others take it over within half a second; so do they when it closes. Of all
processes one at a time sends the probe. The window in which failures are counted stays each process's own. While Redis does
not answer, every process goes by what it knows itself, and tells the rest when Redis is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from llmops.core.cancelling import cancel
from llmops.gateway.attempts.breakers import BY_ANOTHER, Breaker, Breakers, Key
from llmops.serving.snapshot import RouteEntry

log = logging.getLogger(__name__)

POLL_S = 0.4
TIMEOUT_S = 0.5
#: Who holds the right to probe holds it on while it probes; so long after it died another may.
PROBE_S = 10
#: What nobody probed for so long after its cool-down is forgotten.
FORGOTTEN_S = 3_600.0
_OPEN = "llmops:breakers"
_PROBE = "llmops:breakers:probe:"
# KEYS: the right to probe. ARGV: whose it is, seconds. Only its owner holds it on, or gives it back.
_HOLD = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end return 0"
)
_GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Told(msgspec.Struct, array_like=True):
    """An open breaker as it stands in Redis; ``until`` by Redis's clock, in seconds."""

    until: float
    why: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Told).decode


class SharedBreakers:
    """Belongs to one event loop. ``route`` gives the published entry of a route by its slug."""

    def __init__(self, url: str, breakers: Breakers, route: Callable[[str], RouteEntry | None]) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=8,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self._redis = Redis.from_pool(pool)
        self._hold = self._redis.register_script(_HOLD)
        self._give_back = self._redis.register_script(_GIVE_BACK)
        self._breakers = breakers
        self._route = route
        self._me = uuid4().hex
        #: what is to be told, by breaker; told again until Redis has it
        self._untold: dict[Key, Breaker] = {}
        self._rights: set[Key] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._away = False
        breakers.listen(self._changed)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            await cancel(self._task)
        await self._redis.aclose()

    async def may_probe(self, breaker: Breaker) -> bool:
        """Whether this process sends the probe of a half-open breaker. While Redis is away every process may."""
        name = _PROBE + _name(breaker.key)
        try:
            granted = await self._redis.set(name, self._me, nx=True, ex=PROBE_S)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return True
        if granted:
            self._rights.add(breaker.key)
        return bool(granted)

    # ------------------------------------------------------------------ telling and hearing

    def _changed(self, breaker: Breaker, state: str, by: str, now: float) -> None:
        if by != BY_ANOTHER:
            self._untold[breaker.key] = breaker
            self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                await self.turn()
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)
            except Exception:
                log.exception("telling of breakers failed; it goes on")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), POLL_S)
            self._wake.clear()
            if self._away:
                await asyncio.sleep(POLL_S)

    async def turn(self) -> None:
        """Tell what changed here, then hear what changed elsewhere. Raises what Redis raises."""
        seconds, microseconds = await self._redis.time()
        now = time.monotonic()
        ahead = seconds + microseconds / 1_000_000 - now
        await self._tell(ahead)
        await self._hold_rights()
        found = await self._redis.hgetall(_OPEN)
        heard: dict[Key, Told] = {}
        for field, value in found.items():
            try:
                heard[_key(field)] = _decode(value)
            except (msgspec.DecodeError, ValueError):
                continue
        now = time.monotonic()
        for key, told in heard.items():
            if key not in self._untold:
                await self._hear(key, told, told.until - ahead, now)
        for breaker in self._breakers.open():
            if breaker.key not in heard and breaker.key not in self._untold and not breaker.probing:
                breaker.close(now, by=BY_ANOTHER)
        if self._away:
            log.warning("Redis is back; breakers are shared again")
            self._away = False

    async def _tell(self, ahead: float) -> None:
        for key, breaker in list(self._untold.items()):
            until = breaker.open_until
            if until:
                await self._redis.hset(_OPEN, _name(key), _encode(Told(until + ahead, breaker.why)))
            else:
                await self._redis.hdel(_OPEN, _name(key))
            # It may have changed once more meanwhile.
            if breaker.open_until == until:
                self._untold.pop(key, None)

    async def _hear(self, key: Key, told: Told, until: float, now: float) -> None:
        if until < now - FORGOTTEN_S:
            await self._redis.hdel(_OPEN, _name(key))
            return
        slug, model, project = key
        route = self._route(slug)
        if route is not None:
            self._breakers.named(route, model, project).adopt(until, now, told.why)

    async def _hold_rights(self) -> None:
        probing = {breaker.key for breaker in self._breakers.open() if breaker.probing}
        for key in list(self._rights):
            if key in probing:
                await self._hold(keys=[_PROBE + _name(key)], args=[self._me, PROBE_S])
            else:
                self._rights.discard(key)
                await self._give_back(keys=[_PROBE + _name(key)], args=[self._me])

    def _failed(self, error: Exception) -> None:
        if not self._away:
            log.warning("Redis does not answer (%s); every process goes by its own breakers", error)
            self._away = True
            # Whatever is open here is told when it is back.
            self._untold.update({breaker.key: breaker for breaker in self._breakers.open()})


def _name(key: Key) -> str:
    return "/".join(key if key[2] else key[:2])


def _key(field: bytes | str) -> Key:
    name = field.decode() if isinstance(field, bytes) else field
    parts = name.split("/")
    if len(parts) not in (2, 3):
        raise ValueError("not the name of a breaker")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""
