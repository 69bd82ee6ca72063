"""The same limits for all data planes of an installation, kept in Redis.

One script counts a call against its key and its project at once. It admits the call or says why not and when to come back, by Redis's clock; what a call used is corrected and its
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

from llmops.gateway.throttling.limits import (
    CONCURRENCY,
    NOTHING_FITS,
    REQUESTS,
    TOKENS,
    Limited,
    Limiteds,
    Limits,
    Ticket,
    header_values,
    refusal,
)

log = logging.getLogger(__name__)

TIMEOUT_S = 0.25
#: After a failure calls are counted in this process for so long before Redis is asked again.
PAUSE_S = 1.0
#: A place is held this long beyond the last sign of life of its process.
PLACE_S = 60
RENEW_S = 20.0
_CONNECTIONS = 64

# For each that is limited: KEYS requests by second, tokens by second, places; ARGV rpm, tpm, concurrency (-1: none), after
# the three of all: tokens, call, seconds a place is held.
# Answers {0, second, requests used, tokens used, requests used, ...} or {index of whose limit, what was refused, seconds to wait}.
_ADMIT = """
local now = redis.call('TIME')
local second = tonumber(now[1])
local exact = second + tonumber(now[2]) / 1000000
local tokens, call, held = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local count = #KEYS / 3

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

local answer = {0, second}
for n = 0, count - 1 do
  local rpm, tpm, places = tonumber(ARGV[3 * n + 4]), tonumber(ARGV[3 * n + 5]), tonumber(ARGV[3 * n + 6])
  if places >= 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[3 * n + 3], '-inf', second)
    if redis.call('ZCARD', KEYS[3 * n + 3]) >= places then return {n + 1, 'concurrency', '1'} end
  end
  local requests, used = 0, 0
  local entries
  if rpm >= 0 then
    requests, entries = counted(KEYS[3 * n + 1])
    if requests + 1 > rpm then return {n + 1, 'requests', tostring(wait(entries, requests + 1 - rpm))} end
  end
  if tpm >= 0 then
    used, entries = counted(KEYS[3 * n + 2])
    if used + tokens > tpm then return {n + 1, 'tokens', tostring(wait(entries, used + tokens - tpm))} end
  end
  answer[#answer + 1] = requests + 1
  answer[#answer + 1] = used + tokens
end
for n = 0, count - 1 do
  local rpm, tpm, places = tonumber(ARGV[3 * n + 4]), tonumber(ARGV[3 * n + 5]), tonumber(ARGV[3 * n + 6])
  if rpm >= 0 then
    redis.call('HINCRBY', KEYS[3 * n + 1], second, 1)
    redis.call('EXPIRE', KEYS[3 * n + 1], 61)
  end
  if tpm >= 0 then
    redis.call('HINCRBY', KEYS[3 * n + 2], second, tokens)
    redis.call('EXPIRE', KEYS[3 * n + 2], 61)
  end
  if places >= 0 then
    redis.call('ZADD', KEYS[3 * n + 3], second + held, call)
    redis.call('EXPIRE', KEYS[3 * n + 3], held + 1)
  end
end
return answer
"""
# KEYS: tokens by second. ARGV: second, difference. A second that no longer counts is left alone.
_CORRECT = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) end
"""


@dataclass(slots=True, kw_only=True)
class SharedTicket(Ticket):
    """A ticket whose counts are in Redis; ``second`` is when it was admitted there."""

    limits: SharedLimits
    project: str
    call: str
    second: int
    used: list[tuple[int, int]]

    def correct(self, tokens: int) -> None:
        difference = tokens - self.tokens
        if not difference:
            return
        self.tokens = tokens
        self.used = [(requests, used + difference) for requests, used in self.used]
        for one in self.limited:
            if one.tpm is not None:
                self.limits.correct(self.project, one, self.second, difference)

    def release(self) -> None:
        if self.released:
            return
        self.released = True
        for standing in self.standings:
            standing.in_flight -= 1
        self.limits.free(self.call)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        return header_values(self, self.used, now)


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
        #: the places that a call of this process holds
        self._places: dict[str, list[str]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._renewed = time.monotonic()

    async def admit(self, limited: Limiteds, project: str, tokens: int, now: float, call: str) -> Ticket:
        """Leave for a call of ``project`` (its id); raises ``RateLimited`` as ``Limits.admit`` does."""
        if not limited:
            return self._local.admit(limited, tokens, now)
        for one in limited:
            if one.tpm is not None and tokens > one.tpm:
                raise refusal(one, NOTHING_FITS, 0.0, tokens)
        if time.monotonic() < self._away_until:
            return self._local.admit(limited, tokens, now)
        names = [name for one in limited for name in _names(project, one)]
        bounds = [
            -1 if bound is None else bound for one in limited for bound in (one.rpm, one.tpm, one.concurrency)
        ]
        try:
            answer = await self._admit(keys=names, args=[tokens, call, PLACE_S, *bounds])
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return self._local.admit(limited, tokens, now)
        except asyncio.CancelledError:
            # It may have been let in all the same, and nobody gives that place back.
            self._places[call] = [_names(project, one)[2] for one in limited if one.concurrency is not None]
            self.free(call)
            raise
        if self._away:
            log.warning("Redis is back; limits are shared again")
            self._away = False
        if answer[0] != 0:
            raise refusal(limited[answer[0] - 1], answer[1].decode(), float(answer[2]), tokens)
        standings = [self._local.standing(one.id) for one in limited]
        for standing in standings:
            standing.in_flight += 1
        places = [_names(project, one)[2] for one in limited if one.concurrency is not None]
        if places:
            self._places[call] = places
        counts = [int(count) for count in answer[2:]]
        return SharedTicket(
            limited,
            standings,
            tokens,
            now,
            limits=self,
            project=project,
            call=call,
            second=int(answer[1]),
            used=list(zip(counts[::2], counts[1::2], strict=True)),
        )

    def correct(self, project: str, one: Limited, second: int, difference: int) -> None:
        self._later(self._correct(keys=[_names(project, one)[1]], args=[second, difference]))

    def free(self, call: str) -> None:
        for place in self._places.pop(call, ()):
            self._later(self._redis.zrem(place, call))

    async def tick(self) -> None:
        """Show that this process lives: its places are held on."""
        if not self._places or time.monotonic() - self._renewed < RENEW_S:
            return
        self._renewed = time.monotonic()
        try:
            # Redis's clock, because the script compares with it.
            until = int((await self._redis.time())[0]) + PLACE_S
            async with self._redis.pipeline(transaction=False) as pipeline:
                for call, places in self._places.items():
                    for place in places:
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


def _names(project: str, one: Limited) -> list[str]:
    # The braces keep the entries of a project and of all its keys on one node of a cluster.
    return [f"llmops:limits:{{{project}}}:{one.id}:{kind}" for kind in (REQUESTS, TOKENS, CONCURRENCY)]
