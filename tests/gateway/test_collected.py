"""A collector that listens gets spans and metrics of calls over OTLP, as its own protocol has them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from llmops.core.errors import ConfigurationRefused
from llmops.gateway.telemetry import pushing, tracing
from tests.gateway.rig import DONE, Rig, a_budget, answers, chunk, fails, streams, usage_chunk
from tests.gateway.test_metrics import configured, scraped

pytestmark = pytest.mark.any_engine


class Collector:
    """``told`` are paths and bodies; ``came`` is set with each."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []
        self.came = threading.Semaphore(0)
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                packed = self.headers.get("content-encoding") == "gzip"
                collector.told.append((self.path, gzip.decompress(body) if packed else body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()
                collector.came.release()

            def log_message(self, *_: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def metrics(self) -> dict[str, Any]:
        """Of the last push, by name."""
        body = [body for path, body in self.told if path == "/v1/metrics"][-1]
        [resource] = ExportMetricsServiceRequest.FromString(body).resource_metrics
        assert {one.key: one.value.string_value for one in resource.resource.attributes}[
            "service.name"
        ] == "llmops-gateway"
        return {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    found = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{found.server.server_port}")
    yield found
    found.server.shutdown()
    found.server.server_close()


def labels(point: Any) -> frozenset[tuple[str, str]]:
    return frozenset((one.key, one.value.string_value) for one in point.attributes)


async def test_spans_and_metrics_of_calls_arrive(rig: Rig, collector: Collector) -> None:
    rig.plane.tracing = told = tracing.from_environment()
    pushed = pushing.from_environment(rig.plane)
    assert told is not None and pushed is not None
    configured(rig, budgets=(a_budget(),))
    rig.upstream.does(answers(), fails(400, "bad"), streams(chunk("Secretly"), usage_chunk(), DONE))
    await rig.chat(model="chat")
    await rig.chat(model="chat")
    await rig.chat(model="chat", stream=True)
    told.close()
    pushed.close()

    spans = [
        span
        for path, body in collector.told
        if path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == ["chat chat"] * 3 + ["chat small"] * 3
    assert all(b"Secretly" not in body for _, body in collector.told)

    # The same figures as whoever scrapes reads.
    metrics = collector.metrics()
    texts = await scraped(rig)
    compared = 0
    for name, metric in metrics.items():
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            if kind == "histogram":
                assert metric.histogram.aggregation_temporality == 2
                assert texts[f"{name}_count", labels(point)] == point.count == sum(point.bucket_counts)
                assert texts[f"{name}_sum", labels(point)] == pytest.approx(point.sum)
                assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
                upto = 0
                for bound, count in zip(point.explicit_bounds, point.bucket_counts, strict=False):
                    upto += count
                    [text] = [
                        value
                        for (sample, found), value in texts.items()
                        if sample == f"{name}_bucket"
                        and {one for one in found if one[0] != "le"} == labels(point)
                        and float(dict(found)["le"]) == bound
                    ]
                    assert text == upto
            elif name != "llmops_live_state_age_seconds":
                sample = f"{name}_total" if kind == "sum" else name
                assert texts[sample, labels(point)] == point.as_double, name
            compared += 1
    assert {"llmops_requests", "llmops_request_duration_seconds", "llmops_ready"} <= set(metrics)
    assert metrics["llmops_requests"].sum.is_monotonic and compared > 20


async def test_it_pushes_by_itself_and_a_collector_that_is_away_stops_nothing(
    rig: Rig, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(rig)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    pushed = pushing.from_environment(rig.plane)
    assert pushed is not None
    pushed.start()
    assert collector.came.acquire(timeout=60) and collector.came.acquire(timeout=60)
    pushed.close()
    assert "llmops_ready" in collector.metrics()

    class Away:
        def export(self, *_: object, **__: object) -> None:
            raise ConnectionError("nobody there")

        def shutdown(self, **_: object) -> None:
            return None

    away = pushing.Pushing(rig.plane, Away(), None, every_s=60)
    away.push()
    away.close()


async def test_it_is_asked_for_in_the_environment(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pushing.from_environment(rig.plane) is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:1/v1/metrics")
    assert pushing.wanted() and not tracing.wanted()
    for wrong in ("often", "0", "nan", "-5"):
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", wrong)
        with pytest.raises(ConfigurationRefused, match="OTEL_METRIC_EXPORT_INTERVAL"):
            pushing.from_environment(rig.plane)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    assert pushing.from_environment(rig.plane) is None
