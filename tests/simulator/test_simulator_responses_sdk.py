"""The official SDK against a running simulator: responses, kept, streamed, and in the background."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest

from tests.simulator.test_simulator_sdk import WEATHER, count, prompt_tokens

__all__ = ["count"]


def test_responses(client: openai.OpenAI, count: Any) -> None:
    plain = client.responses.create(model="sim-small+instant", input="How much?", instructions="Be terse.")
    assert plain.output_text.startswith("Simulated answer: ")
    assert plain.status == "completed"
    assert plain.usage is not None
    assert plain.usage.output_tokens == count(plain.output_text)
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "How much?"}]
    assert plain.usage.input_tokens == prompt_tokens(count, messages)
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "How much?"}]}]
    again = client.responses.create(model="sim-small+instant", input=parts, instructions="Be terse.")  # type: ignore[arg-type]
    assert again.usage is not None
    assert again.usage.input_tokens == plain.usage.input_tokens
    cut = client.responses.create(model="sim-small+instant", input="How much?", max_output_tokens=5)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert count(cut.output_text) == 5


@pytest.mark.parametrize("model", ["sim-small+instant", "sim-small+latency=0+tps=3000"])
def test_responses_streamed(client: openai.OpenAI, model: str) -> None:
    plain = client.responses.create(model=model, input="How much?")
    with client.responses.stream(model=model, input="How much?") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert final.output_text == plain.output_text
    assert final.usage == plain.usage


def test_responses_call_functions(client: openai.OpenAI) -> None:
    tools: list[Any] = [{"type": "function", "strict": False, **tool["function"]} for tool in WEATHER]
    asked: dict[str, Any] = {"model": "sim-small+instant+toolcall=2", "input": "Go.", "tools": tools}
    plain = client.responses.create(**asked)
    calls = [item for item in plain.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["get_weather", "get_time"]
    with client.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert [(i.name, i.arguments) for i in final.output if i.type == "function_call"] == [
        (call.name, call.arguments) for call in calls
    ]
    history = [
        {"role": "user", "content": "Go."},
        *(call.to_dict() for call in calls),
        {"type": "function_call_output", "call_id": calls[0].call_id, "output": "rain"},
    ]
    assert client.responses.create(**{**asked, "input": history}).output_text.startswith("Simulated answer")
    schema = {
        "type": "object",
        "properties": {"a": {"const": 1}},
        "required": ["a"],
        "additionalProperties": False,
    }
    kept = client.responses.create(
        model="sim-small+instant",
        input="Go.",
        text={"format": {"type": "json_schema", "name": "x", "schema": schema}},
    )
    assert json.loads(kept.output_text) == {"a": 1}


def test_kept_responses_are_told_again_from_where_one_likes(client: openai.OpenAI) -> None:
    first = list(client.responses.create(model="sim-small+instant", input="How much?", stream=True))
    response_id = first[0].response.id  # type: ignore[union-attr]
    again = list(client.responses.retrieve(response_id, stream=True))
    assert [one.model_dump() for one in again] == [one.model_dump() for one in first]
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=4))
    assert [one.sequence_number for one in rest] == [one.sequence_number for one in first[5:]]
    assert client.responses.delete(response_id) is None
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response_id)


def test_a_response_goes_on_in_the_background(client: openai.OpenAI) -> None:
    made = client.responses.create(model="sim-small+latency=60000", input="How much?", background=True)
    assert (made.status, made.usage, made.background) == ("queued", None, True)
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert cancelled.usage is not None and cancelled.usage.output_tokens == 0
    failed = client.responses.create(model="sim-small+instant+error=500", input="x", background=True)
    deadline = time.monotonic() + 60
    while (failed := client.responses.retrieve(failed.id)).status != "failed":
        assert time.monotonic() < deadline
    assert failed.error is not None and failed.error.code == "server_error"
