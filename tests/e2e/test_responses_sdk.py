"""Responses and moderations with the official SDK, sync and async, through a running data plane; and what its death leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.e2e.test_sdk import KEY, PROVIDER_SECRET, Stack, start_gateway
from tests.installation import Installation
from tests.simulator.running import running

# What the wire is like; tests/e2e/test_sdk.py says why once is enough.
pytestmark = pytest.mark.any_engine

OTHER = "llmops_e2ekey07_" + "s" * 40
ASK = "How much did support spend in May?"
MODELS = {
    "plain": "sim-gpt-4o+instant",
    "paced": "sim-gpt-4o+latency=20+tps=400",
    "slow": "sim-gpt-4o+latency=300+tps=20+tokens=2000",
    "tools": "sim-gpt-4o+instant+toolcall",
    "soon": "sim-gpt-4o+latency=300",
    "broken": "sim-gpt-4o+error=500",
    "dropped": "sim-gpt-4o+latency=5+tps=200+drop=4",
    "endless": "sim-gpt-4o+hang",
}
_MODEL = (
    "  - {{slug: {slug}, provider: sim, model: {model!r}, context_window: 128000, max_output_tokens: 16384, "
    'default_max_output_tokens: 512, prices: {{input: "1", output: "10"}}}}\n'
)
CONFIGURATION = """\
version: 1
projects:
  - {{slug: support, name: Support}}
  - {{slug: other, name: Other}}
providers:
  - slug: sim
    kind: simulator
    base_url: {url}
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:{secret}"}}]
models:
{models}
  - {{slug: omni-moderation-latest, provider: sim, model: sim-moderation, context_window: 32768, max_output_tokens: 0, default_max_output_tokens: 0}}
budgets:
  - {{name: support-month, scope: "project:support", limit_usd: "1000.00", period: month, hard: true}}
service_keys:
  - {{name: all, project: support, secret: "plain:{all}", routes: ["*"], models: ["*"]}}
  - {{name: stranger, project: other, secret: "plain:{other}", routes: ["*"], models: ["*"]}}
