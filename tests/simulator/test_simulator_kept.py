"""Files, batches and stored chats of the simulated provider, through the official SDK."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest

ASK: list[Any] = [{"role": "user", "content": "How much did support spend in May?"}]


def line(number: int, model: str = "sim-gpt-4o+instant") -> bytes:
    body = {"model": model, "messages": ASK}
    asked = {"custom_id": f"c-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(asked).encode() + b"\n"


def test_a_file_goes_up_and_comes_down(client: openai.OpenAI) -> None:
    content = b"\x00\xffab\r\n--c" * 50_000
    file = client.files.create(file=("a b.bin", content), purpose="user_data")
    assert (file.bytes, file.filename, file.purpose) == (len(content), "a b.bin", "user_data")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == content
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_lists_are_paged(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{n}", b"x"), purpose="vision").id for n in range(5)]
    found = [file.id for file in client.files.list(purpose="vision", limit=2)]
    assert found == made[::-1]
    page = client.files.list(purpose="vision", limit=2, order="asc")
    assert ([one.id for one in page.data], page.has_more) == (made[:2], True)
    for one in made:
        client.files.delete(one)


def test_a_batch_ends_with_a_file_of_answers_and_one_of_errors(client: openai.OpenAI) -> None:
    content = line(1) + line(2, "sim-gpt-4o+error=400") + line(3)
    source = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=source.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"simulator_seconds": "0.1"},
    )
    assert batch.status == "in_progress"
    deadline = time.monotonic() + 60
    while (batch := client.batches.retrieve(batch.id)).status != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.failed) == (3, 1)
    answers = [json.loads(one) for one in client.files.content(str(batch.output_file_id)).text.splitlines()]
    assert [one["custom_id"] for one in answers] == ["c-1", "c-3"]
    assert all(one["response"]["body"]["usage"]["completion_tokens"] for one in answers)
    errors = [json.loads(one) for one in client.files.content(str(batch.error_file_id)).text.splitlines()]
    assert [(one["custom_id"], one["response"]["status_code"]) for one in errors] == [("c-2", 400)]
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)
    assert next(iter(client.batches.list(limit=1))).id == batch.id


def test_a_batch_can_be_cancelled_before_it_is_done(client: openai.OpenAI) -> None:
    source = client.files.create(file=("in.jsonl", line(1)), purpose="batch")
    batch = client.batches.create(
        input_file_id=source.id, endpoint="/v1/chat/completions", completion_window="24h",
        metadata={"simulator_seconds": "60"},
    )  # fmt: skip
    assert client.batches.cancel(batch.id).status == "cancelled"
    assert client.batches.retrieve(batch.id).output_file_id is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_can_be_stored(client: openai.OpenAI, stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": "sim-gpt-4o+instant",
        "messages": ASK,
        "store": True,
        "metadata": {"a": "b"},
    }
    if stream:
        name = next(iter(client.chat.completions.create(stream=True, **asked))).id
    else:
        name = client.chat.completions.create(**asked).id
    stored = client.chat.completions.retrieve(name)
    assert stored.id == name
    assert stored.choices[0].message.content
    changed: Any = client.chat.completions.update(name, metadata={"c": "d"})
    assert changed.metadata == {"c": "d"}
    assert [one.content for one in client.chat.completions.messages.list(name)] == [ASK[0]["content"]]
    assert name in [one.id for one in client.chat.completions.list(limit=100)]
    assert client.chat.completions.delete(name).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(name)
