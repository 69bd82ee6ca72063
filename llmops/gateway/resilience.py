"""What is tried again, where and when; and which targets are left alone for a while. Decides, never waits."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from llmops.core.errors import (
    CircuitOpen,
    ConsoleError,
    ServiceUnavailable,
    StreamInterrupted,
    UpstreamAuthFailed,
    UpstreamError,
    UpstreamTimeout,
)
from llmops.gateway.routing import Resolution, Target
from llmops.serving.snapshot import CredentialEntry, RouteEntry, Snapshot

RETRYABLE_STATUS = frozenset((408, 409, 429, *range(500, 600)))
BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 8.0

CONNECT, TIMEOUT, CUT, STATUS, MALFORMED, AUTH, FORBIDDEN = (
    "connect",
    "timeout",
    "cut",
    "status",
    "malformed",
    "auth",
    "forbidden",
)


@dataclass(slots=True)
class Failure:
    """An attempt that brought no answer.

    ``billed`` says whether the provider may bill it: False for certain not, None when nobody can know. ``status`` is the
    provider's HTTP status, 0 without one. ``body`` is the provider's own error in OpenAI's shape, if it sent one that may
    be passed on. ``retry_after`` in seconds.
    """

    kind: str
    message: str
    status: int = 0
    billed: bool | None = False
    retry_after: float | None = None
    body: bytes | None = None
    code: str = ""

    @property
    def retryable(self) -> bool:
        """Whether the same target may do better in a moment."""
        if self.kind == STATUS:
            # A provider whose quota is used up answers 429, but not differently a moment later.
            return self.status in RETRYABLE_STATUS and self.code != "insufficient_quota"
        return self.kind in (CONNECT, TIMEOUT, CUT, MALFORMED)

    @property
    def overloaded(self) -> bool:
        """Whether the target has more to do than it can."""
        if self.kind == STATUS:
            return self.status in (429, 503, 529) and self.code != "insufficient_quota"
        return self.kind == TIMEOUT and self.billed is None

    @property
    def elsewhere(self) -> bool:
        """Whether another target may do better."""
        return self.retryable or self.kind in (AUTH, FORBIDDEN) or self.status in (404, 429)

    @property
    def counts(self) -> bool:
        """Whether it says something about the target's health."""
        return self.kind != STATUS or self.status >= 500 or self.status in (408, 429)

    def error(self, target: Target) -> ConsoleError:
        """What the caller is told when nothing else answered."""
        where = f"The provider {target.provider.slug!r}"
        if self.kind == AUTH:
            return UpstreamAuthFailed(f"{where} refused this console's credential.")
        if self.kind == TIMEOUT:
            return UpstreamTimeout(f"{where} did not answer in time: {self.message}.")
        if self.kind == STATUS:
            return UpstreamError(f"{where} answered with status {self.status}.", retry_after=self.retry_after)
        if self.kind == CUT:
            return StreamInterrupted(f"{where} broke the answer off: {self.message}.")
        return UpstreamError(f"{where} could not be used: {self.message}.")


# ---------------------------------------------------------------------- breaker


class Breaker:
    """Opens when the share of failures among the calls of a window reaches the route's limit; half-opens with one probe."""

    __slots__ = ("_calls", "_failures", "_seen", "open_until", "probing", "route")

    def __init__(self, route: RouteEntry) -> None:
        self.route = route
        self._seen: deque[list[float]] = deque()
        self._calls = 0
        self._failures = 0
        self.open_until = 0.0
        self.probing = False

    def allows(self, now: float) -> bool:
        """Whether a call may go to this target at ``now`` (monotonic). While half-open one at a time may, as a probe:
        whoever gets a yes then (``probing``) must ``record`` its end or ``forget_probe``."""
        if not self.open_until:
            return True
        if now < self.open_until or self.probing:
            return False
        self.probing = True
        return True

    def forget_probe(self) -> None:
        """The probe ended without saying anything about the target."""
        self.probing = False

    def record(self, ok: bool, now: float, *, probe: bool = False) -> None:
        if self.open_until:
            # What began before it opened says nothing new.
            if not probe:
                return
            self.probing = False
            if ok:
                self.open_until = 0.0
                self._seen.clear()
                self._calls = self._failures = 0
            else:
                self.open_until = now + self.route.breaker_cooldown_s
            return
        if not self._seen or now - self._seen[-1][0] >= 1.0:
            self._seen.append([now, 0, 0])
            self._expire(now)
        bucket = self._seen[-1]
        bucket[1] += 1
        self._calls += 1
        if ok:
            return
        bucket[2] += 1
        self._failures += 1
        if (
            self._calls >= self.route.breaker_min_calls
            and self._failures * 100 >= self.route.breaker_failure_percent * self._calls
        ):
            self.open_until = now + self.route.breaker_cooldown_s

    def _expire(self, now: float) -> None:
        while self._seen and now - self._seen[0][0] > self.route.breaker_window_s:
            _, calls, failures = self._seen.popleft()
            self._calls -= int(calls)
            self._failures -= int(failures)


