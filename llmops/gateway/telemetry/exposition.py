"""``/metrics``: what a data-plane process counts, in Prometheus's text form.

One process is one target: each has its own counters. Whoever scrapes shows a service key with the scope ``metrics``.
Names follow Prometheus's conventions (base units, ``_total``); amounts are nanodollars, because those are whole numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from llmops.core.errors import ConsoleError, PermissionDenied
from llmops.core.ids import uuid7
from llmops.gateway.addresses import Visit
from llmops.gateway.auth import key_of
from llmops.gateway.call import request_id_of
from llmops.gateway.errors import JSON_TYPE, as_console_error, error_body, error_headers
from llmops.gateway.plane import Plane
from llmops.gateway.telemetry.metrics import OVERHEAD_SECONDS, SECONDS, Durations

SCOPE = "metrics"
_REQUEST = ("endpoint", "route", "model")


class PlaneCollector:
    """Reads a plane when it is asked."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def collect(self) -> Iterator[Metric]:
        yield from self._calls()
        yield from self._spend()
        yield from self._targets()
        yield from self._credentials()
        yield from self._money()
        yield from self._process()

    def _calls(self) -> Iterator[Metric]:
        metrics = self._plane.metrics
        requests = CounterMetricFamily(
            "llmops_requests", "Calls that ended, by how they ended.", labels=[*_REQUEST, "status", "code"]
        )
        streamed = CounterMetricFamily(
            "llmops_streamed_requests", "Calls that asked for a stream.", labels=_REQUEST
        )
        durations = _histogram(
            "llmops_request_duration_seconds", "From first to last byte.", (*_REQUEST, "status")
        )
        first = _histogram("llmops_time_to_first_token_seconds", "Until a stream's first event.", _REQUEST)
        for key, found in list(metrics.requests.items()):
            requests.add_metric(key, found.calls)
        for ended, found in metrics.by(4).items():
            _add(durations, ended, found.durations, SECONDS)
        for asked, found in metrics.by(3).items():
            if found.streamed:
                streamed.add_metric(asked, found.streamed)
                _add(first, asked, found.ttft, SECONDS)
        yield from (requests, streamed, durations, first)
        overhead = _histogram(
            "llmops_overhead_duration_seconds", "What the console itself took of calls.", ()
        )
        _add(overhead, [], metrics.overhead, OVERHEAD_SECONDS)
        yield overhead
        queue = _histogram(
            "llmops_queue_duration_seconds",
            "Waiting for a place or for money, of calls that waited.",
            ("route",),
        )
        for name, waited in list(metrics.queue.items()):
            _add(queue, [name], waited, SECONDS)
        yield queue
        attempts = CounterMetricFamily(
            "llmops_attempts",
            "Attempts at providers; an empty code is success.",
            labels=["provider", "model", "code"],
        )
        for tried, count in list(metrics.attempts.items()):
            attempts.add_metric(tried, count)
        yield attempts
        yield _counter(
            "llmops_retries", "Attempts after the first at the same target.", "route", metrics.retries
        )
        yield _counter(
            "llmops_fallbacks", "Calls in which another target was tried.", "route", metrics.fallbacks
        )
        yield _counter(
            "llmops_cache_requests", "Calls by how the response cache was used.", "result", metrics.cache
        )
        verdicts = CounterMetricFamily(
            "llmops_policy_verdicts",
            "What policies said about calls, by what followed.",
            labels=["policy", "check", "action"],
        )
        for judged, count in list(metrics.verdicts.items()):
            verdicts.add_metric(judged, count)
        yield verdicts

    def _spend(self) -> Iterator[Metric]:
        plane = self._plane
        names = {entry.key.project_id: entry.key.project for entry in plane.snapshot.live.keys.values()}
        tokens = CounterMetricFamily("llmops_tokens", "Billed tokens.", labels=["project", "model", "class"])
        cost = CounterMetricFamily(
            "llmops_cost_nanodollars",
            "What calls cost, in billionths of a dollar.",
            labels=["project", "model"],
        )
        saved = CounterMetricFamily(
            "llmops_cache_saved_nanodollars",
            "What answers out of the cache had cost.",
            labels=["project", "model"],
        )
        for (project, model), spend in list(plane.metrics.spend.items()):
            labels = [names.get(project, project), model]
            for name, count in (
                ("input", spend.input),
                ("cached_input", spend.cached),
                ("output", spend.output),
                ("reasoning", spend.reasoning),
            ):
                tokens.add_metric([*labels, name], count)
            cost.add_metric(labels, spend.cost)
            saved.add_metric(labels, spend.saved)
        yield from (tokens, cost, saved)

    def _targets(self) -> Iterator[Metric]:
        labels = ["route", "target"]
        inside = GaugeMetricFamily("llmops_target_in_flight", "Calls at a target.", labels=labels)
        bound = GaugeMetricFamily(
            "llmops_target_limit", "Calls at once that a target gets now; +Inf is no bound.", labels=labels
        )
        queued = GaugeMetricFamily(
            "llmops_target_queued", "Calls that wait for a place at a target.", labels=labels
        )
        refused = CounterMetricFamily("llmops_queue_refused", "Calls that found no place.", labels=labels)
        for key, gate in list(self._plane.gates.all.items()):
            inside.add_metric(key, gate.in_flight)
            bound.add_metric(key, gate.bound)
            queued.add_metric(key, gate.queued)
            refused.add_metric(key, gate.turned_away)
        yield from (inside, bound, queued, refused)
        now = time.monotonic()
        state = GaugeMetricFamily(
            "llmops_breaker_state", "0 closed, 1 half-open, 2 open, for all projects.", labels=labels
        )
        common: dict[tuple[str, str], int] = {}
        own: dict[tuple[str, str], list[int]] = {}
        for (route, model, project), breaker in list(self._plane.breakers.every()):
            value = 0 if not breaker.open_until else 2 if now < breaker.open_until else 1
            if project:
                own.setdefault((route, model), []).append(value)
            else:
                common[route, model] = value
        for name, value in common.items():
            # Where there is one project, what is open for it is open for all.
            state.add_metric(name, value or min(own.get(name, (0,))))
        yield state
        alone = GaugeMetricFamily(
            "llmops_breaker_projects",
            "Projects whose own calls are kept away from a target, because theirs alone fail there.",
            labels=labels,
        )
        for name, values in own.items():
            alone.add_metric(name, sum(value > 0 for value in values))
        yield alone

    def _credentials(self) -> Iterator[Metric]:
        refused = self._plane.credentials.refused()
        state = GaugeMetricFamily(
            "llmops_credential_refused",
            "1 while the provider refuses a credential, be it for one model.",
            labels=["provider", "credential"],
        )
        for provider, entries in self._plane.snapshot.live.credentials.items():
            for entry in entries:
                state.add_metric([provider, entry.name], entry.id in refused)
        yield state

    def _money(self) -> Iterator[Metric]:
        purse, view = self._plane.purse, self._plane.view
        labels = ["budget"]
        leased = GaugeMetricFamily(
            "llmops_budget_available_nanodollars", "Leased here and not held.", labels=labels
        )
        held = GaugeMetricFamily(
            "llmops_budget_held_nanodollars", "Held by calls under way here.", labels=labels
        )
        for budget_id, pot in list(purse.pots.items()):
            entry = view.budgets_by_id.get(budget_id)
            if entry is not None:
                leased.add_metric([entry.slug], pot.available)
                held.add_metric([entry.slug], pot.held)
        yield from (leased, held)

    def _process(self) -> Iterator[Metric]:
        plane = self._plane
        yield _gauge("llmops_in_flight", "Calls under way.", len(plane.calls))
        yield _gauge("llmops_body_bytes", "Kept in memory of bodies of calls under way.", plane.bodies.used)
        yield _gauge("llmops_body_bytes_limit", "At most so many of them.", plane.bodies.limit)
        yield _gauge(
            "llmops_spooled_bytes", "Kept in files of bodies of calls under way.", plane.spooled.used
        )
        yield _gauge("llmops_spooled_bytes_limit", "At most so many of them.", plane.spooled.limit)
        yield _gauge("llmops_background_followed", "Background responses under way.", len(plane.background))
        yield _gauge("llmops_ready", "1 when this process should get calls.", not plane.unready())
        yield _gauge("llmops_revision", "The revision served.", plane.snapshot.revision)
        yield _gauge("llmops_cache_bytes", "Answers in the response cache.", plane.cache.size)
        yield _gauge("llmops_cache_entries", "Answers in the response cache.", len(plane.cache))
        yield _gauge("llmops_journal_healthy", "1 while records can be written.", plane.journal.healthy)
        yield _gauge(
            "llmops_journal_unwritten_records", "Records kept in memory until they can be.", plane.unwritten
        )
        yield _gauge("llmops_journal_unbooked_records", "Records not yet in the database.", plane.unbooked)
        yield _gauge(
            "llmops_live_state_age_seconds",
            "Since the database was last asked for changes.",
            plane.live_state_age(),
        )
        live = _histogram(
            "llmops_live_state_delay_seconds", "From a change in the console to its being served here.", ()
        )
        _add(live, [], plane.metrics.live_state, SECONDS)
        yield live


