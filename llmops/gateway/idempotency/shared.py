"""The ledger of all data planes of an installation, in Redis.

Everything is decided by scripts, by Redis's clock, and lies in one slot of a cluster. While Redis does not answer a request with
the header is refused: whoever sends it wants to be sure, and nobody can be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError

from llmops.gateway.idempotency.ledger import (
    ALIVE_S,
    DEFAULT_BYTES,
    DEFAULT_SECONDS,
    DONE,
    LOST,
    RUNNING,
    TIDY_ENTRIES,
    Entry,
    LedgerAway,
    Name,
)

TIMEOUT_S = 1.0
_CONNECTIONS = 32
_PREFIX = "llmops:{idempotency}:"
# A member is project/id. Beside the entries: ``ages`` of all and of each project, ``sizes`` by member, ``weights`` by project,
# the sum of ``bytes``.
_COMMON = """
local prefix = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local function project_of(member) return string.match(member, '^(.*)/') end
local function resize(member, size)
  local before = tonumber(redis.call('HGET', prefix .. 'sizes', member) or '0')
  if size > 0 then redis.call('HSET', prefix .. 'sizes', member, size) else redis.call('HDEL', prefix .. 'sizes', member) end
  local project = project_of(member)
  redis.call('INCRBY', prefix .. 'bytes', size - before)
  if tonumber(redis.call('ZINCRBY', prefix .. 'weights', size - before, project)) <= 0 then
    redis.call('ZREM', prefix .. 'weights', project)
  end
end
local function forget(member)
  resize(member, 0)
  redis.call('ZREM', prefix .. 'ages', member)
  redis.call('ZREM', prefix .. 'ages:' .. project_of(member), member)
  redis.call('DEL', prefix .. 'entry:' .. member)
end
local function ours(member, owner)
  local found = redis.call('HMGET', prefix .. 'entry:' .. member, 'owner', 'done')
  return found[1] == owner and found[2] == '0'
end
"""
# ARGV: member, owner, request, seconds to live, seconds alive, how many to tidy. Answers {}, or {done, alive, request, answer}.
_CLAIM = (
    _COMMON
    + """
local member, owner, request = ARGV[1], ARGV[2], ARGV[3]
local live = tonumber(ARGV[4])
for _, old in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'ages', '-inf', now - live, 'LIMIT', 0, ARGV[6])) do forget(old) end
local entry = prefix .. 'entry:' .. member
local found = redis.call('HMGET', entry, 'done', 'alive', 'request', 'answer')
if found[1] then
  return {tonumber(found[1]), tonumber(found[2]) >= now and 1 or 0, found[3], found[4]}
end
redis.call('HSET', entry, 'owner', owner, 'done', '0', 'alive', tostring(now + tonumber(ARGV[5])), 'request', request, 'answer', '')
redis.call('PEXPIRE', entry, math.ceil(live * 1000))
redis.call('ZADD', prefix .. 'ages', now, member)
redis.call('ZADD', prefix .. 'ages:' .. project_of(member), now, member)
resize(member, #request)
return {}
"""
)
# ARGV: member, owner, answer, bytes at most.
_CONCLUDE = (
    _COMMON
    + """
local member = ARGV[1]
if not ours(member, ARGV[2]) then return 0 end
local entry = prefix .. 'entry:' .. member
redis.call('HSET', entry, 'done', '1', 'answer', ARGV[3])
resize(member, #ARGV[3] + redis.call('HSTRLEN', entry, 'request'))
while tonumber(redis.call('GET', prefix .. 'bytes') or '0') > tonumber(ARGV[4]) do
  local heaviest = redis.call('ZREVRANGE', prefix .. 'weights', 0, 0)[1]
  if not heaviest then break end
  local gone = false
  for _, old in ipairs(redis.call('ZRANGE', prefix .. 'ages:' .. heaviest, 0, 255)) do
    if redis.call('HGET', prefix .. 'entry:' .. old, 'done') ~= '0' then
      forget(old)
      gone = true
      break
    end
  end
  if not gone then break end
end
return 1
"""
)
# ARGV: member, owner.
_RELEASE = _COMMON + "if ours(ARGV[1], ARGV[2]) then forget(ARGV[1]) end"
# ARGV: seconds alive, then member and owner of each.
_RENEW = (
    _COMMON
    + """
for n = 2, #ARGV, 2 do
  if ours(ARGV[n], ARGV[n + 1]) then
    redis.call('HSET', prefix .. 'entry:' .. ARGV[n], 'alive', tostring(now + tonumber(ARGV[1])))
  end
end
"""
)


class Shared:
    def __init__(self, url: str, *, seconds: float = DEFAULT_SECONDS, max_bytes: int = DEFAULT_BYTES) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=TIMEOUT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )
        self._redis = Redis.from_pool(pool)
        self._claim = self._redis.register_script(_CLAIM)
        self._conclude = self._redis.register_script(_CONCLUDE)
        self._release = self._redis.register_script(_RELEASE)
        self._renew = self._redis.register_script(_RENEW)
        self._seconds = seconds
        self._max_bytes = max_bytes

    async def claim(self, name: Name, owner: str, request: bytes) -> Entry | None:
        args: list[str | bytes | float] = [
            _member(name),
            owner,
            request,
            self._seconds,
            ALIVE_S,
            TIDY_ENTRIES,
        ]
        found = await _asked(self._claim(keys=[_PREFIX], args=args))
        if not found:
            return None
        done, alive, asked, answer = found
        return Entry(DONE if done else RUNNING if alive else LOST, asked, answer)

    async def conclude(self, name: Name, owner: str, answer: bytes) -> None:
        await _asked(self._conclude(keys=[_PREFIX], args=[_member(name), owner, answer, self._max_bytes]))

    async def release(self, name: Name, owner: str) -> None:
        await _asked(self._release(keys=[_PREFIX], args=[_member(name), owner]))

    async def renew(self, running: Sequence[tuple[Name, str]]) -> None:
        args = [part for name, owner in running for part in (_member(name), owner)]
        await _asked(self._renew(keys=[_PREFIX], args=[ALIVE_S, *args]))

    async def close(self) -> None:
        await self._redis.aclose()


async def _asked(answer: Awaitable[Any]) -> Any:
    try:
        return await answer
    except (RedisError, OSError, TimeoutError) as error:
        raise LedgerAway from error


def _member(name: Name) -> str:
    return f"{name.project}/{name.id.hex()}"
