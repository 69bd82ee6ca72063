"""Everything that can go wrong on request, as the official SDK and a raw socket see it, and what the ledger says of it."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests import launcher
from tests.simulator.running import RunningSimulator, running

ASK: list[Any] = [{"role": "user", "content": "How much?"}]


def chat(client: openai.OpenAI, model: str, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": model, "messages": ASK, **more})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("modifier", "error", "code"),
    [
        ("error=400", openai.BadRequestError, None),
        ("error=401", openai.AuthenticationError, "invalid_api_key"),
        ("error=403", openai.PermissionDeniedError, "unsupported_country_region_territory"),
        ("error=404", openai.NotFoundError, "model_not_found"),
        ("error=408", openai.APIStatusError, "timeout"),
        ("error=409", openai.ConflictError, "conflict"),
        ("error=413", openai.APIStatusError, None),
        ("error=422", openai.UnprocessableEntityError, None),
        ("error=429", openai.RateLimitError, "rate_limit_exceeded"),
        ("error=500", openai.InternalServerError, None),
        ("error=502", openai.InternalServerError, None),
        ("error=503", openai.InternalServerError, "overloaded"),
        ("error=504", openai.InternalServerError, None),
        ("quota", openai.RateLimitError, "insufficient_quota"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
    ],
)
def test_errors_are_the_sdks_own_classes(
    client: openai.OpenAI,
    simulator: RunningSimulator,
    stream: bool,
    modifier: str,
    error: type[openai.APIStatusError],
    code: str | None,
) -> None:
    with pytest.raises(error) as raised:
        chat(client, f"sim-small+instant+{modifier}", stream=stream)
    assert raised.value.code == code
    assert raised.value.response.headers["x-simulator"] == "true"
    [record] = simulator.records()
    assert record["outcome"] == "refused"
    assert record["status"] == raised.value.status_code
    assert record["usage"] == {}


def test_retry_after_is_sent(client: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        chat(client, "sim-small+instant+error=429:1.5")
    assert raised.value.response.headers["retry-after"] == "1.5"
    assert raised.value.response.headers["retry-after-ms"] == "1500"


def test_first_calls_fail_then_succeed(client: openai.OpenAI, simulator: RunningSimulator) -> None:
    model = "sim-small+instant+fail=2+error=503"
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            chat(client, model)
    assert chat(client, model).choices[0].finish_reason == "stop"
    with pytest.raises(openai.InternalServerError):
        chat(client, model + "+tokens=9")
    simulator.reset()
    with pytest.raises(openai.InternalServerError):
        chat(client, model)


def test_the_sdks_own_retries_get_through(simulator: RunningSimulator) -> None:
    with openai.OpenAI(base_url=simulator.url, api_key="sk-a", max_retries=3) as client:
        assert chat(client, "sim-small+instant+fail=2+error=429:0.01").choices
    assert [record["status"] for record in simulator.records()] == [429, 429, 200]


def test_header_wins_over_the_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.ConflictError):
        chat(client, "sim-small+instant+error=500", extra_headers={"x-simulator": "error=409"})
    answer = chat(client, "sim-small+instant+tokens=9", extra_headers={"x-simulator": "tokens=6, cached=1"})
    assert answer.usage.completion_tokens == 6
    # An answer that was kept for the name alone is not given to a call with the header, nor the other way round.
    assert chat(client, "sim-small+instant+tokens=9").usage.completion_tokens == 9


@pytest.mark.parametrize("how", ["zero", "missing", "null", "double", "huge", "negative", "text"])
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_usage_is_stated_and_the_ledger_has_the_truth(
    client: openai.OpenAI, simulator: RunningSimulator, how: str, stream: bool
) -> None:
    model = f"sim-small+instant+tokens=5+wrong_usage={how}"
    if stream:
        chunks = list(chat(client, model, stream=True, stream_options={"include_usage": True}))
        stated = chunks[-1].usage
    else:
        stated = chat(client, model).usage
    told = None if stated is None else stated.completion_tokens
    assert told == {
        "zero": 0, "missing": None, "null": None, "double": 10, "huge": 10**15, "negative": -6, "text": 5,
    }[how]  # fmt: skip
    [record] = simulator.records()
    assert record["usage"]["completion"] == 5
    if how == "text":
        # The SDK makes a number of it, so the bytes are looked at.
        assert b'"completion_tokens":"5"' in raw(simulator, model)[1]


def test_dropped_stream_is_an_error_after_what_came(
    client: openai.OpenAI, simulator: RunningSimulator
) -> None:
    received = []
    with pytest.raises(openai.APIError):
        for chunk in chat(client, "sim-small+latency=0+tps=500+drop=4", stream=True):
            received.append(chunk)
    assert "".join(c.choices[0].delta.content or "" for c in received if c.choices) == "Simulated answer:"
    [record] = simulator.records()
    assert (record["outcome"], record["usage"]["completion"], record["chunks"]) == ("dropped", 4, 5)
    assert record["served_usage"] is None


@pytest.mark.parametrize("modifier", ["drop=0", "drop=2+instant", "drop=1000000"])
def test_drop_at_the_edges(client: openai.OpenAI, simulator: RunningSimulator, modifier: str) -> None:
    with pytest.raises(openai.APIError):
        list(chat(client, f"sim-small+latency=0+tps=5000+tokens=8+{modifier}", stream=True))
    [record] = simulator.records()
    expected = {"drop=0": 0, "drop=2+instant": 2, "drop=1000000": 8}[modifier]
    assert (record["outcome"], record["usage"].get("completion", 0)) == ("dropped", expected)


def test_dropped_plain_answer_is_a_connection_error(
    client: openai.OpenAI, simulator: RunningSimulator
) -> None:
    with pytest.raises(openai.APIConnectionError):
        chat(client, "sim-small+instant+drop")
    [record] = simulator.records()
    assert record["outcome"] == "dropped"
    assert record["usage"]["completion"] > 0


def raw(simulator: RunningSimulator, model: str, **more: Any) -> tuple[bytes, bytes]:
    """Head and decoded body of an answer, read until the other side closes or the answer is whole."""
    where = urlsplit(simulator.url)
    body = json.dumps({"model": model, "messages": ASK, **more}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: close\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        data = b""
        while part := connection.recv(65536):
            data += part
    start, _, rest = data.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in start.lower():
        plain = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            plain += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
        return start, plain
    return start, rest


def test_truncated_stream_ends_as_if_nothing_were_wrong(simulator: RunningSimulator) -> None:
    head, body = raw(simulator, "sim-small+instant+truncate", stream=True)
    assert b" 200 " in head.splitlines()[0]
    assert body.endswith(b"\n\n")
    assert b"[DONE]" not in body
    events = [json.loads(event.removeprefix(b"data: ")) for event in body.split(b"\n\n") if event]
    assert all(event["choices"][0]["finish_reason"] is None for event in events)
    [record] = simulator.records()
    assert (record["outcome"], record["usage"]["completion"]) == ("dropped", len(events) - 1)


def test_half_an_event(simulator: RunningSimulator) -> None:
    _, body = raw(simulator, "sim-small+instant+half_event", stream=True)
    last = body.split(b"\n\n")[-1]
    assert last.startswith(b"data: {")
    with pytest.raises(json.JSONDecodeError):
        json.loads(last.removeprefix(b"data: "))


def test_invalid_json(simulator: RunningSimulator, client: openai.OpenAI) -> None:
    _, body = raw(simulator, "sim-small+instant+invalid_json", stream=True)
    assert body.endswith(b"data: [DONE]\n\n")
    broken = 0
    for event in body.split(b"\n\n"):
        if event and not event.endswith(b"[DONE]"):
            try:
                json.loads(event.removeprefix(b"data: "))
            except json.JSONDecodeError:
                broken += 1
    assert broken == 1
    _, plain = raw(simulator, "sim-small+instant+invalid_json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(plain)
    _, cut = raw(simulator, "sim-small+instant+truncate")
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut)


@pytest.mark.parametrize("stream", [False, True])
def test_html_and_nothing(simulator: RunningSimulator, stream: bool) -> None:
    head, body = raw(simulator, "sim-small+instant+html=502", stream=stream)
    assert b" 502 " in head.splitlines()[0]
    assert b"content-type: text/html" in head.lower()
    assert body.startswith(b"<!doctype html>")
    head, body = raw(simulator, "sim-small+instant+empty", stream=stream)
    assert b" 200 " in head.splitlines()[0]
    assert body == b""
    assert [record["usage"] for record in simulator.records()] == [{}, {}]


@pytest.mark.parametrize("stream", [False, True])
def test_hanging_call_times_out_and_is_recorded(simulator: RunningSimulator, stream: bool) -> None:
    with (
        openai.OpenAI(base_url=simulator.url, api_key="k", max_retries=0, timeout=0.3) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        chat(client, "sim-small+instant+hang", stream=stream)
    [record] = simulator.wait_for(lambda records: len(records) == 1)
    assert (record["outcome"], record["usage"], record["bytes"]) == ("client_gone", {}, 0)


def test_stalling_stream_gives_what_it_had(simulator: RunningSimulator) -> None:
    with openai.OpenAI(base_url=simulator.url, api_key="k", max_retries=0, timeout=0.3) as client:
        stream = chat(client, "sim-small+latency=0+tps=1000+stall=2", stream=True)
        received = []
        with pytest.raises(openai.APITimeoutError):
            for chunk in stream:
                received.append(chunk.choices[0].delta.content or "")
        stream.close()
    assert "".join(received) == "Simulated"
    [record] = simulator.wait_for(lambda records: len(records) == 1)
    assert (record["outcome"], record["usage"]["completion"]) == ("client_gone", 2)


@pytest.mark.parametrize("modifier", ["drop", "truncate", "stall", "hang", "error=503", "empty", "html"])
def test_embeddings_go_wrong_too(simulator: RunningSimulator, modifier: str) -> None:
    with (
        openai.OpenAI(base_url=simulator.url, api_key="k", max_retries=0, timeout=0.3) as client,
        # The SDK's own embeddings code stumbles over a page of HTML, which it takes for text.
        pytest.raises(AttributeError if modifier == "html" else (openai.APIError, ValueError)),
    ):
        client.embeddings.create(model=f"sim-embed-small+instant+{modifier}", input="one two three")
    [record] = simulator.wait_for(lambda records: len(records) == 1)
    assert record["outcome"] in ("dropped", "client_gone", "refused")
    assert record["usage"].get("prompt", 0) == (3 if modifier in ("drop", "truncate", "stall") else 0)


async def test_hang_up_stops_generation_at_once(simulator: RunningSimulator) -> None:
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="sim-small+latency=0+tps=50+tokens=4000", messages=ASK, stream=True
        )
        received = 0
        async for chunk in stream:
            received += bool(chunk.choices and chunk.choices[0].delta.content)
            if received == 5:
                break
        await stream.close()
    records = await asyncio.to_thread(simulator.wait_for, lambda records: len(records) == 1)
    [record] = records
    assert record["outcome"] == "client_gone"
    assert 5 <= record["usage"]["completion"] < 4000
    assert record["served_usage"] is None
    assert simulator.own("/healthz")["in_flight"] == 0


def test_hang_up_before_a_plain_answer(simulator: RunningSimulator) -> None:
    with (
        openai.OpenAI(base_url=simulator.url, api_key="k", max_retries=0, timeout=0.4) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        chat(client, "sim-small+latency=0+tps=20+tokens=4000")
    [record] = simulator.wait_for(lambda records: len(records) == 1)
    assert record["outcome"] == "client_gone"
    assert 0 < record["usage"]["completion"] < 4000


GOOD: dict[str, Any] = {"model": "sim-small+instant", "messages": ASK}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/chat/completions", b"{", 400, None),
        ("/v1/chat/completions", b"", 400, None),
        ("/v1/chat/completions", b"[]", 400, None),
        ("/v1/chat/completions", b'{"messages": []}', 400, "model"),
        ("/v1/chat/completions", {"model": "sim-small"}, 400, "messages"),
        ("/v1/chat/completions", {**GOOD, "messages": []}, 400, "messages"),
        ("/v1/chat/completions", {**GOOD, "messages": "hi"}, 400, "messages"),
        ("/v1/chat/completions", {**GOOD, "messages": ["hi"]}, 400, "messages[0]"),
        ("/v1/chat/completions", {**GOOD, "messages": [{"role": "boss", "content": "x"}]}, 400, "messages[0].role"),
        ("/v1/chat/completions", {**GOOD, "messages": [{"role": "user", "content": 5}]}, 400, "messages[0].content"),
        ("/v1/chat/completions", {**GOOD, "max_tokens": 0}, 400, "max_tokens"),
        ("/v1/chat/completions", {**GOOD, "max_tokens": -5}, 400, "max_tokens"),
        ("/v1/chat/completions", {**GOOD, "max_tokens": "9"}, 400, "max_tokens"),
        ("/v1/chat/completions", {**GOOD, "max_tokens": 10**9}, 400, "max_tokens"),
        ("/v1/chat/completions", {**GOOD, "max_tokens": 10**40}, 400, "max_tokens"),
        ("/v1/chat/completions", {**GOOD, "max_completion_tokens": 0}, 400, "max_completion_tokens"),
        ("/v1/chat/completions", {**GOOD, "n": 0}, 400, "n"),
        ("/v1/chat/completions", {**GOOD, "n": 129}, 400, "n"),
        ("/v1/chat/completions", {**GOOD, "temperature": 3}, 400, "temperature"),
        ("/v1/chat/completions", {**GOOD, "tools": [{"type": "function"}]}, 400, "tools[0].function.name"),
        ("/v1/chat/completions", {**GOOD, "tool_choice": 5}, 400, "tool_choice"),
        (
            "/v1/chat/completions",
            {**GOOD, "tool_choice": {"type": "function", "function": {"name": "gone"}}},
            400,
            "tool_choice",
        ),
        ("/v1/chat/completions", {**GOOD, "response_format": {"type": "xml"}}, 400, "response_format.type"),
        (
            "/v1/chat/completions",
            {**GOOD, "response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            400,
            "response_format.json_schema.schema",
        ),
        ("/v1/chat/completions", {**GOOD, "stream_options": {"include_usage": True}}, 400, "stream_options"),
        ("/v1/chat/completions", {**GOOD, "model": "gpt-4o"}, 404, "model"),
        ("/v1/chat/completions", {**GOOD, "model": "sim-embed-small"}, 400, "model"),
        ("/v1/chat/completions", {**GOOD, "model": "sim-small+bogus"}, 400, "model"),
        ("/v1/embeddings", {"model": "sim-small", "input": "x"}, 400, "model"),
        ("/v1/embeddings", {"model": "sim-embed-small", "input": ""}, 400, "input"),
        ("/v1/embeddings", {"model": "sim-embed-small", "input": []}, 400, "input"),
        ("/v1/embeddings", {"model": "sim-embed-small", "input": ["a", 5]}, 400, "input"),
        ("/v1/embeddings", {"model": "sim-embed-small", "input": ["a"] * 2049}, 400, "input"),
        ("/v1/embeddings", {"model": "sim-embed-small", "input": "a", "dimensions": 0}, 400, "dimensions"),
        ("/v1/embeddings", {"model": "sim-embed-small", "input": "a", "encoding_format": "hex"}, 400, "encoding_format"),
        ("/v1/responses", {"model": "sim-small", "input": ""}, 400, "input"),
        ("/v1/responses", {"model": "sim-small", "input": "x", "previous_response_id": "r"}, 400, "previous_response_id"),
        ("/v1/moderations", {"input": ""}, 400, "input"),
        ("/v1/nothing", {}, 404, None),
    ],
)  # fmt: skip
def test_bad_requests_name_the_field(
    simulator: RunningSimulator, path: str, body: Any, status: int, param: str | None
) -> None:
    import http.client

    where = urlsplit(simulator.url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, data, {"authorization": "Bearer k"})
    answer = connection.getresponse()
    error = json.loads(answer.read())["error"]
    connection.close()
    assert answer.status == status, error
    assert error["param"] == param, error
    assert set(error) == {"message", "type", "param", "code"}
    [record] = simulator.records()
    assert (record["outcome"], record["usage"]) == ("refused", {})


def test_context_window_is_real(client: openai.OpenAI) -> None:
    long = [{"role": "user", "content": "word " * 2_040}]
    with pytest.raises(openai.BadRequestError) as raised:
        chat(client, "sim-tiny+instant", messages=long, max_tokens=100)
    assert raised.value.code == "context_length_exceeded"
    assert "2048 tokens" in raised.value.message
    # 8,000 bytes, but few tokens: the exact count decides.
    assert chat(client, "sim-tiny+instant", messages=[{"role": "user", "content": "word " * 1_600}]).choices
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(model="sim-embed-small+instant", input="word " * 9_000)
    assert raised.value.code == "context_length_exceeded"


def test_no_key_wrong_key_and_keys_changed_on_the_fly(tmp_path: Path) -> None:
    with running(tmp_path, "--keys", "sk-alice, sk-bob") as simulator:

        def ask(key: str) -> str:
            with openai.OpenAI(base_url=simulator.url, api_key=key, max_retries=0) as client:
                return str(chat(client, "sim-small+instant").choices[0].finish_reason)

        assert ask("sk-alice") == ask("sk-bob") == "stop"
        for key in ("sk-charlie", "sk-alice2", "sk-Alice"):
            with pytest.raises(openai.AuthenticationError) as raised:
                ask(key)
            assert raised.value.status_code == 401
        simulator.own("/simulator/keys", "PUT", {"keys": ["sk-charlie"]})
        assert ask("sk-charlie") == "stop"
        with pytest.raises(openai.AuthenticationError):
            ask("sk-alice")
        records = simulator.records()
        assert [record["status"] for record in records] == [200, 200, 401, 401, 401, 200, 401]
        assert records[0]["key"] == records[6]["key"] != records[1]["key"]
        assert "sk-" not in simulator.ledger.read_text()


def test_a_taken_port_and_an_unusable_ledger_are_one_sentence(
    tmp_path: Path, simulator: RunningSimulator
) -> None:
    def start(*options: str) -> str:
        done = launcher.run([sys.executable, "-m", "llmops.simulator", *options])
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        return done.stderr

    port = str(urlsplit(simulator.url).port)
    assert f"Port {port} on 127.0.0.1 is taken" in start("--port", port)
    assert "can not be written" in start("--port", "0", "--ledger", str(tmp_path))


def test_any_model_serves_real_names(tmp_path: Path) -> None:
    with (
        running(tmp_path, "--any-model") as simulator,
        openai.OpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client,
    ):
        assert chat(client, "gpt-4o-2024-08-06+instant").system_fingerprint == "simulator"
