"""Which targets are left alone for a while: a breaker for each route and target, and one for each project there. Decides, never
waits.

A breaker opens when the share of failures among the calls of a window reaches the route's limit, and half-opens with one
probe after its cool-down. A project's own counts its own calls, and keeps its calls away. The common one opens if the calls of all
other projects fail at that rate as well, not those of the one that fails most alone. While it is open a project need not meet as
many failures as the route asks for: its own calls decide, however few, so that one that fails keeps it away. Requests that make a
provider fail so never close it to others, whoever joins in sending them: nothing that other projects do keeps a project away
whose own calls fail less often than the route's limit. Once nobody's do, nobody asks it for a probe: it closes with a call that goes
well, a window after its cool-down. The windows count the calls of this process; that one is open may be told to,
and by, the other processes (``shared_breakers``), and an operator may reset it (``LiveState.breaker_resets``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Protocol

from llmops.gateway.routing import Target
from llmops.serving.snapshot import RouteEntry

OPENED, CLOSED = "open", "closed"
#: In place of a project, of calls that are only thought.
_NOBODYS = "-"
#: What made a breaker change.
BY_RATE, BY_PROBE, BY_ANOTHER, BY_RESET, BY_CALLS = "rate", "probe", "another", "reset", "calls"
_REMEMBERED = 50

#: Route, model, project; no project for the common one.
Key = tuple[str, str, str]


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

    def __init__(
        self, route: RouteEntry, model: str = "", changed: Listener = _nobody, project: str = ""
    ) -> None:
        self.route = route
        self.key: Key = (route.slug, model, project)
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
        if self._too_many():
            self.why = self._told(now)
            self._open(now, by=BY_RATE)

    def _too_many(self) -> bool:
        return (
            self._calls >= self.route.breaker_min_calls
            and self._failures * 100 >= self.route.breaker_failure_percent * self._calls
        )

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
            self._expired()

    def _expired(self) -> None:
        """The oldest second was left out."""


class CommonBreaker(Breaker):
    """Of all projects. ``count`` takes the place of ``record`` for what is no probe."""

    __slots__ = ("_by", "_by_second", "_probed_by", "_prober")

    def __init__(self, route: RouteEntry, model: str = "", changed: Listener = _nobody) -> None:
        super().__init__(route, model, changed)
        #: project -> calls and failures within the window, and the same by the second, as ``_seen`` has them
        self._by: dict[str, list[int]] = {}
        self._by_second: deque[dict[str, list[int]]] = deque()
        #: whose probe is under way, and whose failed last
        self._prober: ProjectBreaker | None = None
        self._probed_by = ""

    def count(self, ok: bool, now: float, project: str, why: str = "") -> None:
        if self.open_until:
            if ok and not self.probing and now >= self.open_until + self._asked_within():
                self.close(now, by=BY_CALLS)
            return
        seen = self._seen
        if not seen or now - seen[-1][0] >= 1.0:
            # Before the base class begins the same second.
            self._by_second.append({})
        elif ok and (within := self._by_second[-1].get(project)) is not None:
            # Nearly every call.
            self._by[project][0] += 1
            within[0] += 1
            seen[-1][1] += 1
            self._calls += 1
            return
        for counts in (self._by, self._by_second[-1]):
            found = counts.get(project)
            if found is None:
                counts[project] = [1, not ok]
            else:
                found[0] += 1
                found[1] += not ok
        self.record(ok, now, why=why)

    def _asked_within(self) -> float:
        """Whoever is kept away after the cool-down asks for a probe within so many seconds, or has no failures left in its window."""
        return float(max(self.route.breaker_window_s, self.route.breaker_cooldown_s))

    def admits(self, now: float, prober: ProjectBreaker) -> bool:
        """As ``allows``. For a while another probe is not the project's whose probe failed: it may be what makes it fail."""
        if prober.project == self._probed_by and now < self.open_until + self.route.breaker_cooldown_s:
            return False
        if not self.allows(now):
            return False
        self._prober = prober
        return True

    def record(self, ok: bool, now: float, *, probe: bool = False, why: str = "") -> None:
        if probe and self.open_until:
            prober, self._prober = self._prober, None
            self._probed_by = "" if ok or prober is None else prober.project
            if not ok and prober is not None:
                prober.met(now, why)
        super().record(ok, now, probe=probe, why=why)

    def close(self, now: float, *, by: str) -> None:
        self._by.clear()
        self._by_second.clear()
        self._probed_by = ""
        super().close(now, by=by)

    def _too_many(self) -> bool:
        """Also without the project that fails most, by a quarter of the calls that the route asks for."""
        if not super()._too_many():
            return False
        calls, failures = max(self._by.values(), key=lambda counts: counts[1], default=(0, 0))
        others, failed = self._calls - calls, self._failures - failures
        return (
            failed * 4 >= self.route.breaker_min_calls
            and failed > 0
            and failed * 100 >= self.route.breaker_failure_percent * others
        )

    def _told(self, now: float) -> str:
        failing = sum(failures > 0 for _, failures in self._by.values())
        return f"{super()._told(now)}; {failing} projects"

    def _expired(self) -> None:
        for project, (calls, failures) in self._by_second.popleft().items():
            counts = self._by[project]
            counts[0] -= calls
            counts[1] -= failures
            if not counts[0]:
                del self._by[project]