"""


@pytest.fixture(scope="module")
def stack(module_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("simulator")) as simulator:
        models = "".join(_MODEL.format(slug=slug, model=model) for slug, model in MODELS.items())
        text = CONFIGURATION.format(
            url=simulator.url, secret=PROVIDER_SECRET, models=models, all=KEY, other=OTHER
        )
        module_installation.manage("apply", "-f", "-", stdin=text)
        module_installation.start_booking()
        port = module_installation.free_port()
        gateway = start_gateway(module_installation, port)
        module_installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
        yield Stack(module_installation, simulator, gateway, port)


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
    return found


def booked(stack: Stack, call_id: str) -> dict[str, Any]:
    found: dict[str, Any] = until(lambda: stack.calls().get(call_id.replace("-", "")))
    return found


def cost(usage: Any) -> int:
    return int(usage.input_tokens) * 1_000 + int(usage.output_tokens) * 10_000


# ---------------------------------------------------------------------- a response and what follows


def test_a_response_is_made_read_continued_and_deleted(stack: Stack) -> None:
    with stack.client() as client:
        raw = client.responses.with_raw_response.create(model="plain", input=ASK, metadata={"a": "b"})
        made = raw.parse()
        assert made.output_text.startswith("Simulated")
        assert made.usage is not None and made.metadata is not None
        call = booked(stack, raw.headers["x-llmops-call-id"])
        assert (call["status"], call["cost_nano"]) == ("ok", cost(made.usage))
        assert client.responses.retrieve(made.id).output_text == made.output_text
        assert [item.type for item in client.responses.input_items.list(made.id)] == ["message"]
        more = client.responses.create(model="plain", input="And in June?", previous_response_id=made.id)
        assert more.usage is not None and more.usage.input_tokens > made.usage.output_tokens
        assert more.previous_response_id == made.id
        told = list(client.responses.retrieve(made.id, stream=True))
        assert told[-1].type == "response.completed"
        after = list(client.responses.retrieve(made.id, stream=True, starting_after=told[3].sequence_number))
        assert [one.sequence_number for one in after] == [one.sequence_number for one in told[4:]]
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="plain", input="x", previous_response_id=made.id)
        assert refused.value.code == "previous_response_not_found"


def test_another_project_neither_reads_nor_continues_it(stack: Stack) -> None:
    with stack.client() as client, stack.client(OTHER) as stranger:
        made = client.responses.create(model="plain", input=ASK)
        with pytest.raises(openai.NotFoundError):
            stranger.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            stranger.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            stranger.responses.cancel(made.id)
        with pytest.raises(openai.BadRequestError):
            stranger.responses.create(model="plain", input="x", previous_response_id=made.id)
        assert client.responses.retrieve(made.id).id == made.id


@pytest.mark.parametrize("model", ["plain", "paced"])
def test_a_response_is_streamed(stack: Stack, model: str) -> None:
    with stack.client() as client, client.responses.stream(model=model, input=ASK) as stream:
        events = list(stream)
        final = stream.get_final_response()
        assert events[-1].type == "response.completed"
        text = "".join(one.delta for one in events if one.type == "response.output_text.delta")
        assert final.output_text == text
        assert client.responses.retrieve(final.id).output_text == text


class Spend(BaseModel):
    amount: int
    currency: str


def test_a_response_is_parsed_into_a_schema(stack: Stack) -> None:
    with stack.client() as client:
        parsed = client.responses.parse(model="plain", input=ASK, text_format=Spend)
        assert isinstance(parsed.output_parsed, Spend)


def test_functions_are_called_and_named_on_the_record(stack: Stack) -> None:
    tool: Any = {
        "type": "function",
        "name": "find",
        "parameters": {"type": "object", "properties": {}},
        "strict": False,
    }
    with stack.client() as client:
        plain = client.responses.create(model="tools", input=ASK, tools=[tool])
        assert [item.type for item in plain.output] == ["function_call"]
        with client.responses.stream(model="tools", input=ASK, tools=[tool]) as stream:
            assert stream.get_final_response().output[0].type == "function_call"
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.responses.create(model="plain", input=ASK, tools=[{"type": "web_search"}])
        assert "web_search" in str(refused.value)


def test_compacting_and_counting(stack: Stack) -> None:
    with stack.client() as client:
        raw = client.responses.with_raw_response.compact(model="plain", input=ASK)
        compacted = raw.parse()
        assert compacted.object == "response.compaction"
        assert booked(stack, raw.headers["x-llmops-call-id"])["cost_nano"] == cost(compacted.usage)
        counted = client.responses.input_tokens.with_raw_response.count(model="plain", input=ASK)
        assert counted.parse().input_tokens > 5
        assert booked(stack, counted.headers["x-llmops-call-id"])["cost_nano"] == 0


def test_moderations_are_free(stack: Stack) -> None:
    with stack.client() as client:
        raw = client.moderations.with_raw_response.create(input="I will kill the process")
        assert raw.parse().results[0].flagged
        assert booked(stack, raw.headers["x-llmops-call-id"])["cost_nano"] == 0
        parts: Any = [
            {"type": "text", "text": "hello"},
            {"type": "image_url", "image_url": {"url": "https://e.org/a"}},
        ]
        assert not client.moderations.create(model="omni-moderation-latest", input=parts).results[0].flagged


async def test_the_async_client_and_many_at_once(stack: Stack) -> None:
    async with stack.aclient() as client:

        async def one(number: int) -> None:
            made = await client.responses.create(model="plain", input=f"Question {number}")
            assert (await client.responses.retrieve(made.id)).output_text == made.output_text
            async with client.responses.stream(model="paced", input=f"Question {number}") as stream:
                kinds = [event.type async for event in stream]
            assert kinds[0] == "response.created" and kinds[-1] == "response.completed"

        await asyncio.gather(*(one(number) for number in range(10)))


# ---------------------------------------------------------------------- failures


def test_failures_are_the_sdks_own(stack: Stack) -> None:
    with stack.client() as client:
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model="broken", input=ASK)
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="nowhere", input=ASK)
        with pytest.raises(openai.BadRequestError):
            client.responses.create(model="plain", input=[])
        with pytest.raises(openai.APIError) as broken:
            for _ in client.responses.create(model="dropped", input=ASK, stream=True):
                pass
        assert broken.value.code == "stream_interrupted"


# ---------------------------------------------------------------------- in the background


def test_a_background_response_is_settled_with_its_usage(stack: Stack) -> None:
    with stack.client() as client:
        raw = client.responses.with_raw_response.create(model="soon", input=ASK, background=True)
        made = raw.parse()
        assert made.status in ("queued", "in_progress")
        done = until(lambda: (found := client.responses.retrieve(made.id)).status == "completed" and found)
        assert booked(stack, raw.headers["x-llmops-call-id"])["cost_nano"] == cost(done.usage)


def test_nobody_need_ask_for_a_background_response_to_be_settled(stack: Stack) -> None:
    with stack.client() as client:
        raw = client.responses.with_raw_response.create(model="soon", input=ASK, background=True)
        call = booked(stack, raw.headers["x-llmops-call-id"])
        assert call["status"] == "ok"
        assert call["cost_nano"] == cost(client.responses.retrieve(raw.parse().id).usage)


def test_a_background_response_is_cancelled(stack: Stack) -> None:
    with stack.client() as client:
        raw = client.responses.with_raw_response.create(model="slow", input=ASK, background=True)
        cancelled = client.responses.cancel(raw.parse().id)
        assert cancelled.status == "cancelled"
        call = booked(stack, raw.headers["x-llmops-call-id"])
        assert (call["status"], call["error_code"]) == ("client_closed", "cancelled")
        assert call["cost_nano"] == cost(cancelled.usage)


def test_a_background_stream_is_left_and_taken_up_again(stack: Stack) -> None:
    with stack.client() as client:
        seen: list[Any] = []
        with client.responses.create(model="paced", input=ASK, background=True, stream=True) as stream:
            call_id = stream.response.headers["x-llmops-call-id"]
            for event in stream:
                seen.append(event)
                if len(seen) == 6:
                    break
        response_id = seen[0].response.id
        rest = list(
            client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
        )
        assert rest[-1].type == "response.completed"
        text = "".join(one.delta for one in [*seen, *rest] if one.type == "response.output_text.delta")
        assert text == rest[-1].response.output_text
        call = booked(stack, call_id)
        assert (call["status"], call["cost_nano"]) == ("ok", cost(rest[-1].response.usage))


def test_a_process_that_is_killed_leaves_its_background_responses_at_their_hold(stack: Stack) -> None:
    installation = stack.installation
    port = installation.free_port()
    gateway = start_gateway(installation, port)
    installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
    with openai.OpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client:
        raw = client.responses.with_raw_response.create(
            model="endless", input=ASK, background=True, max_output_tokens=100
        )
        call_id = raw.headers["x-llmops-call-id"].replace("-", "")
    gateway.kill()
    call = until(lambda: stack.calls().get(call_id))
    assert call["status"] == "unknown"
    assert 100 * 10_000 < call["cost_nano"] < 100 * 10_000 + 1_000 * 1_000
    # The response is still the project's: another process finds it.
    with stack.client() as client:
        assert client.responses.retrieve(raw.parse().id).status in ("queued", "in_progress")


def test_a_process_that_stops_says_that_the_bill_is_not_known(stack: Stack) -> None:
    installation = stack.installation
    port = installation.free_port()
    gateway = start_gateway(installation, port)
    installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
    with openai.OpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client:
        raw = client.responses.with_raw_response.create(
            model="endless", input=ASK, background=True, max_output_tokens=100
        )
    gateway.stop()
    call = booked(stack, raw.headers["x-llmops-call-id"])
    assert (call["status"], call["error_code"]) == ("error", "background_unknown")
    assert call["cost_nano"] > 100 * 10_000
