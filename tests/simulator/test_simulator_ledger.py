"""The ledger has every request once, before its answer is whole, also when the process is killed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from llmops.simulator.ledger import Ledger, Record, Usage
from tests.simulator.running import RunningSimulator, running

ASK: list[Any] = [{"role": "user", "content": "How much?"}]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("model", ["sim-small+instant+tokens=5", "sim-small+latency=1+tps=5000+tokens=5"])
@pytest.mark.parametrize("stream", [False, True])
def test_line_is_in_the_file_when_the_answer_is_whole(
    client: openai.OpenAI, simulator: RunningSimulator, model: str, stream: bool
) -> None:
    before = len(lines(simulator.ledger))
    for number in range(1, 31):
        answer: Any = client.chat.completions.create(model=model, messages=ASK, stream=stream)  # type: ignore[call-overload]
        answer_id = [chunk.id for chunk in answer][-1] if stream else answer.id
        written = lines(simulator.ledger)
        assert len(written) == before + number
        assert written[-1]["id"] == answer_id


def test_what_a_record_holds(client: openai.OpenAI, simulator: RunningSimulator) -> None:
    answer = client.chat.completions.create(
        model="sim-small+instant",
        messages=ASK,
        extra_headers={"x-llmops-attempt-id": "attempt-7", "x-request-id": "call-9"},
    )
    [record] = simulator.records()
    assert record == lines(simulator.ledger)[-1]
    assert answer.usage is not None
    assert record["id"] == answer.id
    assert record["request_id"] == answer._request_id
    assert (record["attempt_id"], record["client_request_id"]) == ("attempt-7", "call-9")
    assert (record["endpoint"], record["model"]) == ("/v1/chat/completions", "sim-small+instant")
    assert record["usage"] == {
        "prompt": answer.usage.prompt_tokens,
        "completion": answer.usage.completion_tokens,
    }
    assert record["served_usage"] == {
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "total_tokens": answer.usage.total_tokens,
    }
    assert (record["status"], record["outcome"], record["stream"], record["chunks"]) == (
        200,
        "completed",
        False,
        1,
    )
    assert record["bytes"] > 300
    assert len(record["key"]) == 12


def test_every_endpoint_is_recorded(client: openai.OpenAI, simulator: RunningSimulator) -> None:
    client.embeddings.create(model="sim-embed-small+instant", input="one two")
    client.moderations.create(model="sim-moderation+instant", input="one two")
    client.responses.create(model="sim-small+instant", input="one two")
    client.models.list()
    records = simulator.records()
    assert [record["endpoint"] for record in records] == [
        "/v1/embeddings",
        "/v1/moderations",
        "/v1/responses",
        "/v1/models",
    ]
    assert records[0]["usage"] == {"prompt": 2}
    assert records[2]["served_usage"]["output_tokens"] == records[2]["usage"]["completion"]
    totals = simulator.own("/simulator/ledger")["totals"]
    assert totals["served"] == totals["completed"] == 4
    assert totals["prompt_tokens"] == sum(record["usage"].get("prompt", 0) for record in records)


def test_pages(client: openai.OpenAI, simulator: RunningSimulator) -> None:
    for _ in range(5):
        client.chat.completions.create(model="sim-small+instant", messages=ASK)
    first = simulator.own("/simulator/ledger?limit=2")
    rest = simulator.own(f"/simulator/ledger?since={first['records'][-1]['sequence']}")
    assert (len(first["records"]), first["more"]) == (2, True)
    assert (len(rest["records"]), rest["more"]) == (3, False)
    simulator.reset()
    assert simulator.records() == []
    assert simulator.own("/simulator/ledger")["totals"] == {}


async def test_killed_under_load_it_has_written_every_answer_that_was_whole(tmp_path: Path) -> None:
    with running(tmp_path) as simulator:
        whole: list[str] = []

        async def ask(client: openai.AsyncOpenAI, stream: bool) -> None:
            model = "sim-small+latency=0+tps=2000+tokens=10" if stream else "sim-small+instant"
            while True:
                try:
                    if stream:
                        chunks = await client.chat.completions.create(model=model, messages=ASK, stream=True)
                        ids = [chunk.id async for chunk in chunks]
                        whole.append(ids[-1])
                    else:
                        answer = await client.chat.completions.create(model=model, messages=ASK)
                        whole.append(answer.id)
                except openai.APIError:
                    return
                if len(whole) == 150:
                    simulator.process.kill()

        async with (
            asyncio.timeout(60),
            openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client,
        ):
            await asyncio.gather(*(ask(client, number % 2 == 0) for number in range(16)))
        written = [line["id"] for line in lines(simulator.ledger)]
        assert len(written) == len(set(written))
        assert len(whole) >= 150
        assert set(whole) <= set(written)


def test_memory_is_bounded_and_the_file_is_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl", keep=3)
    for number in range(10):
        ledger.add(
            Record(
                request_id=f"req_{number}",
                endpoint="/v1/x",
                status=200,
                outcome="completed",
                started=0,
                duration_ms=0,
                usage=Usage(prompt=1, completion=2),
            )
        )
    page = json.loads(ledger.page(0, 100))
    assert [record["request_id"] for record in page["records"]] == ["req_7", "req_8", "req_9"]
    assert page["forgotten"] == 7
    assert page["totals"] == {"served": 10, "completed": 10, "prompt_tokens": 10, "completion_tokens": 20}
    assert len(lines(tmp_path / "deep" / "ledger.jsonl")) == 10


def test_a_second_process_appends_to_the_same_file(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            running(tmp_path) as simulator,
            openai.OpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client,
        ):
            client.chat.completions.create(model="sim-small+instant", messages=ASK)
    assert len(lines(tmp_path / "simulator.jsonl")) == 2


def test_stopped_while_answering_it_ends_and_records_what_was_out(tmp_path: Path) -> None:
    with (
        running(tmp_path) as simulator,
        openai.OpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client,
    ):
        model = "sim-small+latency=0+tps=100+tokens=4000"
        stream = client.chat.completions.create(model=model, messages=ASK, stream=True)
        received = [next(stream) for _ in range(5)]
        simulator.process.terminate()
        with pytest.raises(openai.APIError):
            received.extend(stream)
        assert simulator.process.wait(20) == 0
        [line] = lines(simulator.ledger)
        assert line["outcome"] == "dropped"
        assert len(received) - 1 <= line["usage"]["completion"] < 4000
