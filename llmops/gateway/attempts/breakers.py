"""Which targets are left alone for a while: a breaker for each route and target. Decides, never waits.

A breaker opens when the share of failures among the calls of a window reaches the route's limit, and half-opens with one
probe after its cool-down. The window counts the calls of this process; that it is open may be told to, and by, the other
processes (``shared_breakers``), and an operator may reset it (``LiveState.breaker_resets``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Protocol

from llmops.gateway.routing import Target
from llmops.serving.snapshot import RouteEntry

OPENED, CLOSED = "open", "closed"
#: What made a breaker change.
BY_RATE, BY_PROBE, BY_ANOTHER, BY_RESET = "rate", "probe", "another", "reset"
_REMEMBERED = 50

Key = tuple[str, str]


class Listener(Protocol):
    def __call__(self, breaker: Breaker, state: str, by: str, now: float) -> None: ...


def _nobody(breaker: Breaker, state: str, by: str, now: float) -> None:
    return None


class Breaker:
    """``open_until`` is a moment of the monotonic clock, 0 while it is closed. ``why`` says what opened it."""

    __slots__ = (
        "_calls",
        "_changed",
        "_failed",
        "_failures",
        "_seen",
        "key",
        "open_until",
        "probing",
        "route",
        "why",
    )

    def __init__(self, route: RouteEntry, model: str = "", changed: Listener = _nobody) -> None:
        self.route = route
        self.key: Key = (route.slug, model)
        self._changed = changed
        self._seen: deque[list[float]] = deque()
        self._calls = 0
        self._failures = 0
        self._failed: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)
        self.open_until = 0.0
        self.probing = False
        self.why = ""

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

    def record(self, ok: bool, now: float, *, probe: bool = False, why: str = "") -> None:
        """How a call to the target ended; ``why`` it failed, in few words."""
        if self.open_until:
            # What began before it opened says nothing new.
            if not probe:
                return
            self.probing = False
            if ok:
                self.close(now, by=BY_PROBE)
            else:
                self.why = f"the probe failed too{f': {why}' if why else ''}"
                self._open(now, by=BY_PROBE)
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
        self._failed.append((now, why))
        if (
            self._calls >= self.route.breaker_min_calls
            and self._failures * 100 >= self.route.breaker_failure_percent * self._calls
        ):
            self.why = self._told(now)
            self._open(now, by=BY_RATE)

    def adopt(self, until: float, now: float, why: str) -> None:
        """Another process opened it, until ``until`` (monotonic)."""
        if self.probing or abs(self.open_until - until) < 0.5:
            return
        self.open_until, self.why = until, why
        self._changed(self, OPENED, BY_ANOTHER, now)

    def close(self, now: float, *, by: str) -> None:
        """Serve as if nothing had happened."""
        self._seen.clear()
        self._failed.clear()
        self._calls = self._failures = 0
        self.probing = False
        if self.open_until:
            self.open_until, self.why = 0.0, ""
            self._changed(self, CLOSED, by, now)

    def _open(self, now: float, *, by: str) -> None:
        self.open_until = now + self.route.breaker_cooldown_s
        self._changed(self, OPENED, by, now)

    def _told(self, now: float) -> str:
        window = self.route.breaker_window_s
        kinds = Counter(why for at, why in self._failed if why and now - at <= window)
        said = ", ".join(f"{why} ({count})" for why, count in kinds.most_common(3))
        return (
            f"{self._failures} of {self._calls} calls failed within {window} s{f': {said}' if said else ''}"
        )

    def _expire(self, now: float) -> None:
        while self._seen and now - self._seen[0][0] > self.route.breaker_window_s:
            _, calls, failures = self._seen.popleft()
            self._calls -= int(calls)
            self._failures -= int(failures)


class Breakers:
    """One for each route and target. ``changed`` is told of every one that opens or closes."""

    def __init__(self, changed: Listener = _nobody) -> None:
        self._all: dict[Key, Breaker] = {}
        self._listeners: list[Listener] = [changed]

    def of(self, route: RouteEntry, target: Target) -> Breaker:
        return self.named(route, target.slug)

    def every(self) -> Iterator[tuple[Key, Breaker]]:
        """Route and target, and the breaker between them."""
        yield from list(self._all.items())

    def named(self, route: RouteEntry, model: str) -> Breaker:
        found = self._all.get((route.slug, model))
        if found is None:
            found = self._all[route.slug, model] = Breaker(route, model, self._changed)
        elif found.route is not route:
            found.route = route
        return found

    def listen(self, changed: Listener) -> None:
        self._listeners.append(changed)

    def open(self) -> Iterator[Breaker]:
        """Those that are open or half-open."""
        return (breaker for breaker in list(self._all.values()) if breaker.open_until)

    def reset(self, before: Mapping[str, float], after: Mapping[str, float], now: float) -> None:
        """Close the breakers of every route whose reset moved between two snapshots."""
        for slug, at in after.items():
            if before.get(slug) != at:
                for breaker in list(self._all.values()):
                    if breaker.key[0] == slug:
                        breaker.close(now, by=BY_RESET)

    def _changed(self, breaker: Breaker, state: str, by: str, now: float) -> None:
        for listener in self._listeners:
            listener(breaker, state, by, now)
