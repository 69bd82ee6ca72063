"""What ``/metrics`` tells, pushed to a collector over OTLP/HTTP as well; only where one is named and OpenTelemetry is installed.

The same figures under the same names, cumulative since the process began, so that a query is the same whichever way they come.
Environment: OpenTelemetry's own (``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``..._METRICS_ENDPOINT``, ``OTEL_METRIC_EXPORT_INTERVAL`` in
milliseconds, ``OTEL_METRICS_EXPORTER=none`` for none).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

from prometheus_client.core import Metric

from llmops.core.errors import ConfigurationRefused
from llmops.gateway.plane import Plane
from llmops.gateway.telemetry.exposition import PlaneCollector

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_INTERVAL_MS = 60_000
_LAST_MS = 1_000


def wanted() -> bool:
    """Whether the environment names a collector, and does not say that it takes no metrics."""
    return os.environ.get("OTEL_METRICS_EXPORTER") != "none" and any(
        os.environ.get(name) for name in ENDPOINTS
    )


class Pushing:
    """``exporter`` is an OTLP exporter of metrics. Works in a thread of its own from ``start`` to ``close``."""

    def __init__(self, plane: Plane, exporter: Any, resource: Any, *, every_s: float) -> None:
        self._collector = PlaneCollector(plane)
        self._exporter = exporter
        self._resource = resource
        self._every_s = every_s
        self._began = time.time_ns()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self.push()

    def push(self, *, within_ms: float = 10_000) -> None:
        """A collector that is away is told next time: figures are sums since the beginning, and nothing is lost."""
        try:
            self._exporter.export(self._told(), timeout_millis=within_ms)
        except Exception:
            log.exception("metrics could not be pushed; they are next time")

    def close(self) -> None:
        """Push once more; blocks for some seconds at most."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_MS / 1000)
        self.push(within_ms=_LAST_MS)
        self._exporter.shutdown(timeout_millis=_LAST_MS)

    def _told(self) -> Any:
        from opentelemetry.sdk.metrics import export
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        now = time.time_ns()
        metrics = [
            export.Metric(family.name, family.documentation, family.unit, data)
            for family in self._collector.collect()
            if (data := _data(export, family, self._began, now)).data_points
        ]
        scope = export.ScopeMetrics(InstrumentationScope("llmops-console"), metrics, "")
        return export.MetricsData([export.ResourceMetrics(self._resource, [scope], "")])


def _data(export: Any, family: Metric, began: int, now: int) -> Any:
    cumulative = export.AggregationTemporality.CUMULATIVE
    if family.type == "histogram":
        return export.Histogram(list(_histograms(export, family, began, now)), cumulative)
    points = [
        export.NumberDataPoint(dict(sample.labels), began, now, float(sample.value))
        for sample in family.samples
    ]
    if family.type == "counter":
        return export.Sum(points, cumulative, is_monotonic=True)
    return export.Gauge(points)


def _histograms(export: Any, family: Metric, began: int, now: int) -> Iterable[Any]:
    """A point for each set of labels: Prometheus counts up to each bound, OTLP between bounds."""
    found: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        of = found.setdefault(tuple(sorted(labels.items())), {"labels": labels, "upto": [], "sum": 0.0})
        if sample.name.endswith("_bucket"):
            of["upto"].append((float(sample.labels["le"]), int(sample.value)))
        elif sample.name.endswith("_sum"):
            of["sum"] = float(sample.value)
    for of in found.values():
        upto = sorted(of["upto"])
        counts = [count for _, count in upto]
        between = [count - before for count, before in zip(counts, [0, *counts], strict=False)]
        yield export.HistogramDataPoint(
            of["labels"], began, now, counts[-1], of["sum"], between, [bound for bound, _ in upto[:-1]], None, None
        )  # fmt: skip


def from_environment(plane: Plane) -> Pushing | None:
    """None where no collector is named. Raises ``ConfigurationRefused`` where one is and the packages are missing."""
    if not wanted():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        raise ConfigurationRefused(
            f"{ENDPOINTS[1]} is set, but OpenTelemetry is not installed. Install requirements-otel.lock, or unset it."
        ) from None
    try:
        every_s = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or _INTERVAL_MS) / 1000
    except ValueError:
        every_s = 0.0
    if not every_s >= 0.1:
        raise ConfigurationRefused(
            "OTEL_METRIC_EXPORT_INTERVAL is a number of milliseconds, at least 100. Set it to 60000, or unset it."
        )
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "llmops-gateway")})
    return Pushing(plane, OTLPMetricExporter(), resource, every_s=every_s)
