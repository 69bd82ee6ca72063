"""Wherever a request to a passed-through path could name something, it names nothing of another project, and no model that
the key may not call."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmops.gateway.kept import objects
from tests.gateway.keeping import MINE, OTHER, THEIRS, get, gives
from tests.gateway.making import BOUNDARY, form
from tests.gateway.rig import KEY, Rig, Upstream, a_key, a_model, a_provider

PATHS = ("/vector_stores", "/vector_stores/*", "/videos", "/things/*")
THEIR_ID, THEIR_UUID, MY_ID = "vs_theirs1", "0b9c7f1e-4ad1-4a44-9d0e-4b8f6a2f7a11", "vs_mine1"
FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture
async def two(rig: Rig, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """Two projects that share a provider, each with an object there."""
    monkeypatch.setattr(objects, "PATIENCE_S", 0.1)
    monkeypatch.setattr(objects, "_LOOK_EVERY_S", 0.02)
    rig.configure(
        providers=(a_provider(base_url=upstream.url, passthrough=PATHS),),
        keys={KEY: MINE, OTHER: THEIRS},
        models=(a_model(), a_model("dear")),
    )
    made = rig.plane.objects.made
    made("vector_stores", MY_ID, key=MINE, provider="up")
    for one in (THEIR_ID, THEIR_UUID):
        made("things", one, key=THEIRS, provider="up")
    upstream.does(gives({"id": "x"}))
    yield rig


def asks(name: str) -> dict[str, tuple[str, str, Any, dict[str, str]]]:
    """Ways to name an object: method, path, body, headers."""
    twice = b'{"a": {"file": "%b", "file": "vs_ok1"}}' % name.encode()
    as_json = json.dumps({"file_id": name}).encode()
    return {
        "query": ("GET", f"/v1/vector_stores?file_id={name}", b"", {}),
        "query, escaped": ("GET", f"/v1/vector_stores?a=%{ord(name[0]):x}{name[1:]}", b"", {}),
        "query, one of many": ("POST", f"/v1/vector_stores?ids=a_1234,{name}", {}, {}),
        "query, name": ("GET", f"/v1/vector_stores?{name}=1", b"", {}),
        "member": ("POST", "/v1/vector_stores", {"a": [{"b": name}]}, {}),
        "name of a member": ("POST", "/v1/vector_stores", {"a": {name: 1}}, {}),
        "address": ("POST", "/v1/vector_stores", {"a": f"/v1/things/{name}/content?x=1"}, {}),
        "list in a text": ("POST", "/v1/vector_stores", {"a": f"a_1234,{name}"}, {}),
        "JSON in a text": ("POST", "/v1/vector_stores", {"a": json.dumps({"b": [{"c": name}]})}, {}),
        "query, address": ("GET", f"/v1/vector_stores?a=/things/{name}", b"", {}),
        "escape": ("POST", "/v1/vector_stores", b'{"a": "\\u00%x%b"}' % (ord(name[0]), name[1:].encode()), {}),
        "field": ("POST", "/v1/vector_stores", form(("file_id", name)), FORM),
        "field of many": ("POST", "/v1/vector_stores", form(("ids", f"a_1234,{name}")), FORM),
        "field in JSON": ("POST", "/v1/vector_stores", form(("p", json.dumps({"a": name}))), FORM),
        "JSON as a file": ("POST", "/v1/vector_stores", as_json, {"content-type": "application/octet-stream"}),
        "JSON as an image": ("POST", "/v1/vector_stores", [b" ", b"\r\n" + as_json], {"content-type": "image/png"}),
        "given twice": ("POST", "/v1/vector_stores", twice, {}),
        "JSON in UTF-16": (
            "POST", "/v1/vector_stores", as_json.decode().encode("utf-16"), {"content-type": "audio/wav"},
        ),
        "JSON in UTF-32": ("POST", "/v1/vector_stores", as_json.decode().encode("utf-32-be"), {"content-type": "audio/wav"}),
        "not a number": (
            "POST", "/v1/vector_stores", as_json[:-1] + b', "x": NaN}', {"content-type": "image/png"},
        ),
        "behind a mark": ("POST", "/v1/vector_stores", b"\xef\xbb\xbf" + as_json, {"content-type": "video/mp4"}),
        "a form of another kind": (
            "POST", "/v1/vector_stores", form(("file_id", name)),
            {"content-type": f"multipart/mixed; boundary={BOUNDARY}"},
        ),
        "compressed": ("POST", "/v1/vector_stores", gzip.compress(as_json), {"content-encoding": "gzip"}),
    }  # fmt: skip


#: What two readers could read differently is not passed through at all.
REFUSED = {
    "given twice", "behind a mark", "a form of another kind", "compressed", "JSON in UTF-16", "JSON in UTF-32", "not a number",
}  # fmt: skip


@pytest.mark.parametrize("name", [THEIR_ID, THEIR_UUID])
@pytest.mark.parametrize("way", asks("x"))
async def test_anothers_object_is_named_in_no_way(two: Rig, upstream: Upstream, way: str, name: str) -> None:
    method, path, body, headers = asks(name)[way]
    answer = await two.call(body, method=method, path=path, headers=headers)
    assert answer.status in (400, 404), answer.body
    assert not upstream.asked


@pytest.mark.parametrize("way", sorted(set(asks("x")) - REFUSED))
async def test_ones_own_object_is_named_in_every_way(two: Rig, upstream: Upstream, way: str) -> None:
    method, path, body, headers = asks(MY_ID)[way]
    answer = await two.call(body, method=method, path=path, headers=headers)
    assert answer.status == 200, answer.body
    (asked,) = upstream.asked
    sent = (
        b"".join(body)
        if isinstance(body, list)
        else body
        if isinstance(body, bytes)
        else json.dumps(body).encode()
    )
    assert (asked.path, asked.body) == (path, sent)
    if "content-type" in headers:
        assert asked.headers["content-type"] == headers["content-type"]


async def test_a_model_in_a_form_is_one_that_the_key_may_call(two: Rig, upstream: Upstream) -> None:
    two.configure(
        providers=(a_provider(base_url=upstream.url, passthrough=PATHS),),
        keys={KEY: a_key(allowed_models=frozenset({"small"}))},
        models=(a_model(), a_model("dear")),
    )
    film = ("seed", ("a.png", "image/png", b"\x89PNG{"))
    for fields, status in (
        ([("model", "sim-dear")], 400),
        ([("model", "sim-small"), ("model", "sim-dear")], 400),
        ([("model", ("m", "text/plain", b"sim-dear"))], 400),
        ([("model", "sim-small"), ("stream", "true")], 422),
        ([("model", "sim-small"), ("prompt", "x" * 300_000)], 400),
        ([("model", "sim-small"), ("stream", "false"), film], 200),
        ([("prompt", "no model"), film], 200),
    ):  # fmt: skip
        upstream.asked.clear()
        body = form(*fields)
        answer = await two.call(body, path="/v1/videos", headers=FORM)
        assert answer.status == status, answer.body
        assert [one.body for one in upstream.asked] == ([body] if status == 200 else [])
    assert not two.plane.calls


async def test_files_go_through_unseen_and_in_pieces(two: Rig, upstream: Upstream) -> None:
    for pieces in (
        [b"", b"  ", b"PK\x03\x04", THEIR_ID.encode()],
        [b'{"custom_id": "a"}\n', b'{"custom_id": "b"}\n'],
        [b"{ not JSON " + THEIR_ID.encode()],
        [b"\xff\xd8\xff\xe0", b"JFIF" + b"x" * 2_000_000],
        [b"\x00\x00\x00\x18ftypmp42"],
        [b"", b""],
    ):
        upstream.asked.clear()
        answer = await two.call(
            pieces, path="/v1/vector_stores", headers={"content-type": "application/octet-stream"}
        )
        assert answer.status == 200, answer.body
        assert upstream.asked[0].body == b"".join(pieces)


@pytest.mark.parametrize("kind", ["application/json", "image/png"])
@pytest.mark.parametrize("body", [b'{"a": NaN}', b'{"a": 1' + b"0" * 9_000 + b', "a": 2}', b"[" * 50_000])
async def test_what_is_no_json_to_everybody_is_refused(
    two: Rig, upstream: Upstream, body: bytes, kind: str
) -> None:
    answer = await two.call(body, path="/v1/vector_stores", headers={"content-type": kind})
    assert answer.status == 400, answer.body


async def test_a_list_by_any_name_shows_what_is_the_projects_own(two: Rig, upstream: Upstream) -> None:
    page = {
        "items": [{"id": THEIR_ID}, {"id": MY_ID, "n": 1}, {"id": 5}, {"id": "vs_nobodys"}],
        "columns": ["id", "n"],
        "facets": [{"name": "x", "count": 2}],
        "total": 4,
    }
    upstream.does(gives(page))
    answer = await get(two, "/v1/vector_stores")
    assert answer.json == page | {"items": [{"id": MY_ID, "n": 1}]}


async def test_headers_by_which_servers_take_another_path_or_method_stay_here(
    two: Rig, upstream: Upstream
) -> None:
    tricks = (
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
    )
    headers = dict.fromkeys(tricks, "DELETE") | {"x-other": "y"}
    assert (await two.call({}, path="/v1/vector_stores", headers=headers)).status == 200
    (asked,) = upstream.asked
    assert not set(tricks) & set(asked.headers)
    assert asked.headers["x-other"] == "y"
