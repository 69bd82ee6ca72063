"""A call and the cache: whether its answer may come from there, and the wait for an equal request that is under way."""

from __future__ import annotations

from llmops.gateway.bodies import portion
from llmops.gateway.cache import BYPASS, HIT, JOINED, MISS, Filling, Kept, cacheable, digest
from llmops.gateway.call import Call

#: Larger requests are digested beside the loop.
OFF_LOOP_BYTES = 32 * 1024


async def remember(call: Call) -> None:
    """Take the digest of the request as the caller sent it, where its answer may come from the cache."""
    asked, key, resolution = call.asked, call.key, call.resolution
    assert asked is not None and key is not None and resolution is not None
    members = asked.members
    if not cacheable(call.endpoint.name, members, resolution.route) or _control(call, b"no-store"):
        call.cache_word = BYPASS
        return

    def work() -> bytes:
        return digest(
            project=key.project_id,
            name=resolution.name,
            revision=call.view.snapshot.digest,
            endpoint=call.endpoint.name,
            members=members,
        )

    key_of_call = work() if asked.size <= OFF_LOOP_BYTES else await call.plane.off_loop(work, size=asked.size)
    if key_of_call:
        call.cache_key = key_of_call
    else:
        call.cache_word = BYPASS


async def find(call: Call) -> Kept | None:
    """The answer to the same request, waiting for one that is under way. None: this call has to ask, and fills the cache."""
    cache, resolution, key = call.plane.cache, call.resolution, call.cache_key
    assert resolution is not None and key is not None
    ttl, joined, leads = resolution.route.cache_ttl_s, False, False
    if ttl and not _control(call, b"no-cache"):
        while True:
            kept = cache.fresh(key, ttl)
            if kept is not None:
                call.cache_word = JOINED if joined else HIT
                cache.joins += joined
                cache.hits += not joined
                return kept
            flight = cache.flight(key)
            if flight is None:
                leads = True
                cache.lead(key)
                break
            joined = True
            await flight.over.wait()
            if flight.failed:
                break
    cache.misses += 1
    call.cache_word = MISS
    call.filling = Filling(cache, key, portion(call), leads=leads)
    return None


def _control(call: Call, word: bytes) -> bool:
    said = call.headers.get(b"cache-control")
    return said is not None and word in said.lower()