class ProjectBreaker(Breaker):
    """Of one project's calls. Where the common one is open, that one decides once calls of the project failed as well."""

    __slots__ = ("_led", "common", "project")

    def __init__(self, common: CommonBreaker, changed: Listener, project: str) -> None:
        super().__init__(common.route, common.key[1], changed, project)
        self.common = common
        self.project = project
        #: whether the common one decided last
        self._led = False

    def allows(self, now: float) -> bool:
        self._led = self.common.open_until > 0.0 and self._fails_too(now)
        if self._led:
            return self.common.admits(now, self)
        return super().allows(now)

    def met(self, now: float, why: str) -> None:
        """The project's probe for all failed: that is a call of its own as well."""
        super().record(False, now, why=why)

    def _fails_too(self, now: float) -> bool:
        """Whether the project's own calls within the window fail at the route's rate, however few they are."""
        self._expire(now)
        return self._failures > 0 and self._failures * 100 >= self.route.breaker_failure_percent * self._calls

    def record(self, ok: bool, now: float, *, probe: bool = False, why: str = "") -> None:
        if not probe:
            self.common.count(ok, now, self.project, why)
            if ok and not self.open_until and self._seen and now - self._seen[-1][0] < 1.0:
                self._seen[-1][1] += 1
                self._calls += 1
                return
        super().record(ok, now, probe=probe, why=why)

    @property
    def asked(self) -> Breaker:
        """The one that decides now, whose probe a call would be."""
        return self.common if self._led and self.common.open_until else self


class Breakers:
    """One for each route and target, and for each project there. ``changed`` is told of every one that opens or closes."""

    def __init__(self, changed: Listener = _nobody) -> None:
        self._all: dict[Key, Breaker] = {}
        self._listeners: list[Listener] = [changed]

    def of(self, route: RouteEntry, target: Target, project: str) -> ProjectBreaker:
        """What calls of the project go by."""
        return self._of_project(route, target.slug, project or _NOBODYS)

    def every(self) -> Iterator[tuple[Key, Breaker]]:
        """Route, target and project (none: all), and the breaker between them."""
        yield from list(self._all.items())

    def named(self, route: RouteEntry, model: str, project: str = "") -> Breaker:
        """The common one, or a project's."""
        return self._of_project(route, model, project) if project else self._common(route, model)

    def _common(self, route: RouteEntry, model: str) -> CommonBreaker:
        found = self._all.get((route.slug, model, ""))
        if found is None:
            found = self._all[route.slug, model, ""] = CommonBreaker(route, model, self._changed)
        elif found.route is not route:
            found.route = route
        assert isinstance(found, CommonBreaker)
        return found

    def _of_project(self, route: RouteEntry, model: str, project: str) -> ProjectBreaker:
        found = self._all.get((route.slug, model, project))
        if found is None:
            common = self._common(route, model)
            found = self._all[route.slug, model, project] = ProjectBreaker(common, self._changed, project)
        elif found.route is not route:
            found.route = self._common(route, model).route
        assert isinstance(found, ProjectBreaker)
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
