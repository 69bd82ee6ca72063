"""Requests and tokens a minute, and calls at once, for each service key, in the memory of one process.

A sliding window made of two counters: the last minute's count weighs by how much of it still lies within 60 s, which is
exact for steady traffic and never admits more than the limit within a calendar minute.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmops.core.errors import RateLimited
from llmops.serving.snapshot import KeyEntry

WINDOW_S = 60.0
_SWEEP_EVERY = 4096
_REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")


class Meter:
    """What was used in the last minute, by a sliding window."""

    __slots__ = ("current", "previous", "slot")

    def __init__(self) -> None:
        self.slot = 0
        self.current = 0
        self.previous = 0

    def used(self, now: float) -> float:
        slot, passed = divmod(now, WINDOW_S)
        if slot != self.slot:
            self.previous = self.current if slot == self.slot + 1 else 0
            self.current = 0
            self.slot = int(slot)
        return self.current + self.previous * (1.0 - passed / WINDOW_S)

    def add(self, amount: int) -> None:
        """Add (or take back) ``amount``, after ``used`` at the same moment."""
        self.current = max(0, self.current + amount)

    def free_at(self, now: float, limit: int, amount: int) -> float:
        """Seconds until ``amount`` fits under ``limit``; ``inf`` when it never does."""
        if amount > limit:
            return math.inf
        left_in_slot = WINDOW_S - now % WINDOW_S
        over = self.used(now) + amount - limit
        if over <= 0:
            return 0.0
        if self.previous and over <= self.previous * left_in_slot / WINDOW_S:
            return over * WINDOW_S / self.previous
        # The present minute itself is too full: it weighs less and less once it is the last one.
        spare = limit - amount
        share = 1.0 - spare / self.current if self.current else 0.0
        return left_in_slot + max(0.0, share) * WINDOW_S


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
    released: bool = False

    def correct(self, tokens: int, now: float) -> None:
        """The call used ``tokens`` where ``self.tokens`` were reserved."""
        if self.key.tpm is not None:
            self.standing.tokens.used(now)
            self.standing.tokens.add(tokens - self.tokens)
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
            standing.requests.add(1)
        if key.tpm is not None:
            standing.tokens.add(tokens)
        standing.in_flight += 1
        self._admitted += 1
        if self._admitted % _SWEEP_EVERY == 0:
            self._sweep(now)
        return Ticket(key, standing, tokens)

    def headers(self, ticket: Ticket, now: float) -> list[tuple[bytes, bytes]]:
        """OpenAI's ``x-ratelimit-*`` for the limits that the key has."""
        key, found = ticket.key, []
        if key.rpm is not None:
            found += _shown(_REQUESTS, key.rpm, ticket.standing.requests, now)
        if key.tpm is not None:
            found += _shown(_TOKENS, key.tpm, ticket.standing.tokens, now)
        return found

    def _sweep(self, now: float) -> None:
        """Forget keys that neither use nor recently used anything."""
        self._standings = {
            key: standing
            for key, standing in self._standings.items()
            if standing.in_flight or standing.requests.used(now) > 0 or standing.tokens.used(now) > 0
        }


def _shown(
    names: tuple[bytes, bytes, bytes], limit: int, meter: Meter, now: float
) -> tuple[tuple[bytes, bytes], ...]:
    left = int(limit - meter.used(now))
    return (
        (names[0], b"%d" % limit),
        (names[1], b"%d" % (left if left > 0 else 0)),
        (names[2], b"%ds" % int(_until_empty(meter, now) + 1)),
    )


def _until_empty(meter: Meter, now: float) -> float:
    if meter.current:
        return 2 * WINDOW_S - now % WINDOW_S
    return WINDOW_S - now % WINDOW_S if meter.previous else 0.0


def _seconds(wait: float) -> str:
    return f"{max(1, math.ceil(wait))} s"
