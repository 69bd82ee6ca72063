"""Spans of calls for OpenTelemetry, with its GenAI names; only where an exporter is configured and installed.

A span is made of a call when it is over, from what was recorded of it anyway, so a call that is not traced pays for nothing
and one that is traced pays at its end. Parent: the caller's ``traceparent`` (W3C Trace Context). Names: OpenTelemetry
semantic conventions for generative AI, 1.37 (``gen_ai.provider.name``; no bodies, no prompts).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llmops.core.errors import ConfigurationRefused
from llmops.usage.records import Ended, Origin, Outcome

if TYPE_CHECKING:
    from llmops.gateway.parts import UnderWay

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OPERATIONS = {
    "chat.completions": "chat",
    "responses": "chat",
    "embeddings": "embeddings",
    "images.generations": "generate_content",
    "images.edits": "generate_content",
    "audio.speech": "generate_content",
}
_SHUT_DOWN_MS = 1_000


def wanted() -> bool:
    """Whether the environment names a collector, in OpenTelemetry's own variables."""
    return any(os.environ.get(name) for name in ENDPOINTS)


class Tracing:
    """``provider`` is an OpenTelemetry tracer provider. Belongs to one event loop; exports in a thread of its own."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("llmops-console")
        self._extract = TraceContextTextMapPropagator().extract
        #: by call: the headers that name the span it belongs to
        self._callers: dict[str, dict[str, str]] = {}
        self._server, self._client = SpanKind.SERVER, SpanKind.CLIENT
        self._error = StatusCode.ERROR

    def enter(self, call: UnderWay) -> None:
        """A call begins; whose span its own belongs to, it says in its headers."""
        if b"traceparent" in call.headers:
            self._callers[call.id] = {
                name: value.decode("latin-1")
                for name in ("traceparent", "tracestate")
                if (value := call.headers.get(name.encode())) is not None
            }

    def leave(self, call: UnderWay) -> None:
        self._callers.pop(call.id, None)

    def tell(self, ended: Ended) -> None:
        """Export the span of a call that is over, and one for each of its attempts."""
        from opentelemetry.trace import set_span_in_context

        outcome, origin = ended.outcome, ended.origin
        if outcome is None:
            return
        operation = _OPERATIONS.get(origin.endpoint, origin.endpoint)
        start = origin.started
        span = self._tracer.start_span(
            f"{operation} {origin.route or outcome.model}".strip(),
            context=self._extract(self._callers.get(origin.call, {})),
            kind=self._server,
            start_time=start,
            attributes=_of_call(origin, operation, outcome),
        )
        inside = set_span_in_context(span)
        end = start + outcome.total_us * 1000
        for attempt in outcome.attempts:
            began = start + attempt.started_us * 1000
            child = self._tracer.start_span(
                f"{operation} {attempt.model}",
                context=inside,
                kind=self._client,
                start_time=began,
                attributes=_some(
                    {
                        "gen_ai.operation.name": operation,
                        "gen_ai.provider.name": attempt.provider,
                        "gen_ai.request.model": attempt.model,
                        "http.response.status_code": attempt.status,
                        "error.type": attempt.code,
                        "llmops.attempt": attempt.n,
                        "llmops.attempt.why": attempt.why,
                        "llmops.provider.request.id": attempt.provider_request,
                    }
                ),
            )
            if attempt.code:
                child.set_status(self._error, attempt.code)
            # The clock of an attempt stops a moment after that of its call.
            child.end(end_time=min(began + attempt.total_us * 1000, end))
        if outcome.status in ("error", "interrupted"):
            span.set_status(self._error, outcome.code)
        span.end(end_time=end)

    def close(self) -> None:
        """Export what is left; blocks for a second at most."""
        self._provider.force_flush(_SHUT_DOWN_MS)
        self._provider.shutdown()


def _of_call(origin: Origin, operation: str, outcome: Outcome) -> dict[str, Any]:
    tokens = outcome.tokens
    return _some(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": outcome.provider,
            "gen_ai.request.model": outcome.model,
            "gen_ai.response.model": outcome.upstream_model,
            "gen_ai.response.finish_reasons": [outcome.finish] if outcome.finish else None,
            "gen_ai.usage.input_tokens": tokens.input,
            "gen_ai.usage.output_tokens": tokens.output,
            "http.response.status_code": outcome.http,
            "error.type": outcome.code,
            "llmops.call.id": origin.call,
            "llmops.request.id": origin.request,
            "llmops.project.id": origin.project,
            "llmops.endpoint": origin.endpoint,
            "llmops.route": origin.route,
            "llmops.feature": origin.feature,
            "llmops.revision": origin.revision,
            "llmops.status": outcome.status,
            "llmops.cache": outcome.cache,
            "llmops.cost_nanodollars": outcome.cost,
            "llmops.retries": outcome.retries,
            "llmops.fallbacks": outcome.fallbacks,
            "llmops.time_to_first_token_us": outcome.ttft_us,
        }
    )


def _some(attributes: dict[str, Any]) -> dict[str, Any]:
    """What has a value."""
    return {name: value for name, value in attributes.items() if value not in (None, "")}


def from_environment() -> Tracing | None:
    """None where no collector is named. Raises ``ConfigurationRefused`` where one is and the packages are missing."""
    if not wanted():
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationRefused(
            f"{ENDPOINTS[1]} is set, but OpenTelemetry is not installed. Install requirements-otel.lock, or unset it."
        ) from None
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "llmops-gateway")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)
