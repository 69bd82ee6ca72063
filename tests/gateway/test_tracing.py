"""Spans of calls: their names, their parents, and nothing of what was said."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from llmops.gateway.telemetry.tracing import Tracing
from tests.gateway.rig import (
    DONE,
    Rig,
    a_model,
    a_route,
    answers,
    ask,
    chunk,
    eventually,
    fails,
    hangs,
    streams,
    usage_chunk,
)

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans(rig: Rig) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    rig.plane.tracing = Tracing(provider)
    yield exporter


def named(exporter: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    return [one for one in exporter.get_finished_spans() if one.kind is kind]


async def test_a_call_is_a_span_with_its_attempts_in_it(rig: Rig, spans: InMemorySpanExporter) -> None:
    rig.configure(
        models=(a_model(), a_model("large")),
        routes=(a_route("chat", "small", fallbacks=("large",), attempts=2),),
    )
    rig.upstream.does(fails(500), answers())
    answer = await rig.chat(model="chat", how={"headers": {"traceparent": f"00-{TRACE}-{PARENT}-01"}})
    [call] = named(spans, SpanKind.SERVER)
    first, second = named(spans, SpanKind.CLIENT)
    assert (call.name, first.name, second.name) == ("chat chat", "chat small", "chat large")
    assert call.parent is not None
    assert (f"{call.context.trace_id:032x}", f"{call.parent.span_id:016x}") == (TRACE, PARENT)
    assert {one.parent.span_id for one in (first, second) if one.parent} == {call.context.span_id}
    assert first.status.status_code is StatusCode.ERROR
    assert second.status.status_code is not StatusCode.ERROR
    told = dict(call.attributes or {})
    assert told["gen_ai.operation.name"] == "chat"
    assert (told["gen_ai.provider.name"], told["gen_ai.request.model"]) == ("up", "large")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (10, 5)
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert told["llmops.call.id"] == answer.headers["x-llmops-call-id"]
    assert told["llmops.fallbacks"] == 1
    assert "gen_ai.system" not in told
    assert call.start_time is not None and call.end_time is not None
    for one in (first, second):
        assert one.start_time is not None and one.end_time is not None
        assert call.start_time <= one.start_time <= one.end_time <= call.end_time
    assert rig.plane.tracing is not None
    assert rig.plane.tracing._callers == {}


async def test_streams_refusals_and_hang_ups_are_spans_as_well(rig: Rig, spans: InMemorySpanExporter) -> None:
    rig.upstream.does(streams(chunk("a", finish="stop"), usage_chunk(), DONE), hangs)
    await rig.chat(stream=True)
    await rig.chat(model="unknown")
    gone = rig.start(ask())
    await eventually(lambda: len(rig.upstream.asked) == 2)
    gone.hang_up()
    await gone.task
    streamed, refused, left = named(spans, SpanKind.SERVER)
    assert "llmops.time_to_first_token_us" in (streamed.attributes or {})
    assert (refused.attributes or {})["error.type"] == "model_not_found"
    assert (left.attributes or {})["llmops.status"] == "client_closed"
    assert rig.plane.tracing is not None
    assert rig.plane.tracing._callers == {}


async def test_nothing_that_was_said_is_in_a_span(rig: Rig, spans: InMemorySpanExporter) -> None:
    rig.upstream.does(answers("PLANTED-answer"))
    await rig.chat(
        text="PLANTED-text", user="PLANTED-user", how={"headers": {"traceparent": "PLANTED nonsense"}}
    )
    assert "PLANTED" not in "".join(one.to_json() for one in spans.get_finished_spans())


async def test_a_line_for_every_call_where_it_is_wanted(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llmops.calls"):
        await rig.chat()
        assert not caplog.records
        rig.plane.log_calls = True
        rig.upstream.does(answers("PLANTED-answer"))
        answer = await rig.chat(text="PLANTED-text", user="PLANTED-user")
    [line] = [one for one in caplog.records if one.name == "llmops.calls"]
    told = vars(line)
    assert told["request_id"] == answer.headers["x-request-id"]
    assert told["call_id"] == answer.headers["x-llmops-call-id"]
    assert (told["status"], told["model"], told["input_tokens"], told["http_status"]) == (
        "ok",
        "small",
        10,
        200,
    )
    assert "PLANTED" not in str(told)
