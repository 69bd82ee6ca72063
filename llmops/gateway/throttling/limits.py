"""Requests and tokens a minute, and calls at once, of service keys and of projects, in the memory of one process.

A sliding window of sixty seconds, kept as one count a second: whatever sixty seconds one looks at, no more than the limit
lies in them (to a second). A call counts against its key and its project together, or against neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llmops.core.errors import RateLimited
from llmops.serving.snapshot import KeyEntry, ProjectEntry

WINDOW_S = 60
_SWEEP_EVERY = 4096
#: what can be refused
REQUESTS, TOKENS, CONCURRENCY, NOTHING_FITS = "requests", "tokens", "concurrency", "never"
_REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")


class Meter:
    """What was used in the last sixty seconds."""

    __slots__ = ("_oldest", "seconds", "total")

    def __init__(self) -> None:
        #: second -> amount, oldest first
        self.seconds: dict[int, int] = {}
        self.total = 0
        self._oldest = 0

    def used(self, now: float) -> int:
        if self.seconds and self._oldest <= now - WINDOW_S:
            self._expire(int(now) - WINDOW_S)
        return self.total

    def add(self, amount: int, now: float) -> None:
        second = int(now)
        if not self.seconds:
            self._oldest = second
        self.seconds[second] = self.seconds.get(second, 0) + amount
        self.total += amount

    def correct(self, difference: int, then: float) -> None:
        """Change what was added at ``then``, while it still counts."""
        second = int(then)
        if second in self.seconds:
            self.seconds[second] += difference
            self.total += difference

    def free_at(self, now: float, limit: int, amount: int) -> float:
        """Seconds until ``amount`` fits under ``limit``; ``inf`` when it never does."""
        if amount > limit:
            return math.inf
        over = self.used(now) + amount - limit
        if over <= 0:
            return 0.0
        for second, counted in self.seconds.items():
            over -= counted
            if over <= 0:
                return second + WINDOW_S - now
        return float(WINDOW_S)

    def _expire(self, last: int) -> None:
        for second in list(self.seconds):
            if second > last:
                self._oldest = second
                return
            self.total -= self.seconds.pop(second)


@dataclass(slots=True, frozen=True)
class Limited:
    """Whose calls are counted together: ``who`` begins a sentence about it. None does not limit."""

    id: str
    who: str
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None


Limiteds = tuple[Limited, ...]


def limits_of(key: KeyEntry, project: ProjectEntry | None) -> Limiteds:
    """Whose limits a call of ``key`` counts against; empty where nothing is limited."""
    found = [Limited(key.id, f"The service key {key.name!r}", key.rpm, key.tpm, key.concurrency)]
    if (held := key.through) is not None:
        found.append(Limited(held.id, f"The service key {held.name!r}", held.rpm, held.tpm, held.concurrency))
    if project is not None:
        who = f"The project {project.slug!r}"
        found.append(Limited(project.id, who, project.rpm, project.tpm, project.concurrency))
    return tuple(one for one in found if (one.rpm, one.tpm, one.concurrency) != (None, None, None))


class Standing:
    """The use that a key or a project makes of its limits."""

    __slots__ = ("in_flight", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = Meter()
        self.tokens = Meter()
        self.in_flight = 0


@dataclass(slots=True)
class Ticket:
    """Leave to make one call; to be given back by ``release``, and corrected when the tokens are known."""

    limited: Limiteds
    standings: Sequence[Standing]
    tokens: int
    admitted_at: float
    released: bool = False

    def correct(self, tokens: int) -> None:
        """The call used ``tokens`` where ``self.tokens`` were reserved."""
        difference = tokens - self.tokens
        self.tokens = tokens
        for one, standing in zip(self.limited, self.standings, strict=True):
            if one.tpm is not None:
                standing.tokens.correct(difference, self.admitted_at)

    def release(self) -> None:
        if not self.released:
            self.released = True
            for standing in self.standings:
                standing.in_flight -= 1

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """OpenAI's ``x-ratelimit-*``: of the key's and the project's limits those that leave less."""
        used = [(each.requests.used(now), each.tokens.used(now)) for each in self.standings]
        return header_values(self, used, now)