class Breakers:
    """One for each route and target."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str], Breaker] = {}

    def of(self, route: RouteEntry, target: Target) -> Breaker:
        found = self._all.get((route.slug, target.slug))
        if found is None:
            found = self._all[route.slug, target.slug] = Breaker(route)
        elif found.route is not route:
            found.route = route
        return found


# ---------------------------------------------------------------------- plan


@dataclass(slots=True)
class Step:
    """Try ``target`` with ``credential`` after ``delay`` seconds; ``why`` is for the call's story.

    ``probe``: the target's breaker is half-open and waits for this attempt's end.
    """

    target: Target
    credential: CredentialEntry
    breaker: Breaker
    delay: float = 0.0
    why: str = ""
    fallback: bool = False
    retry: bool = False
    probe: bool = False

    def ended(self, failure: Failure | None, now: float) -> None:
        """The attempt answered (None) or failed; tells the breaker."""
        self.breaker.record(failure is None or not failure.counts, now, probe=self.probe)
        self.probe = False

    def dropped(self) -> None:
        """The attempt will not be made, or its end says nothing about the target."""
        if self.probe:
            self.breaker.forget_probe()
            self.probe = False


@dataclass(slots=True)
class Plan:
    """The attempts of one call: ``first`` once, then ``after`` each failure. None: give up.

    Each target that remains is left one attempt, the rest go to the one at hand; a target that is paused, open or has no
    credential is passed over and costs no attempt.
    """

    resolution: Resolution
    snapshot: Snapshot
    breakers: Breakers
    deadline: float
    sticky: str = ""
    attempts: int = 0
    skipped: list[tuple[Target, str]] = field(default_factory=list)
    _order: Sequence[Target] = ()
    _index: int = 0
    _on_target: int = 0
    _credential: int = 0
    _step: Step | None = None

    def first(self, now: float) -> Step:
        """Raises ``ServiceUnavailable``, ``UpstreamAuthFailed`` or ``CircuitOpen`` when no target can be used at all."""
        self._order = self.resolution.order(self.sticky)
        step = self._next_target(now, start=0, why="")
        if step is None:
            raise self._nothing_usable(now)
        return step

    def after(self, failure: Failure, now: float) -> Step | None:
        step = self._step
        assert step is not None
        if self.attempts >= self.resolution.route.attempts or now >= self.deadline:
            return None
        if failure.kind == AUTH and (another := self._other_credential(step)) is not None:
            return another
        remaining = self.resolution.route.attempts - self.attempts
        others = len(self._order) - self._index - 1
        if failure.retryable and remaining > others:
            delay = backoff(self._on_target, failure.retry_after)
            too_long = others and (failure.retry_after or 0) > BACKOFF_CAP_S
            if now + delay < self.deadline and not too_long and step.breaker.allows(now):
                return self._take(
                    Step(
                        step.target,
                        step.credential,
                        step.breaker,
                        delay,
                        f"again after {describe(failure)}",
                        fallback=step.fallback,
                        retry=True,
                    )
                )
        if failure.elsewhere:
            return self._next_target(now, start=self._index + 1, why=f"after {describe(failure)}")
        return None

    def _next_target(self, now: float, *, start: int, why: str) -> Step | None:
        for index in range(start, len(self._order)):
            target = self._order[index]
            credentials = self.snapshot.live.credentials.get(target.provider.slug, ())
            breaker = self.breakers.of(self.resolution.route, target)
            if target.provider.slug in self.snapshot.live.paused_providers:
                self.skipped.append((target, "paused"))
            elif not credentials:
                self.skipped.append((target, "no credential"))
            elif not breaker.allows(now):
                self.skipped.append((target, "circuit open"))
            else:
                self._index, self._on_target, self._credential = index, 0, 0
                fallback = index >= len(self.resolution.targets)
                return self._take(Step(target, credentials[0], breaker, 0.0, why, fallback=fallback))
        return None

    def _take(self, step: Step) -> Step:
        self._step = step
        step.probe = step.breaker.probing and step.breaker.open_until > 0.0
        self.attempts += 1
        self._on_target += 1
        return step

    def _credentials(self, step: Step) -> tuple[CredentialEntry, ...]:
        return self.snapshot.live.credentials.get(step.target.provider.slug, ())

    def _other_credential(self, step: Step) -> Step | None:
        credentials = self._credentials(step)
        self._credential += 1
        if self._credential >= len(credentials):
            return None
        following = credentials[self._credential]
        return self._take(
            Step(
                step.target,
                following,
                step.breaker,
                0.0,
                f"with the credential {following.name!r} after {step.credential.name!r} was refused",
                fallback=step.fallback,
                retry=True,
            )
        )

    def _nothing_usable(self, now: float) -> ConsoleError:
        target, reason = self.skipped[0]
        name = self.resolution.name
        if all(why == "circuit open" for _, why in self.skipped):
            opens = min(self.breakers.of(self.resolution.route, one).open_until for one, _ in self.skipped)
            return CircuitOpen(
                f"{name!r} failed too often just now and is left alone for a moment.",
                retry_after=max(1.0, opens - now),
            )
        if reason == "paused":
            said = self.snapshot.live.paused_providers[target.provider.slug]
            return ServiceUnavailable(
                f"The provider {target.provider.slug!r} is paused{f': {said}' if said else ''}.",
                code="provider_paused",
            )
        return UpstreamAuthFailed(f"The provider {target.provider.slug!r} has no credential in use.")


def backoff(
    tries: int, retry_after: float | None, *, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Full jitter (Brooker 2015, "Exponential Backoff and Jitter"); never less than the provider asked for."""
    delay = uniform(0.0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** max(0, tries - 1)))
    return delay if retry_after is None else max(delay, retry_after)


def describe(failure: Failure) -> str:
    return f"status {failure.status}" if failure.kind == STATUS else failure.kind


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that a provider asks for: ``retry-after-ms``, or ``Retry-After`` in seconds or as a date (RFC 9110)."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return _sane(float(milliseconds) / 1000)
        value = headers.get("retry-after")
        return None if value is None else _sane(float(value))
    except ValueError:
        return _from_date(headers.get("retry-after", ""), now)


def _from_date(text: str, now: float) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return _sane(parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def _sane(seconds: float) -> float | None:
    # NaN compares false with everything.
    return min(seconds, 86_400.0) if seconds >= 0 else None