async def serve(visit: Visit) -> None:
    """``GET /metrics``: 401 without a valid key, 403 for one without the scope."""
    plane = visit.plane
    headers = dict(visit.scope["headers"])
    request = (b"x-request-id", request_id_of(headers, str(uuid7())).encode())
    try:
        key = key_of(plane.snapshot, headers.get(b"authorization"), time.time())
        if SCOPE not in key.scopes:
            raise PermissionDenied(
                f"The service key {key.name!r} has no scope {SCOPE!r}, which reading metrics takes. Use a key that has it: "
                "an operator gives scopes when a key is made (Service keys in the console)."
            )
        accepted = headers.get(b"accept", b"").decode("latin-1")
        encoder, kind = choose_encoder(accepted)
        registry = _registry(plane)
        # Beside the loop: the text of a few thousand series takes a while.
        body, status = await plane.off_loop(lambda: encoder(registry)), 200
        sent = [(b"content-type", kind.encode())]
    except Exception as problem:
        error: ConsoleError = as_console_error(problem, where="metrics")
        body, status, sent = error_body(error), error.status, [JSON_TYPE, *error_headers(error)]
    sent += [request, (b"content-length", b"%d" % len(body))]
    await visit.send({"type": "http.response.start", "status": status, "headers": sent})
    await visit.send({"type": "http.response.body", "body": body})


def _counter(name: str, help_text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, count in list(counts.items()):
        family.add_metric([value], count)
    return family


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=float(value))


def _histogram(name: str, help_text: str, labels: Sequence[str]) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, help_text, labels=labels)


def _add(
    family: HistogramMetricFamily, labels: Sequence[str], durations: Durations, bounds: Sequence[float]
) -> None:
    counts = accumulate(durations.buckets)
    names = [*(floatToGoString(bound) for bound in bounds), "+Inf"]
    family.add_metric(labels, list(zip(names, counts, strict=True)), durations.total_us / 1_000_000)


def _registry(plane: Plane) -> CollectorRegistry:
    if plane.registry is None:
        registry = plane.registry = CollectorRegistry(auto_describe=False)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        registry.register(PlaneCollector(plane))
    return plane.registry
