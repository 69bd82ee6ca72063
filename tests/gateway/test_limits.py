"""Requests, tokens and calls at once of a key and of its project."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import RateLimited
from llmops.gateway.throttling.limits import Limiteds, Limits, Meter, limits_of
from llmops.serving.snapshot import KeyEntry, ProjectEntry
from tests.gateway.rig import a_key

MINUTE = 28_000_000 * 60.0
moves = st.lists(st.tuples(st.floats(0, 40), st.integers(1, 4)), max_size=60)


def of(key: KeyEntry, **project: int) -> Limiteds:
    return limits_of(key, ProjectEntry("p", "support", **project) if project else None)


@given(moves, st.integers(1, 20))
def test_no_minute_has_more_than_its_limit(steps: list[tuple[float, int]], limit: int) -> None:
    meter, now, admitted = Meter(), MINUTE, []
    for pause, amount in steps:
        now += pause
        if meter.used(now) + amount <= limit:
            meter.add(amount, now)
            admitted.append((now, amount))
    for start, _ in admitted:
        assert sum(amount for moment, amount in admitted if start <= moment < start + 59) <= limit
    for start in {moment // 60 * 60 for moment, _ in admitted}:
        assert sum(amount for moment, amount in admitted if start <= moment < start + 60) <= limit


@given(moves, st.integers(4, 20), st.integers(1, 4))
def test_the_time_to_come_back_is_when_it_fits(
    steps: list[tuple[float, int]], limit: int, wanted: int
) -> None:
    meter, now = Meter(), MINUTE
    for pause, amount in steps:
        now += pause
        if meter.used(now) + amount <= limit:
            meter.add(amount, now)
    wait = meter.free_at(now, limit, wanted)
    if meter.used(now) + wanted <= limit:
        assert wait == 0
    else:
        assert 0 < wait <= 60
        assert meter.used(now + wait + 0.001) + wanted <= limit


def test_what_never_fits_is_told_apart() -> None:
    assert Meter().free_at(MINUTE, 10, 11) == math.inf
    with pytest.raises(RateLimited, match="lower max_completion_tokens") as refused:
        Limits().admit(of(a_key(tpm=10)), 11, MINUTE)
    assert refused.value.retry_after is None


def test_a_refusal_uses_nothing() -> None:
    limits, key = Limits(), a_key(rpm=1, tpm=100, concurrency=5)
    limits.admit(of(key), 60, MINUTE)
    for _ in range(5):
        with pytest.raises(RateLimited):
            limits.admit(of(key), 10, MINUTE + 1)
    ticket = limits.admit(of(key), 40, MINUTE + 60)
    assert ticket.standings[0].in_flight == 2


def test_a_ticket_is_given_back_once() -> None:
    limits, key = Limits(), a_key(concurrency=1)
    ticket = limits.admit(of(key), 0, MINUTE)
    with pytest.raises(RateLimited):
        limits.admit(of(key), 0, MINUTE)
    ticket.release()
    ticket.release()
    limits.admit(of(key), 0, MINUTE)
    with pytest.raises(RateLimited):
        limits.admit(of(key), 0, MINUTE)


def test_tokens_are_corrected_in_both_directions() -> None:
    limits, key = Limits(), a_key(tpm=100)
    ticket = limits.admit(of(key), 90, MINUTE)
    ticket.correct(10)
    second = limits.admit(of(key), 90, MINUTE + 2)
    second.correct(200)
    with pytest.raises(RateLimited):
        limits.admit(of(key), 1, MINUTE + 4)


def test_a_correction_goes_with_what_it_corrects() -> None:
    limits, key = Limits(), a_key(tpm=100)
    limits.admit(of(key), 100, MINUTE).correct(10)
    limits.admit(of(key), 90, MINUTE + 1)
    assert limits.admit(of(key), 10, MINUTE + 60).standings[0].tokens.used(MINUTE + 60) == 100
    late = limits.admit(of(key), 100, MINUTE + 200)
    assert late.standings[0].tokens.used(MINUTE + 260) == 0
    late.correct(5_000)
    assert late.standings[0].tokens.used(MINUTE + 260) == 0


def test_keys_without_limits_and_other_keys_are_left_alone() -> None:
    limits = Limits()
    for _ in range(1_000):
        limits.admit(of(a_key()), 10**9, MINUTE).release()
    limits.admit(of(a_key(rpm=1)), 0, MINUTE)
    limits.admit(of(a_key(rpm=1)), 0, MINUTE)


def test_keys_that_rest_are_forgotten() -> None:
    limits, now = Limits(), MINUTE
    busy = limits.admit(of(a_key(rpm=10)), 0, now)
    for _ in range(10_000):
        now += 1
        limits.admit(of(a_key(rpm=10)), 0, now).release()
    assert len(limits._standings) < 5_000
    assert busy.limited[0].id in limits._standings


def test_headers_tell_what_is_left() -> None:
    limits, key = Limits(), a_key(rpm=10, tpm=1_000)
    ticket = limits.admit(of(key), 250, MINUTE + 20)
    assert dict(ticket.headers(MINUTE + 20)) == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"60s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"750",
        b"x-ratelimit-reset-tokens": b"60s",
    }
    assert limits.admit(of(a_key()), 5, MINUTE).headers(MINUTE) == []


def test_a_project_limits_all_its_keys_together() -> None:
    limits, one, other = Limits(), a_key("one", rpm=3), a_key("other")
    for key in (one, other, one, other):
        limits.admit(of(key, rpm=4, tpm=1_000, concurrency=10), 100, MINUTE)
    with pytest.raises(RateLimited, match="The project 'support' allows 4 requests a minute"):
        limits.admit(of(other, rpm=4), 0, MINUTE)
    with pytest.raises(RateLimited, match="The project 'support' allows 1000 tokens a minute"):
        limits.admit(of(other, tpm=1_000), 700, MINUTE)
    with pytest.raises(RateLimited, match="The project 'support' allows 4 calls at once"):
        limits.admit(of(other, concurrency=4), 0, MINUTE)


def test_what_the_project_refuses_does_not_count_against_the_key() -> None:
    limits, key = Limits(), a_key(rpm=2, tpm=100, concurrency=2)
    limits.admit(of(a_key(), rpm=1), 0, MINUTE)
    for _ in range(5):
        with pytest.raises(RateLimited, match="project"):
            limits.admit(of(key, rpm=1), 50, MINUTE)
    assert limits.admit(of(key), 100, MINUTE).standings[0].requests.used(MINUTE) == 1


def test_headers_tell_of_the_limit_that_leaves_less() -> None:
    limits, key = Limits(), a_key(rpm=10, tpm=500)
    for _ in range(3):
        limits.admit(of(a_key(), rpm=8, tpm=10_000), 100, MINUTE)
    shown = dict(limits.admit(of(key, rpm=8, tpm=10_000), 100, MINUTE).headers(MINUTE))
    assert (shown[b"x-ratelimit-limit-requests"], shown[b"x-ratelimit-remaining-requests"]) == (b"8", b"4")
    assert (shown[b"x-ratelimit-limit-tokens"], shown[b"x-ratelimit-remaining-tokens"]) == (b"500", b"400")
