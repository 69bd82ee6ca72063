"""How many calls are at one target at once, and who waits for a place.

A gate stands open until its target shows that it has too much: a 429, a 503, a time-out, or answers that take several
times as long as they did. Then it lets in three quarters of what was there at that moment, and from there adds one with
each round of answers (additive increase, multiplicative decrease: Chiu and Jain 1989, "Analysis of the Increase and
Decrease Algorithms for Congestion Avoidance in Computer Networks"). A gate that held nobody back for a while stands open
again. A route can set a bound of its own besides. What an answer tells is about the moment in which its call went in, which for a
stream may be minutes ago: how many there were then is what was too much, and what was cut since is not cut again for it.

That a target has too much is believed when most projects that use it are told so. What one of them is told alone is about its own
requests (they take longer than its route waits, or its provider chokes on them), and takes no place from the others.

Who finds no place waits, interactive calls before batch calls, in a queue of bounded length and for a bounded time. Of those that
wait, the project with the fewest calls at the target goes first (max-min fairness: Bertsekas and Gallager, "Data Networks", section
6.5.2): a project may have all places while nobody else wants one, and none that others wait for. When the queue is full, the project
that has the most in it loses what came last, to one that has less (longest queue drop: McKenney 1990, "Stochastic Fairness
Queueing"), and an interactive call takes the place of a batch call.

Gates belong to one event loop; times are monotonic seconds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable

from llmops.core.errors import QueueFull
from llmops.core.waiting import Waiting
from llmops.serving.snapshot import RouteEntry

INTERACTIVE, BATCH = "interactive", "batch"
CUT = 0.75
LEAST = 1
#: After a cut the calls under way still tell of what was before it.
SETTLE_S = 1.0
#: A limit that held nobody back for so long is lifted.
CALM_S = 60.0
#: Answers are slow when they take this many times what they took in the long run, ...
SLOW = 3.0
#: ... which is known after so many of them.
KNOWN_AFTER = 50
#: What comes sooner is not slow, whatever was usual: a busy loop of our own takes its time as well.
LEAST_SLOW_S = 1.0
#: Latency alone never lets in fewer than this many: what makes answers slow may not be us.
LEAST_BY_LATENCY = 16
#: Who was answered this long ago says that a target has no trouble.
WITNESS_S = 10.0
_RECENT, _LONG = 0.1, 0.005
_LONGEST_RETRY_S = 30.0
_TOO_LONG = "queue_timeout"


class Pace:
    """How long answers take, of late and in the long run. A drop is believed at once, a rise slowly."""

    __slots__ = ("long", "recent", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.recent = 0.0
        self.long = 0.0

    def add(self, seconds: float) -> bool:
        """Whether answers are slow, this one among them."""
        seen = self.seen = self.seen + 1
        if seen == 1:
            self.recent = self.long = seconds
            return False
        recent = self.recent = self.recent + _RECENT * (seconds - self.recent)
        # The plain mean at first, so that an odd first answer is soon forgotten.
        long = self.long + (_LONG if seen > KNOWN_AFTER else 1.0 / seen) * (seconds - self.long)
        if recent < long:
            long += _RECENT * (recent - long)
        self.long = long
        return recent > SLOW * long and seen > KNOWN_AFTER


class Gate:
    """The way to one target of one route. Whoever ``enter``s must ``leave``."""

    __slots__ = (
        "_before",
        "_cut_at",
        "_failing",
        "_full_at",
        "_served",
        "_since",
        "_waiting",
        "in_flight",
        "inside",
        "limit",
        "monotonic",
        "name",
        "plain",
        "queued",
        "route",
        "streamed",
        "turned_away",
        "waited",
    )

    def __init__(
        self, route: RouteEntry, target: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.route = route
        self.name = route.slug or target
        self.monotonic = monotonic
        self.in_flight = 0
        #: project -> how many of them are its
        self.inside: defaultdict[str, int] = defaultdict(int)
        #: calls that wait
        self.queued = 0
        #: what adapts itself; infinite while the gate stands open
        self.limit = math.inf
        #: seconds to the first byte of streams, and for each token of plain answers
        self.streamed = Pace()
        self.plain = Pace()
        self.waited = 0
        self.turned_away = 0
        self._waiting = {INTERACTIVE: Waiting(), BATCH: Waiting()}
        self._cut_at = -math.inf
        self._full_at = -math.inf
        #: since when: projects that were answered, and those that were told of too much; who was answered in the time before
        self._since = -math.inf
        self._served: set[str] = set()
        self._failing: set[str] = set()
        self._before: set[str] = set()

    @property
    def bound(self) -> float:
        """Calls at once that are let in at this moment."""
        fixed = self.route.max_concurrency
        return min(fixed, self.limit) if fixed else self.limit

    def enter_now(self, project: str = "") -> bool:
        """Take a place for a call of ``project`` if there is one and nobody waits for it."""
        fixed = self.route.max_concurrency
        if self.in_flight >= self.limit or (fixed and self.in_flight >= fixed) or self.queued:
            return False
        self.in_flight += 1
        self.inside[project] += 1
        return True

    async def enter(self, priority: str, deadline: float, project: str = "") -> None:
        """Take a place, waiting for one until ``deadline`` at most. Raises ``QueueFull``."""
        if self.enter_now(project):
            return
        self._full_at = self.monotonic()
        self._make_room(priority, project)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting[BATCH if priority == BATCH else INTERACTIVE]
        queue.add(project, place)
        self.queued += 1
        self.waited += 1
        patience = min(self.route.queue_timeout_ms / 1000, max(0.0, deadline - self.monotonic()))
        timer = asyncio.get_running_loop().call_later(patience, _give_up, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                # The place came in the same moment in which the call was ended.
                self.leave(project)
            raise
        except QueueFull as gone:
            self.turned_away += 1
            raise self._refusal(patience if gone.code == _TOO_LONG else 0.0) from None
        finally:
            timer.cancel()
            if queue.forget(project, place):
                self.queued -= 1

    def leave(self, project: str = "") -> None:
        """Give the place back without saying how it went."""
        self.in_flight -= 1
        self.inside[project] -= 1
        if self.queued:
            self._let_in()

    def answered(
        self,
        *,
        streamed: bool,
        seconds: float,
        tokens: int,
        project: str = "",
        beside: int = 0,
        ago: float = 0.0,
    ) -> None:
        """A call of ``project`` answered after ``seconds`` (a stream: its first byte) with ``tokens``; then ``leave``. It went in
        ``ago`` seconds ago, when it was one of ``beside`` calls (0: of as many as now)."""
        self._served.add(project)
        slow = self.streamed.add(seconds) if streamed else self.plain.add(seconds / (tokens or 1))
        if slow and seconds >= LEAST_SLOW_S:
            beside = beside or self.in_flight
            if self.monotonic() - ago >= self._cut_at and beside > LEAST_BY_LATENCY:
                self._cut(LEAST_BY_LATENCY, beside)
        elif self.limit == math.inf:
            pass
        elif self.in_flight >= self.limit - 1:
            self.limit += 1 / self.limit
        elif self.monotonic() - max(self._full_at, self._cut_at) > CALM_S:
            self.limit = math.inf

    def overloaded(self, project: str = "") -> None:
        """The target said, or showed by not answering, that it has too much, to a call of ``project``; then ``leave``."""
        now = self.monotonic()
        if now - self._since > WITNESS_S:
            self._since, self._before = now, self._served
            self._served, self._failing = set(), set()
        failing = self._failing
        failing.add(project)
        if len(failing) > len((self._before | self._served) - failing):
            self._cut(LEAST, self.in_flight)

    def _cut(self, least: int, beside: int) -> None:
        now = self.monotonic()
        if now - self._cut_at < SETTLE_S:
            return
        self._cut_at = now
        self.limit = min(self.limit, max(float(least), math.floor(min(self.limit, beside) * CUT)))

    def _let_in(self) -> None:
        while self.in_flight < self.bound:
            found = self._next()
            if found is None:
                return
            project, place = found
            self.in_flight += 1
            self.inside[project] += 1
            place.set_result(None)

    def _next(self) -> tuple[str, asyncio.Future[None]] | None:
        for queue in self._waiting.values():
            while queue:
                project = min(queue, key=self.inside.__getitem__)
                place = queue.first(project)
                self.queued -= 1
                if not place.done():
                    return project, place
        return None

    def _make_room(self, priority: str, project: str) -> None:
        """Raises ``QueueFull`` unless one more may wait."""
        if self.queued < self.route.queue_size:
            return
        loser = self._loser(urgent=priority != BATCH, project=project)
        if loser is None:
            self.turned_away += 1
            raise self._refusal(0.0)
        queue, whose = loser
        last = queue.last(whose)
        self.queued -= 1
        if not last.done():
            last.set_exception(QueueFull(""))

    def _loser(self, *, urgent: bool, project: str) -> tuple[Waiting, str] | None:
        """Which project is to lose its place in the queue to one more call of ``project``: itself a batch call, or another that has
        more there."""
        interactive, batch = self._waiting[INTERACTIVE], self._waiting[BATCH]

        def waits(one: str) -> int:
            return interactive.of(one) + batch.of(one)

        if urgent and batch.of(project):
            return batch, project
        own = waits(project)
        # To be no worse off than whoever comes: a batch call makes way for an interactive one of its like.
        if batch and waits(most := max(batch, key=waits)) > (own if urgent else own + 1):
            return batch, most
        if urgent and interactive and waits(most := max(interactive, key=waits)) > own + 1:
            return interactive, most
        return None

    def _refusal(self, waited: float) -> QueueFull:
        pace = self.streamed if self.streamed.seen > self.plain.seen else self.plain
        again = min(_LONGEST_RETRY_S, max(1.0, pace.recent * (self.queued + 1) / max(1.0, self.bound)))
        bound = f"{self.bound:.0f}" if math.isfinite(self.bound) else "many"
        if waited:
            return QueueFull(
                f"{self.name!r} takes {bound} calls at once at the moment, and no place came free within "
                f"{waited:.1f} s. Try again.",
                code=_TOO_LONG,
                retry_after=again,
            )
        return QueueFull(
            f"{self.name!r} takes {bound} calls at once at the moment, and {self.queued} wait already. Try again.",
            retry_after=again,
        )


def _give_up(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_exception(QueueFull("", code=_TOO_LONG))


class Gates:
    """One for each route and target."""

    def __init__(self) -> None:
        self.all: dict[tuple[str, str], Gate] = {}

    def of(self, route: RouteEntry, target: str) -> Gate:
        found = self.all.get((route.slug, target))
        if found is None:
            found = self.all[route.slug, target] = Gate(route, target)
        elif found.route is not route:
            found.route = route
        return found