class Limits:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._admitted = 0

    def admit(self, limited: Limiteds, tokens: int, now: float) -> Ticket:
        """Leave for a call that may use ``tokens``; raises ``RateLimited`` naming the limit and when to come back."""
        standings = [self.standing(one.id) for one in limited]
        for one, standing in zip(limited, standings, strict=True):
            if one.concurrency is not None and standing.in_flight >= one.concurrency:
                raise refusal(one, CONCURRENCY, 1.0, tokens)
            if one.rpm is not None and standing.requests.used(now) + 1 > one.rpm:
                raise refusal(one, REQUESTS, standing.requests.free_at(now, one.rpm, 1), tokens)
            if one.tpm is not None and standing.tokens.used(now) + tokens > one.tpm:
                wait = standing.tokens.free_at(now, one.tpm, tokens)
                raise refusal(one, NOTHING_FITS if wait == math.inf else TOKENS, wait, tokens)
        for one, standing in zip(limited, standings, strict=True):
            if one.rpm is not None:
                standing.requests.add(1, now)
            if one.tpm is not None:
                standing.tokens.add(tokens, now)
            standing.in_flight += 1
        self._admitted += 1
        if self._admitted % _SWEEP_EVERY == 0:
            self._sweep(now)
        return Ticket(limited, standings, tokens, now)

    def standing(self, identity: str) -> Standing:
        found = self._standings.get(identity)
        if found is None:
            found = self._standings[identity] = Standing()
        return found

    def _sweep(self, now: float) -> None:
        """Forget who neither uses nor recently used anything."""
        self._standings = {
            identity: standing
            for identity, standing in self._standings.items()
            if standing.in_flight or standing.requests.used(now) > 0 or standing.tokens.used(now) > 0
        }


def refusal(one: Limited, what: str, wait: float, tokens: int) -> RateLimited:
    """The sentence for a limit that is reached; ``wait`` is in seconds."""
    again = f"Try again in {max(1, math.ceil(wait))} s." if math.isfinite(wait) else ""
    if what == CONCURRENCY:
        return RateLimited(
            f"{one.who} allows {one.concurrency} calls at once, and as many are under way.",
            code="concurrency_limit_exceeded",
            retry_after=wait,
        )
    if what == REQUESTS:
        return RateLimited(f"{one.who} allows {one.rpm} requests a minute. {again}", retry_after=wait)
    if what == TOKENS:
        return RateLimited(
            f"{one.who} allows {one.tpm} tokens a minute; this call may use {tokens}. {again}",
            code="tokens_limit_exceeded",
            retry_after=wait,
        )
    return RateLimited(
        f"This call may use {tokens} tokens (its input and its largest output). {one.who} allows {one.tpm} a minute. "
        "Send less, or lower max_completion_tokens.",
        code="tokens_limit_exceeded",
    )


def header_values(ticket: Ticket, used: Sequence[tuple[int, int]], now: float) -> list[tuple[bytes, bytes]]:
    """``used``: requests and tokens of the window for each of the ticket's limits."""
    requests = tokens = None
    for one, (requests_used, tokens_used) in zip(ticket.limited, used, strict=True):
        if one.rpm is not None and (requests is None or one.rpm - requests_used < requests[1]):
            requests = one.rpm, one.rpm - requests_used
        if one.tpm is not None and (tokens is None or one.tpm - tokens_used < tokens[1]):
            tokens = one.tpm, one.tpm - tokens_used
    # This call is the last of what counts, as far as it knows.
    reset = b"%ds" % max(0, int(ticket.admitted_at + WINDOW_S - now))
    found: list[tuple[bytes, bytes]] = []
    if requests is not None:
        found += _shown(_REQUESTS, *requests, reset)
    if tokens is not None:
        found += _shown(_TOKENS, *tokens, reset)
    return found


def _shown(
    names: tuple[bytes, bytes, bytes], limit: int, left: int, reset: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    return (names[0], b"%d" % limit), (names[1], b"%d" % (left if left > 0 else 0)), (names[2], reset)
