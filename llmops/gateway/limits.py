"""Requests and tokens a minute, and calls at once, for each service key, in the memory of one process.

A sliding window of sixty seconds, kept as one count a second: whatever sixty seconds one looks at, no more than the limit
lies in them (to a second).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmops.core.errors import RateLimited
from llmops.serving.snapshot import KeyEntry

WINDOW_S = 60
_SWEEP_EVERY = 4096
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


class Standing:
    """One key's use of its limits."""

    __slots__ = ("in_flight", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = Meter()
        self.tokens = Meter()
        self.in_flight = 0


@dataclass(slots=True)
class Ticket:
    """Leave to make one call; to be given back by ``release``, and corrected when the tokens are known."""

    key: KeyEntry
    standing: Standing
    tokens: int
    admitted_at: float
    released: bool = False

    def correct(self, tokens: int) -> None:
        """The call used ``tokens`` where ``self.tokens`` were reserved."""
        if self.key.tpm is not None:
            self.standing.tokens.correct(tokens - self.tokens, self.admitted_at)
            self.tokens = tokens

    def release(self) -> None:
        if not self.released:
            self.released = True
            self.standing.in_flight -= 1


class Limits:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._admitted = 0

    def admit(self, key: KeyEntry, tokens: int, now: float) -> Ticket:
        """Leave for a call that may use ``tokens``; raises ``RateLimited`` naming the limit and when to come back."""
        standing = self._standings.get(key.id)
        if standing is None:
            standing = self._standings[key.id] = Standing()
        if key.concurrency is not None and standing.in_flight >= key.concurrency:
            raise RateLimited(
                f"The service key {key.name!r} allows {key.concurrency} calls at once, and as many are under way.",
                code="concurrency_limit_exceeded",
                retry_after=1,
            )
        if key.rpm is not None and standing.requests.used(now) + 1 > key.rpm:
            wait = standing.requests.free_at(now, key.rpm, 1)
            raise RateLimited(
                f"The service key {key.name!r} allows {key.rpm} requests a minute. Try again in {_seconds(wait)}.",
                retry_after=wait,
            )
        if key.tpm is not None and standing.tokens.used(now) + tokens > key.tpm:
            wait = standing.tokens.free_at(now, key.tpm, tokens)
            if wait == math.inf:
                raise RateLimited(
                    f"This call may use {tokens} tokens (its input and its largest output); the service key "
                    f"{key.name!r} allows {key.tpm} a minute. Send less, or lower max_completion_tokens.",
                    code="tokens_limit_exceeded",
                )
            raise RateLimited(
                f"The service key {key.name!r} allows {key.tpm} tokens a minute; this call may use {tokens}. "
                f"Try again in {_seconds(wait)}.",
                retry_after=wait,
                code="tokens_limit_exceeded",
            )
        if key.rpm is not None:
            standing.requests.add(1, now)
        if key.tpm is not None:
            standing.tokens.add(tokens, now)
        standing.in_flight += 1
        self._admitted += 1
        if self._admitted % _SWEEP_EVERY == 0:
            self._sweep(now)
        return Ticket(key, standing, tokens, now)

    def headers(self, ticket: Ticket, now: float) -> list[tuple[bytes, bytes]]:
        """OpenAI's ``x-ratelimit-*`` for the limits that the key has."""
        key = ticket.key
        found: list[tuple[bytes, bytes]] = []
        if key.rpm is not None:
            found += _shown(_REQUESTS, key.rpm, ticket.standing.requests.used(now), ticket, now)
        if key.tpm is not None:
            found += _shown(_TOKENS, key.tpm, ticket.standing.tokens.used(now), ticket, now)
        return found

    def _sweep(self, now: float) -> None:
        """Forget keys that neither use nor recently used anything."""
        self._standings = {
            key: standing
            for key, standing in self._standings.items()
            if standing.in_flight or standing.requests.used(now) > 0 or standing.tokens.used(now) > 0
        }


def _shown(
    names: tuple[bytes, bytes, bytes], limit: int, used: int, ticket: Ticket, now: float
) -> tuple[tuple[bytes, bytes], ...]:
    left = limit - used
    # This call is the last of what counts, as far as it knows.
    reset = int(ticket.admitted_at + WINDOW_S - now)
    return (
        (names[0], b"%d" % limit),
        (names[1], b"%d" % (left if left > 0 else 0)),
        (names[2], b"%ds" % (reset if reset > 0 else 0)),
    )


def _seconds(wait: float) -> str:
    return f"{max(1, math.ceil(wait))} s"
