"""What a data-plane process is made of: the parts that all its calls share. Put together by ``assembly``, filled by ``boot``;
belongs to the event loop. It knows nothing of those who use it: what they add to it stands in ``parts`` as a protocol."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llmops.core.asgi import Message, Receive, Send
from llmops.core.errors import QueueFull, ServiceUnavailable
from llmops.core.portions import SharedBytes
from llmops.core.stopping import Stop
from llmops.gateway.attempts.breakers import OPENED, Breaker, Breakers
from llmops.gateway.attempts.credentials import ACCEPTED, Credentials
from llmops.gateway.attempts.draining import uses_of_draining
from llmops.gateway.attempts.upstream import Transport
from llmops.gateway.cache import Cache
from llmops.gateway.idempotency.flights import Flights
from llmops.gateway.idempotency.on_disk import OnDisk
from llmops.gateway.kept.aside import Aside
from llmops.gateway.kept.objects import Objects
from llmops.gateway.money.purse import Purse
from llmops.gateway.parts import Following, Journal, Tended, Tracing, UnderWay, nothing
from llmops.gateway.routing import DIRECT, View
from llmops.gateway.stalling import Stalls
from llmops.gateway.telemetry.call_log import log_call
from llmops.gateway.telemetry.metrics import Metrics
from llmops.gateway.throttling.limits import Limits
from llmops.gateway.throttling.queueing import Gates
from llmops.gateway.throttling.sharing import Crowd, Turns, many
from llmops.serving.snapshot import RouteEntry, Snapshot
from llmops.usage.records import (
    BreakerSeen,
    CredentialSeen,
    Ended,
    LimitsSeen,
    Record,
)

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from llmops.gateway.attempts.failures import Failure
    from llmops.gateway.attempts.resilience import Step
    from llmops.gateway.attempts.shared_breakers import SharedBreakers
    from llmops.gateway.throttling.shared_limits import SharedLimits

log = logging.getLogger(__name__)
Result = TypeVar("Result")

#: Calls under way in one process; more are refused at once.
MAX_IN_FLIGHT = 8_192
#: Work on texts beyond this goes one after the other.
LARGE_BYTES = 256 * 1024
#: Records that could not be written although their call was served; beyond this no call is taken.
MAX_UNWRITTEN = 10_000
#: What is left of providers' limits is written down every so often, where something was heard.
TELL_LIMITS_S = 10.0


@dataclass(eq=False)
class Plane:
    journal: Journal
    purse: Purse
    max_body: int
    digest_key: bytes
    #: bytes of the largest file that is passed on to a provider
    max_upload: int = 512 * 1024 * 1024
    #: largest form, and where those lie that are too large for memory (None: where the system keeps such files)
    max_media: int = 200 * 1024 * 1024
    spool_directory: Path | None = None
    #: what calls under way keep of their bodies: in memory, and in those files
    bodies: SharedBytes = field(default_factory=lambda: SharedBytes(1024 * 1024 * 1024))
    spooled: SharedBytes = field(default_factory=lambda: SharedBytes(4 * 1024 * 1024 * 1024))
    transport: Transport = field(default_factory=Transport)
    limits: Limits = field(default_factory=Limits)
    #: the same limits over all processes, where there is a Redis
    shared_limits: SharedLimits | None = None
    breakers: Breakers = field(default_factory=Breakers)
    #: what the processes tell each other about them, where there is a Redis
    shared_breakers: SharedBreakers | None = None
    credentials: Credentials = field(default_factory=Credentials)
    gates: Gates = field(default_factory=Gates)
    cache: Cache = field(default_factory=Cache)
    #: requests with an ``Idempotency-Key`` that are under way, and where their answers are kept
    flights: Flights = field(default_factory=lambda: Flights(OnDisk()))
    metrics: Metrics = field(default_factory=Metrics)
    #: where spans go, and whether a line is logged for every call
    tracing: Tracing | None = None
    log_calls: bool = False
    #: made by whoever first asks for metrics
    registry: CollectorRegistry | None = None
    #: slugs of the models whose usage has told of reasoning
    thinking: set[str] = field(default_factory=set)
    #: records that are written and not yet in the database, as far as this process knows
    unbooked: int = 0
    #: what is still done on credentials that are draining: id -> (calls, responses in the background)
    uses: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: monotonic: when the database last told whether something changed
    asked_at: float = field(default_factory=time.monotonic)
    view: View = field(default_factory=lambda: View(nothing()))
    #: for work that would stall the loop: counting tokens
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=2, thread_name_prefix="gateway-count")
    )
    #: for work on large texts, which may take minutes: it must not be in everybody's way
    slow_thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(max_workers=1, thread_name_prefix="gateway-large")
    )
    #: seals a text (the second one is what it is bound to); None: nothing is kept that would have to be sealed
    seal: Callable[[str, str], str] | None = None
    #: what is kept of calls for people, while it is being read
    aside: Aside = field(init=False)
    stalls: Stalls = field(default_factory=Stalls)
    calls: set[UnderWay] = field(default_factory=set)
    #: calls under way at once; with more than ``many_in_flight`` it matters whose they are
    most_in_flight: int = MAX_IN_FLIGHT
    many_in_flight: int = many(MAX_IN_FLIGHT)
    crowd: Crowd = field(default_factory=Crowd)
    #: at the thread for large texts
    turns: Turns = field(default_factory=Turns)
    draining: bool = False
    #: whose the objects are that providers keep
    objects: Objects = field(init=False)
    #: what works on at providers after its call was answered
    background: Following = field(init=False)
    #: what batches cost
    metering: Tended = field(init=False)
    #: a call of the console's own to a moderation model, by the road that all calls take; what it cost is told when it is over
    moderate: Callable[[Message, Receive, Send, Callable[[int], None]], Awaitable[None]] = field(init=False)
    _unwritten: list[Record] = field(default_factory=list)
    _limits_told: float = 0.0

    def __post_init__(self) -> None:
        self.objects = Objects(self.write)
        self.aside = Aside(self.off_loop, self.wrote)
        self.breakers.listen(self._breaker_changed)

    # ------------------------------------------------------------------ what is live

    @property
    def snapshot(self) -> Snapshot:
        return self.view.snapshot

    def swap(self, snapshot: Snapshot) -> None:
        """Serve ``snapshot`` from now on; calls under way keep the one they began with."""
        for problem in set(snapshot.problems) - set(self.snapshot.problems):
            log.warning("%s", problem)
        present = self.snapshot
        news = (snapshot.revision_version, snapshot.live_version) != (
            present.revision_version,
            present.live_version,
        )
        if news and self.loaded and snapshot.changed_at:
            self.metrics.live_state.add(max(0, int((time.time() - snapshot.changed_at) * 1_000_000)))
        self.view = View(snapshot)
        self.breakers.reset(present.live.breaker_resets, snapshot.live.breaker_resets, time.monotonic())
        served = snapshot.live.credentials.values()
        self.credentials.forget_all_but({one.id for entries in served for one in entries})

    @property
    def loaded(self) -> bool:
        return self.snapshot.revision_version >= 0

    def heard(self, booked: int | None) -> None:
        """The database told whether something changed, and how many records of this process's journal it has. May be
        called from another thread."""
        self.asked_at = time.monotonic()
        if booked is not None:
            self.unbooked = max(0, self.journal.sequence - booked)

    def live_state_age(self) -> float:
        """Seconds since the database last told whether something changed."""
        return time.monotonic() - self.asked_at

    @property
    def unwritten(self) -> int:
        return len(self._unwritten)

    def unready(self) -> str:
        """Why this process should get no calls; empty when it should."""
        if self.draining:
            return "draining"
        if not self.loaded:
            return "starting"
        if not self.journal.healthy or self._unwritten:
            return "journal"
        return ""

    # ------------------------------------------------------------------ calls

    def enter(self, call: UnderWay) -> None:
        """Raises ``ServiceUnavailable`` or ``QueueFull`` when no call can be taken."""
        if self.draining:
            raise ServiceUnavailable("This server is shutting down; try again.", retry_after=1)
        if len(self.calls) >= self.most_in_flight:
            raise QueueFull("This server has as many calls under way as it can take.", retry_after=1)
        if len(self._unwritten) >= MAX_UNWRITTEN:
            raise ServiceUnavailable(
                "This server cannot record calls at the moment and takes none until it can.", retry_after=5
            )
        self.calls.add(call)
        if self.tracing is not None:
            self.tracing.enter(call)

    def share(self, call: UnderWay) -> None:
        """There are many calls under way: raises ``QueueFull`` when the project of this one has its share of them."""
        key = call.key
        assert key is not None
        whose = (call.key.project_id for call in self.calls if call.key is not None)
        if not self.crowd.takes(key.project_id, self.most_in_flight, lambda: whose, time.monotonic()):
            raise QueueFull(
                f"This server has nearly as many calls under way as it can take, and the project {key.project!r} has its share of "
                "them. Try again when some have ended.",
                retry_after=1,
            )

    def leave(self, call: UnderWay) -> None:
        self.calls.discard(call)
        if self.tracing is not None:
            self.tracing.leave(call)

    async def off_loop(self, work: Callable[[], Result], *, size: int = 0) -> Result:
        """Run CPU-bound ``work`` beside the loop; ``size``: on a text of so many bytes. Once nobody waits for it, work on a
        large one ends where it asks ``core.stopping.go_on``: others are in line behind it, and projects take turns there."""
        loop = asyncio.get_running_loop()
        if size <= LARGE_BYTES:
            return await loop.run_in_executor(self.threads, work)
        await self.turns.take(self._caller())
        stop = Stop()
        try:
            return await loop.run_in_executor(self.slow_thread, stop.run, work)
        except asyncio.CancelledError:
            stop.set()
            raise
        finally:
            self.turns.leave()

    def _caller(self) -> str:
        """The project whose call the task at hand answers; empty for what no call asks for. Looked for among all calls, which is
        nothing beside work on a large text, and costs others nothing."""
        task = asyncio.current_task()
        key = next((call.key for call in self.calls if call.watch.task is task), None)
        return key.project_id if key is not None else ""

    # ------------------------------------------------------------------ records

    def record_end(self, record: Ended) -> None:
        """Write how an attempt ended, and count the call that it ends."""
        self.write(record)
        self.metrics.note(record)
        if self.tracing is not None:
            self.tracing.tell(record)
        if self.log_calls and record.outcome is not None:
            log_call(record.origin, record.outcome)

    def write(self, record: Record) -> None:
        """Write what has happened already. What cannot be written now is kept and written as soon as it can."""
        if self._unwritten:
            self._unwritten.append(record)
            return
        try:
            self.journal.append(record)
        except ServiceUnavailable:
            about = f"of call {record.origin.call}" if isinstance(record, Ended) else ""
            log.error(
                "the journal cannot be written; a record (%s) %s is kept in memory",
                type(record).__name__,
                about,
            )
            self._unwritten.append(record)

    def wrote(self, record: Record) -> bool:
        """Write what may be left out. False when it was: while the journal cannot be written, memory is for what is owed."""
        if self._unwritten:
            return False
        try:
            self.journal.append(record)
        except ServiceUnavailable:
            return False
        return True

    def write_kept(self) -> None:
        """Try again to write the records that were kept."""
        while self._unwritten:
            try:
                self.journal.append(self._unwritten[0])
            except ServiceUnavailable:
                return
            del self._unwritten[0]

    def credential_answered(self, step: Step, headers: Mapping[str, str], now: float) -> None:
        """A provider took a call's credential, and told its limits."""
        credential, model = step.credential.id, step.target.entry.upstream_model
        self.credentials.heard(credential, model, headers, now)
        if self.credentials.accepted(credential, model, now):
            self._credential_seen(credential, 200, ACCEPTED)

    def credential_failed(self, step: Step, failure: Failure, now: float) -> None:
        """A provider may have refused a call's credential, or asked it to rest."""
        credential, model = step.credential.id, step.target.entry.upstream_model
        if code := self.credentials.failed(credential, model, failure, now, step.breaker.project):
            self._credential_seen(credential, failure.status, code)

    def credential_forwarded(self, credential: str, name: str, failure: Failure | None) -> None:
        """The same for a call named ``name`` that no model answers: a provider may allow a credential one and not the other."""
        now = time.monotonic()
        if failure is not None:
            if code := self.credentials.failed(credential, name, failure, now):
                self._credential_seen(credential, failure.status, code)
        elif self.credentials.accepted(credential, name, now):
            self._credential_seen(credential, 200, ACCEPTED)

    def share_breakers(self, url: str) -> None:
        """Tell, and hear from, the other processes over Redis from now on."""
        # Redis's client (9 MB) is loaded where there is a Redis.
        from llmops.gateway.attempts.shared_breakers import SharedBreakers

        self.shared_breakers = SharedBreakers(url, self.breakers, self._route)
        self.shared_breakers.start()

    def _route(self, slug: str) -> RouteEntry | None:
        return self.snapshot.routes.get(slug) if slug else DIRECT

    def _breaker_changed(self, breaker: Breaker, state: str, by: str, now: float) -> None:
        """Written down, so that people see it; the ingester brings it to them."""
        route, model, project = breaker.key
        entry = self.snapshot.models.get(model)
        at = time.time_ns()
        seen = BreakerSeen(
            n=0,
            at=at,
            route=route,
            model=model,
            provider=entry.provider if entry is not None else "",
            state=state,
            by=by,
            until=at + int((breaker.open_until - now) * 1e9) if state == OPENED else 0,
            why=breaker.why[:500],
            project=project,
        )
        log.warning(
            "breaker of %s for %s%s: %s (%s) %s",
            model,
            route or "calls by name",
            f" of project {project}" if project else "",
            state,
            by,
            breaker.why,
        )
        with suppress(ServiceUnavailable):
            self.journal.append(seen)

    def _credential_seen(self, credential: str, status: int, code: str) -> None:
        """Only what changed is recorded."""
        seen = CredentialSeen(n=0, at=time.time_ns(), credential=credential, status=status, code=code)
        try:
            self.journal.append(seen)
        except ServiceUnavailable:
            log.warning("credential %s was %s with status %d; not recorded", credential, code, status)

    # ------------------------------------------------------------------ once a second

    def tell_limits(self, now: float) -> None:
        """Write down what providers said is left of their limits, seldom, and only what is news."""
        if now - self._limits_told < TELL_LIMITS_S:
            return
        since, self._limits_told = self._limits_told, now
        if told := self.credentials.told_since(since, now):
            self.write(LimitsSeen(n=0, at=time.time_ns(), told=told))

    async def tick(self) -> None:
        self.uses = uses_of_draining(self.snapshot, self.calls, self.background.credentials())
        self.purse.tick(self.view.budgets_by_id)
        if restored := self.journal.tend():
            log.error("of the journal in use, %s; it was written again and nothing is lost", restored)
        self.write_kept()
        self.tell_limits(time.monotonic())
        self.metering.tick()
        self.cache.tick()
        self.stalls.tick(self.calls, time.monotonic())
        await self.transport.tidy()
        await self.flights.tick()
        if self.shared_limits is not None:
            await self.shared_limits.tick()

    # ------------------------------------------------------------------ people

    def user_digest(self, project_id: str, user: str) -> str:
        """16 hex digits that stand for an end user within one project; another project's differ."""
        mac = blake2b(f"{project_id}\0{user}".encode(), key=self.digest_key, digest_size=8)
        return mac.hexdigest()

    async def close(self) -> None:
        await self.metering.close()
        await self.objects.close()
        await self.transport.close()
        await self.flights.close()
        await self.aside.close()
        if self.shared_limits is not None:
            await self.shared_limits.close()
        if self.shared_breakers is not None:
            await self.shared_breakers.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)
        self.threads.shutdown(wait=False, cancel_futures=True)
        self.slow_thread.shutdown(wait=False, cancel_futures=True)


def digest_key(secret: str) -> bytes:
    """The key of ``user_digest``, from the installation's secret."""
    return blake2b(b"llmops end user digest\0" + secret.encode(), digest_size=32).digest()
