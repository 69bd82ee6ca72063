"""What bad input gets: a status, a sentence that names the field, and nothing billed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmops.core.texts import size_words
from llmops.serving.snapshot import HashEntry
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


async def test_the_providers_secret_is_in_no_record_and_no_refusal(rig: Rig) -> None:
    rig.configure(providers=[a_provider(base_url=rig.upstream.url)], budgets=[a_budget(limit_nano=1)])
    answers = [await rig.chat(), await rig.chat(model="none"), await rig.call(b"{")]
    written = b"".join(path.read_bytes() for path in rig.directory.glob("*.jsonl"))
    for text in [written, *(one.body for one in answers)]:
        assert SECRET.encode() not in text
        assert KEY.encode() not in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is not valid JSON: it is empty."),
        (b" \n", "The body is not valid JSON: it is empty."),
        (b'{"model": "small"', "The body is not valid JSON: it ends after 17 bytes, before the JSON does."),
        (b'{"model" "small"}', "The body is not valid JSON (near byte 9)."),
    ],
)
async def test_where_json_is_broken_is_said(rig: Rig, body: bytes, said: str) -> None:
    answer = await rig.call(body)
    assert (answer.status, answer.error["code"], answer.error["message"]) == (400, "invalid_json", said)


async def test_a_path_that_is_none_names_some_that_are(rig: Rig) -> None:
    said = (await rig.call(ask(), path="/v1/chat")).error["message"]
    assert "/v1/chat/completions" in said and "base URL ends with /v1" in said and "docs/" not in said


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (32 << 20, "32 MiB"),
        (1536, "1,536 bytes"),
        (2048, "2 KiB"),
        (1 << 40, "1,048,576 MiB"),
        (0, "0 bytes"),
    ],
)
def test_sizes_are_told_in_the_largest_unit_that_is_exact(number: int, words: str) -> None:
    assert size_words(number) == words
