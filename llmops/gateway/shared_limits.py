"""The same limits for all data planes of an installation, kept in Redis.

One script admits a call or says why not and when to come back, by Redis's clock; what a call used is corrected and its
place freed afterwards, without anybody waiting. A place is held under the call's id until a moment that its process moves
on; so the places of a process that died come free by themselves. While Redis does not answer, every process counts alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from llmops.gateway.limits import (
    CONCURRENCY,
    NOTHING_FITS,
    REQUESTS,
    TOKENS,
    Limits,
    Ticket,
    header_values,
    refusal,
)
from llmops.serving.snapshot import KeyEntry

log = logging.getLogger(__name__)

TIMEOUT_S = 0.25
#: After a failure calls are counted in this process for so long before Redis is asked again.
PAUSE_S = 1.0
#: A place is held this long beyond the last sign of life of its process.
PLACE_S = 60
RENEW_S = 20.0
_CONNECTIONS = 64

# KEYS: requests by second, tokens by second, places. ARGV: rpm, tpm, concurrency (-1: none), tokens, call, seconds a place is held.
# Answers {0, second, requests used, tokens used} or {what was refused, seconds to wait}.
_ADMIT = """
local now = redis.call('TIME')
local second = tonumber(now[1])
local exact = second + tonumber(now[2]) / 1000000
local rpm, tpm, places, tokens = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function counted(key)
  local sum, entries = 0, {}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local at, amount = tonumber(all[i]), tonumber(all[i + 1])
    if at <= second - 60 then
      redis.call('HDEL', key, all[i])
    else
      sum = sum + amount
      entries[#entries + 1] = {at, amount}
    end
  end
  return sum, entries
end

local function wait(entries, over)
  table.sort(entries, function(a, b) return a[1] < b[1] end)
  for _, entry in ipairs(entries) do
    over = over - entry[2]
    if over <= 0 then return entry[1] + 60 - exact end
  end
  return 60
end

if places >= 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', second)
  if redis.call('ZCARD', KEYS[3]) >= places then return {'concurrency', '1'} end
end
local requests, used = 0, 0
local entries
if rpm >= 0 then
  requests, entries = counted(KEYS[1])
  if requests + 1 > rpm then return {'requests', tostring(wait(entries, requests + 1 - rpm))} end
end
if tpm >= 0 then
  used, entries = counted(KEYS[2])
  if used + tokens > tpm then return {'tokens', tostring(wait(entries, used + tokens - tpm))} end
end
if rpm >= 0 then
  redis.call('HINCRBY', KEYS[1], second, 1)
  redis.call('EXPIRE', KEYS[1], 61)
end
if tpm >= 0 then
  redis.call('HINCRBY', KEYS[2], second, tokens)
  redis.call('EXPIRE', KEYS[2], 61)
end
if places >= 0 then
  redis.call('ZADD', KEYS[3], second + tonumber(ARGV[6]), ARGV[5])
  redis.call('EXPIRE', KEYS[3], tonumber(ARGV[6]) + 1)
end
return {0, second, requests + 1, used + tokens}
"""
# KEYS: tokens by second. ARGV: second, difference. A second that no longer counts is left alone.
_CORRECT = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) end
"""


@dataclass(slots=True, kw_only=True)
class SharedTicket(Ticket):
    """A ticket whose counts are in Redis; ``second`` is when it was admitted there."""

    limits: SharedLimits
    call: str
    second: int
    requests_used: int
    tokens_used: int

    def correct(self, tokens: int) -> None:
        difference = tokens - self.tokens
        if self.key.tpm is not None and difference:
            self.tokens = tokens
            self.tokens_used += difference
            self.limits.correct(self.key, self.second, difference)

    def release(self) -> None:
        if not self.released:
            self.released = True
            self.standing.in_flight -= 1
            self.limits.free(self.key, self.call)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        return header_values(self, self.requests_used, self.tokens_used, now)


class SharedLimits:
    """Belongs to one event loop. ``local`` counts while Redis is away."""

    def __init__(self, url: str, local: Limits) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self._redis = Redis.from_pool(pool)
        self._admit = self._redis.register_script(_ADMIT)
        self._correct = self._redis.register_script(_CORRECT)
        self._local = local
        self._away_until = 0.0
        self._away = False
        self._places: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._renewed = time.monotonic()

    async def admit(self, key: KeyEntry, tokens: int, now: float, call: str) -> Ticket:
        """Leave for a call; raises ``RateLimited`` as ``Limits.admit`` does."""
        if key.rpm is None and key.tpm is None and key.concurrency is None:
            return self._local.admit(key, tokens, now)
        if key.tpm is not None and tokens > key.tpm:
            raise refusal(key, NOTHING_FITS, 0.0, tokens)
        if time.monotonic() < self._away_until:
            return self._local.admit(key, tokens, now)
        limits = [-1 if one is None else one for one in (key.rpm, key.tpm, key.concurrency)]
        try:
            answer = await self._admit(keys=_names(key.id), args=[*limits, tokens, call, PLACE_S])
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return self._local.admit(key, tokens, now)
        if self._away:
            log.warning("Redis is back; limits are shared again")
            self._away = False
        if answer[0] != 0:
            what = answer[0].decode()
            raise refusal(key, what, float(answer[1]), tokens)
        standing = self._local.standing(key)
        standing.in_flight += 1
        if key.concurrency is not None:
            self._places[call] = _names(key.id)[2]
        return SharedTicket(
            key,
            standing,
            tokens,
            now,
            limits=self,
            call=call,
            second=int(answer[1]),
            requests_used=int(answer[2]),
            tokens_used=int(answer[3]),
        )

    def correct(self, key: KeyEntry, second: int, difference: int) -> None:
        self._later(self._correct(keys=[_names(key.id)[1]], args=[second, difference]))

    def free(self, key: KeyEntry, call: str) -> None:
        if self._places.pop(call, None) is not None:
            self._later(self._redis.zrem(_names(key.id)[2], call))

    async def tick(self) -> None:
        """Show that this process lives: its places are held on."""
        if not self._places or time.monotonic() - self._renewed < RENEW_S:
            return
        self._renewed = time.monotonic()
        try:
            # Redis's clock, because the script compares with it.
            until = int((await self._redis.time())[0]) + PLACE_S
            async with self._redis.pipeline(transaction=False) as pipeline:
                for call, place in self._places.items():
                    pipeline.zadd(place, {call: until}, xx=True)
                    pipeline.expire(place, PLACE_S + 1)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=TIMEOUT_S)
        await self._redis.aclose()

    def _later(self, work: Awaitable[Any]) -> None:
        """Do it without anybody waiting; a failure costs accuracy for a minute, not a call."""
        if time.monotonic() < self._away_until:
            if isinstance(work, Coroutine):
                work.close()
            return
        task = asyncio.ensure_future(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, work: Awaitable[Any]) -> None:
        try:
            await work
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._away_until = time.monotonic() + PAUSE_S
        if not self._away:
            log.warning("Redis does not answer (%s); every process counts its limits alone", error)
        self._away = True


def _names(key_id: str) -> list[str]:
    # The braces keep a key's three entries on one node of a cluster.
    return [f"llmops:limits:{{{key_id}}}:{kind}" for kind in (REQUESTS, TOKENS, CONCURRENCY)]
