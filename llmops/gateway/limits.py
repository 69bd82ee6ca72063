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

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """OpenAI's ``x-ratelimit-*`` for the limits that the key has."""
        standing = self.standing
        return header_values(self, standing.requests.used(now), standing.tokens.used(now), now)


class Limits:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}
        self._admitted = 0

    def admit(self, key: KeyEntry, tokens: int, now: float) -> Ticket:
        """Leave for a call that may use ``tokens``; raises ``RateLimited`` naming the limit and when to come back."""
        standing = self.standing(key)
        if key.concurrency is not None and standing.in_flight >= key.concurrency:
            raise refusal(key, CONCURRENCY, 1.0, tokens)
        if key.rpm is not None and standing.requests.used(now) + 1 > key.rpm:
            raise refusal(key, REQUESTS, standing.requests.free_at(now, key.rpm, 1), tokens)
        if key.tpm is not None and standing.tokens.used(now) + tokens > key.tpm:
            wait = standing.tokens.free_at(now, key.tpm, tokens)
            raise refusal(key, NOTHING_FITS if wait == math.inf else TOKENS, wait, tokens)
        if key.rpm is not None:
            standing.requests.add(1, now)
        if key.tpm is not None:
            standing.tokens.add(tokens, now)
        standing.in_flight += 1
        self._admitted += 1
        if self._admitted % _SWEEP_EVERY == 0:
            self._sweep(now)
        return Ticket(key, standing, tokens, now)

    def standing(self, key: KeyEntry) -> Standing:
        found = self._standings.get(key.id)
        if found is None:
            found = self._standings[key.id] = Standing()
        return found

    def _sweep(self, now: float) -> None:
        """Forget keys that neither use nor recently used anything."""
        self._standings = {
            key: standing
            for key, standing in self._standings.items()
            if standing.in_flight or standing.requests.used(now) > 0 or standing.tokens.used(now) > 0
        }


def refusal(key: KeyEntry, what: str, wait: float, tokens: int) -> RateLimited:
    """The sentence for a limit that is reached; ``wait`` is in seconds."""
    again = f"Try again in {max(1, math.ceil(wait))} s." if math.isfinite(wait) else ""
    if what == CONCURRENCY:
        return RateLimited(
            f"The service key {key.name!r} allows {key.concurrency} calls at once, and as many are under way.",
            code="concurrency_limit_exceeded",
            retry_after=wait,
        )
    if what == REQUESTS:
        return RateLimited(
            f"The service key {key.name!r} allows {key.rpm} requests a minute. {again}", retry_after=wait
        )
    if what == TOKENS:
        return RateLimited(
            f"The service key {key.name!r} allows {key.tpm} tokens a minute; this call may use {tokens}. {again}",
            code="tokens_limit_exceeded",
            retry_after=wait,
        )
    return RateLimited(
        f"This call may use {tokens} tokens (its input and its largest output); the service key {key.name!r} allows "
        f"{key.tpm} a minute. Send less, or lower max_completion_tokens.",
        code="tokens_limit_exceeded",
    )


def header_values(ticket: Ticket, requests: int, tokens: int, now: float) -> list[tuple[bytes, bytes]]:
    key = ticket.key
    # This call is the last of what counts, as far as it knows.
    reset = b"%ds" % max(0, int(ticket.admitted_at + WINDOW_S - now))
    found: list[tuple[bytes, bytes]] = []
    if key.rpm is not None:
        found += _shown(_REQUESTS, key.rpm, requests, reset)
    if key.tpm is not None:
        found += _shown(_TOKENS, key.tpm, tokens, reset)
    return found


def _shown(
    names: tuple[bytes, bytes, bytes], limit: int, used: int, reset: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    left = limit - used
    return (names[0], b"%d" % limit), (names[1], b"%d" % (left if left > 0 else 0)), (names[2], reset)
