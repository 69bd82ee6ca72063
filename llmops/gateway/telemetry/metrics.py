"""What a data plane counts of its calls, for Prometheus: plain integers, filled from the records that it journals anyway.

RED for each endpoint, route and model (requests, errors, durations), with the time to the first token, what the console
itself took, tokens, cost, retries, fallbacks and the use of the cache. Pure counting; ``exposition`` puts it into words.
"""

from __future__ import annotations

from bisect import bisect_left

from llmops.usage.records import Ended, Outcome

#: Upper bounds in seconds; the last bucket has none.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
OVERHEAD_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
_MICROS = tuple(round(bound * 1_000_000) for bound in SECONDS)
_OVERHEAD_MICROS = tuple(round(bound * 1_000_000) for bound in OVERHEAD_SECONDS)
#: Beyond so many different combinations new ones are counted together, as ``other``.
MAX_SERIES = 4_000
OTHER = "other"


class Durations:
    """How many lie at or below each of ``bounds`` (microseconds) and above the one before, and their sum."""

    __slots__ = ("_bounds", "buckets", "total_us")

    def __init__(self, bounds: tuple[int, ...] = _MICROS) -> None:
        self._bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total_us = 0

    def add(self, microseconds: int) -> None:
        self.buckets[bisect_left(self._bounds, microseconds)] += 1
        self.total_us += microseconds

    def plus(self, other: Durations) -> None:
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.total_us += other.total_us


class Requests:
    """Calls of one endpoint, route and model with one end. The ends themselves are in the key."""

    __slots__ = ("calls", "durations", "streamed", "ttft")

    def __init__(self) -> None:
        self.calls = 0
        self.streamed = 0
        self.durations = Durations()
        self.ttft = Durations()

    def plus(self, other: Requests) -> None:
        self.calls += other.calls
        self.streamed += other.streamed
        self.durations.plus(other.durations)
        self.ttft.plus(other.ttft)


class Spend:
    """Tokens by class and nanodollars of one project and model."""

    __slots__ = ("cached", "cost", "input", "output", "reasoning", "saved")

    def __init__(self) -> None:
        self.input = self.cached = self.output = self.reasoning = 0
        self.cost = self.saved = 0


class Metrics:
    """Belongs to one event loop. Labels are names of what is configured, and codes of errors; never what a caller sent."""

    def __init__(self) -> None:
        #: (endpoint, route, model, status, code)
        self.requests: dict[tuple[str, str, str, str, str], Requests] = {}
        #: (provider, model, code; empty for success)
        self.attempts: dict[tuple[str, str, str], int] = {}
        #: (project id, model)
        self.spend: dict[tuple[str, str], Spend] = {}
        #: by route
        self.retries: dict[str, int] = {}
        self.fallbacks: dict[str, int] = {}
        self.queue: dict[str, Durations] = {}
        #: by how the cache was used
        self.cache: dict[str, int] = {}
        #: (policy, check, action)
        self.verdicts: dict[tuple[str, str, str], int] = {}
        self.overhead = Durations(_OVERHEAD_MICROS)
        #: between a change in the console and its being served here
        self.live_state = Durations()

    def note(self, ended: Ended) -> None:
        """Count a call, if this is its end."""
        outcome = ended.outcome
        if outcome is None:
            return
        origin = ended.origin
        key = (origin.endpoint, origin.route, outcome.model, outcome.status, outcome.code)
        found = self.requests.get(key)
        if found is None:
            found = self._new(key)
        found.calls += 1
        found.streamed += origin.streamed
        found.durations.add(outcome.total_us)
        if outcome.ttft_us is not None:
            found.ttft.add(outcome.ttft_us)
        if outcome.attempts:
            self._tried(origin.route, outcome)
        if outcome.cache:
            self.cache[outcome.cache] = self.cache.get(outcome.cache, 0) + 1
        if outcome.verdicts:
            self._judged(outcome)
        self.spent(ended)

    def spent(self, ended: Ended) -> None:
        """Count what a call cost, or a batch that is over."""
        origin, outcome = ended.origin, ended.outcome
        assert outcome is not None
        tokens = outcome.tokens
        if tokens.input or tokens.output or outcome.cost or outcome.saved:
            spend = self.spend.get((origin.project, outcome.model))
            if spend is None:
                spend = self.spend[origin.project, outcome.model] = Spend()
            spend.input += tokens.input
            spend.cached += tokens.cached
            spend.output += tokens.output
            spend.reasoning += tokens.reasoning
            spend.cost += outcome.cost
            spend.saved += outcome.saved

    def by(self, labels: int) -> dict[tuple[str, ...], Requests]:
        """``requests`` with all added up that share the first ``labels`` parts of their key."""
        summed: dict[tuple[str, ...], Requests] = {}
        for key, found in list(self.requests.items()):
            summed.setdefault(key[:labels], Requests()).plus(found)
        return summed

    def _new(self, key: tuple[str, str, str, str, str]) -> Requests:
        if len(self.requests) >= MAX_SERIES:
            key = (key[0], OTHER, OTHER, key[3], OTHER)
        return self.requests.setdefault(key, Requests())

    def _judged(self, outcome: Outcome) -> None:
        for verdict in outcome.verdicts:
            key = (verdict.policy, verdict.check, verdict.action)
            if key not in self.verdicts and len(self.verdicts) >= MAX_SERIES:
                key = (OTHER, verdict.check, verdict.action)
            self.verdicts[key] = self.verdicts.get(key, 0) + 1

    def _tried(self, route: str, outcome: Outcome) -> None:
        for attempt in outcome.attempts:
            key = (attempt.provider, attempt.model, attempt.code)
            self.attempts[key] = self.attempts.get(key, 0) + 1
        if outcome.retries:
            self.retries[route] = self.retries.get(route, 0) + outcome.retries
        if outcome.fallbacks:
            self.fallbacks[route] = self.fallbacks.get(route, 0) + 1
        if outcome.queue_us:
            queue = self.queue.get(route)
            if queue is None:
                queue = self.queue[route] = Durations()
            queue.add(outcome.queue_us)
        if outcome.upstream_us is not None:
            self.overhead.add(max(0, outcome.total_us - outcome.upstream_us - outcome.queue_us))
