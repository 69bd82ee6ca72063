"""What bad bodies get: the member that is wrong is named, and what is too much is not read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateway.rig import (
    KEY,
    Rig,
    a_budget,
    a_key,
    a_model,
    ask,
)
from tests.gateway.test_bad_input import untouched

# ---------------------------------------------------------------------- bodies

GOOD = ask()
WITHOUT: Any = object()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": WITHOUT}, "model"),
        ({"model": None}, "model"),
        ({"model": 4}, "model"),
        ({"model": ["small"]}, "model"),
        ({"model": ""}, "model"),
        ({"model": "x" * 300}, "model"),
        ({"messages": WITHOUT}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": {"role": "user"}}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}, "messages[1]"),
        ({"messages": [{"role": 5, "content": "a"}]}, "messages[0].role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": 4_001}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "100"}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_completion_tokens"),
        ({"max_completion_tokens": [1]}, "max_completion_tokens"),
        ({"max_tokens": 10, "max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 1_000}, "n"),
        ({"n": True}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": [1]}, "stream_options"),
        ({"user": 5}, "user"),
        ({"user": "x" * 1_000}, "user"),
    ],
)
async def test_a_member_that_is_wrong_is_named(rig: Rig, change: dict[str, Any], param: str) -> None:
    rig.configure(budgets=[a_budget()])
    body = {name: value for name, value in (GOOD | change).items() if value is not WITHOUT}
    answer = await rig.call(body)
    assert answer.status == 400, answer.body
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == param
    assert answer.error["message"].startswith(param)
    untouched(rig)
    assert rig.outcome().status == "refused"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"{'model': 'small'}",
        b'{"model": "small", "messages": [{"role": "user", "content": "a"}]',
        b'{"model": "small"} {"model": "small"}',
        b"\xff\xfe\x00",
        b'{"model": NaN}',
        b'{"model": "\xff"}',
        b"[" * 100_000,
        b'{"model":"small","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"small","messages":[{"role":"user","content":'
        + b'{"a":' * 50_000
        + b"1"
        + b"}" * 50_000
        + b"}]}",
        b'{"model":"\\ud800","messages":[{"role":"user","content":"a"}]}',
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_body_that_is_not_a_json_object_is_a_400(rig: Rig, body: bytes, path: str) -> None:
    answer = await rig.call(body, path=path)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    untouched(rig)


async def test_a_model_name_given_twice_means_the_same_to_everybody(rig: Rig) -> None:
    rig.configure(
        models=[a_model("small"), a_model("large")], keys={KEY: a_key(allowed_models=frozenset({"small"}))}
    )
    body = b'{"model":"large","model":"small","max_tokens":5,"max_tokens":7,"messages":[{"role":"user","content":"a"}]}'
    assert (await rig.call(body)).status == 200
    [asked] = rig.upstream.asked
    assert asked.body.count(b'"model"') == asked.body.count(b'"max_tokens"') == 1
    assert (asked.json["model"], asked.json["max_tokens"]) == ("sim-small", 7)
    swapped = await rig.call(body.replace(b'"large","model":"small"', b'"small","model":"large"'))
    assert swapped.status == 403


async def test_a_body_that_declares_too_much_is_not_even_read(rig: Rig) -> None:
    exchange = rig.start([b"x" * 1_000, b"y"], headers={"content-length": "50000000"})
    answer = await exchange.done()
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert "1,000,000 bytes" in answer.error["message"]
    assert exchange.left() == 2, "nothing of the body was taken"
    untouched(rig)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/images/edits", "/v1/files"])
async def test_a_length_beyond_all_numbers_is_too_large(rig: Rig, path: str) -> None:
    headers = {"content-length": "1" * 5_000, "content-type": "multipart/form-data; boundary=b"}
    answer = await rig.start([b"x"], path=path, headers=headers).done()
    assert answer.status == 413, answer.body
    assert answer.error["code"] == "request_too_large"
    untouched(rig)


async def test_a_body_that_grows_too_large_is_refused_while_it_is_read(rig: Rig) -> None:
    exchange = rig.start([b"x" * 400_000] * 100)
    answer = await exchange.done()
    assert answer.status == 413
    assert exchange.left() == 97
    untouched(rig)


async def test_a_body_that_lies_about_its_length_gains_nothing(rig: Rig) -> None:
    answer = await rig.call(b"x" * 1_500_000, headers={"content-length": "10"})
    assert answer.status == 413
    body = json.dumps(ask()).encode()
    longer = await rig.call([body[:20], body[20:]], headers={"content-length": "9999"})
    assert longer.status == 200


async def test_a_body_in_pieces_is_put_together(rig: Rig) -> None:
    body = json.dumps(ask(text="Grüße " * 1_000)).encode()
    answer = await rig.call([body[i : i + 7] for i in range(0, len(body), 7)])
    assert answer.status == 200
    assert rig.upstream.asked[0].json["messages"] == ask(text="Grüße " * 1_000)["messages"]


async def test_a_body_that_breaks_off_is_recorded_and_refused_for_who_still_listens(rig: Rig) -> None:
    """A server tells broken chunks and a client that left apart by nothing, and the former wants an answer."""
    exchange = rig.start([b'{"model": ', b"..."])
    exchange._inbox._queue.clear()  # type: ignore[attr-defined]
    exchange._inbox.put_nowait({"type": "http.request", "body": b'{"model"', "more_body": True})
    exchange.hang_up()
    await exchange.done()
    assert exchange.answer.status == 400
    assert exchange.answer.error["code"] == "invalid_body"
    assert exchange.answer.headers["x-request-id"]
    untouched(rig)
    assert rig.outcome().status == "client_closed"


# ---------------------------------------------------------------------- embeddings


@pytest.mark.parametrize(
    ("given", "param"),
    [
        (WITHOUT, "input"),
        (None, "input"),
        ("", "input"),
        ([], "input"),
        (5, "input"),
        ({"a": 1}, "input"),
        (["a", 5], "input[1]"),
        ([["a"]], "input[0]"),
        ([[1, 2], "a"], "input[1]"),
        ([1, -2], "input[0]"),
        ([1, True], "input[0]"),
        (["a", ""], "input[1]"),
        ([[]], "input[0]"),
        (["a"] * 2_049, "input"),
    ],
)
async def test_an_embedding_input_that_is_wrong_is_named(rig: Rig, given: Any, param: str) -> None:
    body = {"model": "small"} | ({} if given is WITHOUT else {"input": given})
    answer = await rig.call(body, path="/v1/embeddings")
    assert (answer.status, answer.error["param"]) == (400, param)
    untouched(rig)
