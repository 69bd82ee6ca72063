"""What providers' headers say of their limits is written down beside the calls, seldom, and only what is news."""

from __future__ import annotations

from llmops.gateway.attempts.credentials import Credentials
from llmops.gateway.plane import TELL_LIMITS_S
from llmops.usage.records import LimitsSeen, LimitTold
from tests.gateway.rig import Asked, Reply, completion

HEADERS = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "20",
    "x-ratelimit-reset-requests": "60s",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29000",
    "x-ratelimit-reset-tokens": "2s",
}


async def told(asked: Asked, reply: Reply) -> None:
    await reply.json(completion(), 200, HEADERS)


def limits(rig) -> list[LimitsSeen]:
    return [one for one in rig.records() if isinstance(one, LimitsSeen)]


async def test_one_record_for_many_calls_and_none_without_news(rig, monkeypatch):
    now = [10_000.0]
    monkeypatch.setattr("llmops.gateway.plane.time.monotonic", lambda: now[0])
    monkeypatch.setattr("llmops.gateway.pipeline.time.monotonic", lambda: now[0])
    rig.upstream.scripts = [told]
    rig.plane.tell_limits(now[0])
    assert limits(rig) == []
    now[0] += 1
    for _ in range(3):
        assert (await rig.chat()).status == 200
    rig.plane.tell_limits(now[0])
    assert limits(rig) == []
    now[0] += TELL_LIMITS_S
    rig.plane.tell_limits(now[0])
    [seen] = limits(rig)
    [one] = seen.told
    assert (one.requests, one.tokens) == (500, 30_000)
    assert 20 <= one.requests_left < 200 and 29_000 <= one.tokens_left <= 30_000
    now[0] += TELL_LIMITS_S
    rig.plane.tell_limits(now[0])
    assert len(limits(rig)) == 1


def test_only_what_was_told_and_never_more_than_fits():
    known = Credentials()
    known.heard("a", "m", {"x-ratelimit-remaining-tokens": "5", "x-ratelimit-limit-tokens": "9" * 19}, 100.0)
    known.heard("b", "m", {}, 100.0)
    assert known.told_since(100.0, 101.0) == []
    [one] = known.told_since(99.0, 100.0)
    assert one == LimitTold("a", "m", 0, 0, 10**12, 5)
