"""What bad input gets: a status, a sentence that names the field, and nothing billed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from llmops.serving.snapshot import HashEntry, PriceRow
from llmops.usage.records import Held
from tests.gateway.rig import (
    KEY,
    SECRET,
    Rig,
    a_budget,
    a_key,
    a_model,
    a_provider,
    a_route,
    ask,
    eventually,
)


def untouched(rig: Rig) -> None:
    """Nothing went upstream, nothing was held."""
    assert rig.upstream.asked == []
    assert not [one for one in rig.records() if isinstance(one, Held)]


# ---------------------------------------------------------------------- keys


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer ",
        "Bearer",
        "Basic " + KEY,
        KEY,
        "Bearer llmops_unknown_" + "x" * 40,
        "Bearer " + "x" * 5_000,
    ],
)
async def test_a_key_that_is_none_is_a_401(rig: Rig, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"authorization": authorization}
    answer = await rig.call(ask(), key=None, headers=headers, path=path)
    assert answer.status == 401
    assert answer.error["code"] == "invalid_api_key"
    assert answer.headers["x-request-id"]
    untouched(rig)
    assert rig.ended() == [], "nobody is known to have called"


@pytest.mark.parametrize(
    "entry",
    [
        a_key(expires=1.0),
        HashEntry(a_key(), valid_until=1.0),
        HashEntry(a_key(expires=1.0), valid_until=9e9),
    ],
)
async def test_an_expired_or_replaced_key_is_a_401_like_an_unknown_one(rig: Rig, entry: Any) -> None:
    rig.configure(keys={KEY: entry})
    expired = await rig.chat()
    rig.configure(keys={})
    unknown = await rig.chat()
    assert expired.status == unknown.status == 401
    assert expired.error == unknown.error
    untouched(rig)


async def test_keys_are_honoured_until_their_time(rig: Rig) -> None:
    rig.configure(keys={KEY: HashEntry(a_key(expires=time.time() + 100), valid_until=time.time() + 100)})
    assert (await rig.chat()).status == 200


async def test_a_key_of_another_scope_is_a_403(rig: Rig) -> None:
    rig.configure(keys={KEY: a_key(scopes=frozenset({"read", "configure"}))})
    answer = await rig.chat()
    assert answer.status == 403
    assert "inference" in answer.error["message"]
    untouched(rig)


async def test_a_model_or_route_that_the_key_may_not_use_is_a_403(rig: Rig) -> None:
    rig.configure(
        keys={KEY: a_key(allowed_routes=frozenset({"other"}), allowed_models=frozenset({"large"}))},
        models=[a_model("small"), a_model("large")],
        routes=[a_route("chat"), a_route("other")],
    )
    for name in ("chat", "small"):
        answer = await rig.chat(model=name)
        assert (answer.status, answer.error["param"]) == (403, "model")
        assert name in answer.error["message"]
    untouched(rig)
    for name in ("other", "large"):
        assert (await rig.chat(model=name)).status == 200


async def test_an_unknown_model_is_a_404(rig: Rig) -> None:
    answer = await rig.chat(model="gpt-99")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    untouched(rig)
    [ended] = rig.ended()
    assert ended.attempt == 0
    assert (ended.outcome.status, ended.outcome.http, ended.outcome.code) == (
        "refused",
        404,
        "model_not_found",
    )


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
    assert "1000000" in answer.error["message"]
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


# ---------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-llmops-feature", "x" * 101),
        ("x-llmops-feature", "a\x00b"),
        ("x-llmops-session", "s" * 101),
        ("x-llmops-user", "u" * 257),
        ("x-llmops-tags", ",".join(f"tag{i}" for i in range(17))),
        ("x-llmops-tags", "t" * 65),
        ("x-llmops-tags", "x" * 5_000),
    ],
)
async def test_an_attribution_header_out_of_bounds_is_named(rig: Rig, name: str, value: str) -> None:
    answer = await rig.chat(how={"headers": {name: value}})
    assert (answer.status, answer.error["param"]) == (400, name)
    untouched(rig)


async def test_attribution_is_recorded_and_the_end_user_only_as_a_digest(rig: Rig) -> None:
    headers = {
        "x-llmops-feature": "triage",
        "x-llmops-user": "ada@example.com",
        "x-llmops-session": "s-1",
        "x-llmops-tags": "a, b,a,,c ",
        "x-request-id": "from-the-caller.1",
    }
    answer = await rig.chat(how={"headers": headers}, user="somebody else")
    assert answer.headers["x-request-id"] == "from-the-caller.1"
    origin = rig.ended()[0].origin
    assert (origin.feature, origin.session, origin.tags, origin.request) == (
        "triage",
        "s-1",
        ["a", "b", "c"],
        "from-the-caller.1",
    )
    assert len(origin.user) == 16
    assert set(origin.user) <= set("0123456789abcdef")
    written = b"".join(path.read_bytes() for path in rig.directory.glob("*.jsonl"))
    assert b"ada@" not in written
    key = rig.plane.snapshot.live.keys.popitem()[1].key
    assert origin.user == rig.plane.user_digest(key.project_id, "ada@example.com")
    assert origin.user != rig.plane.user_digest("another project", "ada@example.com")


async def test_a_request_id_that_is_not_sane_is_replaced(rig: Rig) -> None:
    for given in ("x" * 100, "a b", "a\x07", ""):
        answer = await rig.chat(how={"headers": {"x-request-id": given}})
        assert answer.headers["x-request-id"].startswith("req_")


# ---------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("PUT", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/embeddings", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/chat", 404, "unknown_url"),
        ("POST", "/v1/chat/completions/", 404, "unknown_url"),
        ("GET", "/v1/", 404, "unknown_url"),
        ("GET", "/v1/../admin", 404, "unknown_url"),
        ("POST", "/v1/images/paintings", 404, "unknown_url"),
    ],
)
async def test_other_paths_and_methods_are_refused_in_openais_body(
    rig: Rig, method: str, path: str, status: int, code: str
) -> None:
    answer = await rig.call(ask(), method=method, path=path)
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"]


async def test_half_a_surrogate_in_a_path_is_refused_like_any_other(rig: Rig) -> None:
    answer = await rig.call(b"", method="GET", path="/v1/\ud800")
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")


async def test_health_tells_nothing_but_its_word(rig: Rig) -> None:
    alive = await rig.call(b"", method="GET", path="/healthz", key=None)
    assert (alive.status, alive.json) == (200, {"status": "alive"})
    ready = await rig.call(b"", method="GET", path="/readyz", key=None)
    assert (ready.status, ready.json) == (200, {"status": "ready"})
    rig.plane.draining = True
    draining = await rig.call(b"", method="GET", path="/readyz", key=None)
    assert (draining.status, draining.json) == (503, {"status": "draining"})
    refused = await rig.chat()
    assert (refused.status, refused.error["code"]) == (503, "service_unavailable")


# ---------------------------------------------------------------------- what is paused, priceless or limited


async def test_what_is_paused_says_why(rig: Rig) -> None:
    rig.configure(routes=[a_route()], paused_routes={"chat": "the model hallucinates dates"})
    answer = await rig.chat(model="chat")
    assert (answer.status, answer.error["code"]) == (503, "route_paused")
    assert "the model hallucinates dates" in answer.error["message"]
    rig.configure(paused_providers={"up": "contract ended"})
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (503, "provider_paused")
    assert "contract ended" in answer.error["message"]
    untouched(rig)


@pytest.mark.parametrize("hard", [True, False])
async def test_a_model_without_a_price_under_a_budget_is_refused_with_a_sentence(
    rig: Rig, hard: bool
) -> None:
    rig.configure(models=[a_model(prices=())], budgets=[a_budget("team", hard=hard)])
    answer = await rig.chat()
    assert (answer.status, answer.error["code"]) == (422, "model_not_priced")
    assert "'small'" in answer.error["message"]
    assert "'team'" in answer.error["message"]
    untouched(rig)


async def test_a_price_of_the_future_is_none_yet(rig: Rig) -> None:
    later = int(time.time()) + 1_000
    rig.configure(
        models=[a_model(prices=(PriceRow("input", later, 1), PriceRow("output", later, 1)))],
        budgets=[a_budget()],
    )
    assert (await rig.chat()).status == 422


async def test_without_a_budget_a_model_needs_no_price(rig: Rig) -> None:
    rig.configure(models=[a_model(prices=())])
    assert (await rig.chat()).status == 200
    assert rig.outcome().cost == 0


async def test_rate_limits_name_themselves_and_when_to_come_back(rig: Rig) -> None:
    rig.configure(keys={KEY: a_key("batch", rpm=2)})
    first, _, third = [await rig.chat() for _ in range(3)]
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert (third.status, third.error["code"]) == (429, "rate_limit_exceeded")
    assert "'batch'" in third.error["message"]
    assert 1 <= int(third.headers["retry-after"]) <= 120
    assert [one.outcome.status for one in rig.ended() if one.outcome] == ["ok", "ok", "refused"]


async def test_tokens_a_minute_are_counted_exactly_when_the_bound_does_not_fit(rig: Rig) -> None:
    # 600 bytes of words are far fewer tokens, so the call fits once it is counted.
    rig.configure(keys={KEY: a_key(tpm=500)}, models=[a_model(default_max_output_tokens=100)])
    assert (await rig.chat(text="hello " * 100)).status == 200
    answer = await rig.chat(text="hello " * 600)
    assert (answer.status, answer.error["code"]) == (429, "tokens_limit_exceeded")
    assert (
        "x-ratelimit-limit-tokens" not in answer.headers
        or answer.headers["x-ratelimit-limit-tokens"] == "500"
    )


async def test_what_a_call_did_not_use_is_given_back_to_the_minute(rig: Rig) -> None:
    rig.configure(keys={KEY: a_key(tpm=300)}, models=[a_model(default_max_output_tokens=100)])
    for _ in range(6):
        answer = await rig.chat(text="hi")
        assert answer.status == 200, answer.body
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) >= 300 - 6 * 15 - 1


async def test_calls_at_once_are_limited_and_freed_however_they_end(rig: Rig) -> None:
    async def waits(asked: Any, reply: Any) -> None:
        await asyncio.Event().wait()

    rig.configure(keys={KEY: a_key(concurrency=2)})
    rig.upstream.does(waits)
    under_way = [rig.start(ask()), rig.start(ask())]
    await eventually(lambda: len(rig.upstream.asked) == 2)
    third = await rig.chat()
    assert (third.status, third.error["code"]) == (429, "concurrency_limit_exceeded")
    for exchange in under_way:
        exchange.hang_up()
        await exchange.done()
    rig.upstream.does(rig.upstream.scripts[0])
    last = rig.start(ask())
    await eventually(lambda: len(rig.upstream.asked) == 3)
    last.hang_up()
    await last.done()


# ---------------------------------------------------------------------- lists


async def test_models_lists_what_the_key_may_name_and_no_more(rig: Rig) -> None:
    rig.configure(
        models=[a_model("small"), a_model("large"), a_model("hidden")],
        routes=[a_route("chat"), a_route("secret")],
        keys={KEY: a_key(allowed_routes=frozenset({"chat"}), allowed_models=frozenset({"large", "nothing"}))},
    )
    listed = await rig.call(b"", method="GET", path="/v1/models")
    assert listed.json["object"] == "list"
    assert [one["id"] for one in listed.json["data"]] == ["chat", "large"]
    assert {(one["object"], type(one["created"])) for one in listed.json["data"]} == {("model", int)}
    one = await rig.call(b"", method="GET", path="/v1/models/chat")
    assert (one.status, one.json["id"]) == (200, "chat")
    for name in ("hidden", "secret", "small", "none"):
        missing = await rig.call(b"", method="GET", path=f"/v1/models/{name}")
        assert (missing.status, missing.error["code"]) == (404, "model_not_found")
    assert (await rig.call(b"", method="GET", path="/v1/models", key="nobody")).status == 401


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


async def test_the_providers_secret_is_in_no_record_and_no_refusal(rig: Rig) -> None:
    rig.configure(providers=[a_provider(base_url=rig.upstream.url)], budgets=[a_budget(limit_nano=1)])
    answers = [await rig.chat(), await rig.chat(model="none"), await rig.call(b"{")]
    written = b"".join(path.read_bytes() for path in rig.directory.glob("*.jsonl"))
    for text in [written, *(one.body for one in answers)]:
        assert SECRET.encode() not in text
        assert KEY.encode() not in text
