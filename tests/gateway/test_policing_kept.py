"""Policies on what a provider keeps and a client reads again: nothing comes out that they do not let pass."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REDACT, RETRY
from llmops.gateway.kept.owners import CHAT, RESPONSE
from llmops.serving.snapshot import KeyEntry, PolicyEntry
from tests.gateway.responding import PATH, a_response, a_stream, ask, ended, message
from tests.gateway.rig import KEY, Rig, a_budget, a_credential, a_key, a_model, a_route, completion, streams
from tests.gateway.test_policing import EMAIL, SECRET, nothing_kept, policy, verdicts
from tests.gateway.test_stored_responses import says

CHATS = "/v1/chat/completions"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> KeyEntry:
    monkeypatch.setattr("llmops.gateway.kept.objects.PATIENCE_S", 0.0)
    return a_key()


def keeps(rig: Rig, key: KeyEntry, *policies: PolicyEntry, model: str = "small", **what: Any) -> None:
    """A response and a chat that calls of ``model`` made, under these policies."""
    credential = a_credential()
    rig.configure(
        keys={KEY: key},
        credentials={"up": (credential,)},
        budgets=[a_budget()],
        policies=policies,
        **what,
    )
    for kind, name in ((RESPONSE, "resp_1"), (CHAT, "chatcmpl-1")):
        rig.plane.objects.made(kind, name, key=key, provider="up", credential=credential.id, model=model)


async def read(rig: Rig, path: str, method: str = "GET") -> Any:
    return await rig.call(b"", path=path, method=method)


KEPT = {
    f"{PATH}/resp_1": ("GET", a_response(output=[message(f"Use {SECRET}")])),
    f"{PATH}/resp_1/cancel": ("POST", a_response(output=[message(f"Use {SECRET}")])),
    f"{PATH}/resp_1/input_items": ("GET", {"object": "list", "data": [message(f"Use {SECRET}")]}),
    f"{CHATS}/chatcmpl-1": ("GET", completion(f"Use {SECRET}")),
    f"{CHATS}/chatcmpl-1?": ("POST", completion(f"Use {SECRET}")),
    f"{CHATS}/chatcmpl-1/messages": (
        "GET",
        {"object": "list", "data": [{"id": "m", "role": "assistant", "content": f"Use {SECRET}"}]},
    ),
    CHATS: ("GET", {"object": "list", "data": [completion(f"Use {SECRET}")], "has_more": False}),
}


@pytest.mark.parametrize("path", KEPT)
async def test_what_is_kept_is_redacted_at_every_door(rig: Rig, key: KeyEntry, path: str) -> None:
    keeps(rig, key, policy(("secrets", AFTER, REDACT, {})))
    method, kept = KEPT[path]
    rig.upstream.does(says(kept))
    answer = await read(rig, path, method)
    assert answer.status == 200
    text = json.dumps(kept).replace(SECRET, "[OPENAI_KEY]")
    expected = json.loads(text)
    assert {name: answer.json[name] for name in expected} == expected
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert verdicts(rig) == [("after", "secrets", "redact")]
    nothing_kept(rig, SECRET)


@pytest.mark.parametrize("path", KEPT)
async def test_what_is_blocked_comes_out_of_no_door(rig: Rig, key: KeyEntry, path: str) -> None:
    keeps(rig, key, policy(("secrets", AFTER, BLOCK, {})))
    method, kept = KEPT[path]
    rig.upstream.does(says(kept))
    answer = await read(rig, path, method)
    assert (answer.status, answer.error["code"]) == (422, "policy_blocked")
    assert "'strict'" in answer.error["message"] and answer.error["param"]
    assert SECRET[:14] not in answer.body.decode()
    assert (rig.outcome().http, rig.outcome().code) == (422, "policy_blocked")
    assert verdicts(rig) == [("after", "secrets", "block")]
    nothing_kept(rig, SECRET)


async def test_a_blocked_answer_of_a_list_says_how_to_get_past_it(rig: Rig, key: KeyEntry) -> None:
    keeps(rig, key, policy(("secrets", AFTER, BLOCK, {})))
    rig.upstream.does(says(KEPT[CHATS][1]))
    answer = await read(rig, CHATS)
    assert "'chatcmpl-1'" in answer.error["message"] and "after=chatcmpl-1" in answer.error["message"]


@pytest.mark.parametrize("path", KEPT)
async def test_what_policies_let_pass_keeps_its_bytes(rig: Rig, key: KeyEntry, path: str) -> None:
    keeps(rig, key, policy(("personal_data", AFTER, REDACT, {}), ("secrets", AFTER, ALLOW, {})))
    method, kept = KEPT[path]
    body = json.dumps(kept, indent=1)
    rig.upstream.does(says(body.encode()))
    answer = await read(rig, path, method)
    assert answer.status == 200
    if path == CHATS:
        assert answer.json["data"] == kept["data"]
    else:
        assert answer.body == body.encode()
    assert verdicts(rig) == [("after", "secrets", "allow")]


async def test_what_a_model_was_told_is_not_looked_at(rig: Rig, key: KeyEntry) -> None:
    keeps(rig, key, policy(("secrets", AFTER, BLOCK, {})))
    told = [{"role": role, "content": SECRET} for role in ("system", "developer", "user", "tool")]
    told.append({"type": "function_call_output", "call_id": "c", "output": SECRET})
    rig.upstream.does(says({"object": "list", "data": told}))
    assert (await read(rig, f"{PATH}/resp_1/input_items")).json["data"] == told
    rig.upstream.does(
        says(a_response(output=[message("fine")], instructions=SECRET, metadata={"text": SECRET}))
    )
    assert (await read(rig, f"{PATH}/resp_1")).status == 200


@pytest.mark.parametrize(
    ("made_through", "blocked"),
    [
        ("guarded", True),
        ("small", True),
        ("fallback", True),
        ("other", False),
        ("open", False),
        ("gone", True),
    ],
)
async def test_the_policies_of_every_route_it_may_have_come_through_hold(
    rig: Rig, key: KeyEntry, made_through: str, blocked: bool
) -> None:
    keeps(
        rig,
        key,
        policy(("secrets", AFTER, BLOCK, {}), everywhere=False),
        model=made_through,
        models=[a_model(), a_model("fallback"), a_model("other")],
        routes=[
            a_route("guarded", "small", fallbacks=("fallback",), policies=("strict",)),
            a_route("open", "other"),
        ],
    )
    rig.upstream.does(says(KEPT[f"{PATH}/resp_1"][1]))
    answer = await read(rig, f"{PATH}/resp_1")
    assert answer.status == (422 if blocked else 200)


async def test_another_attempt_cannot_be_made_of_what_is_kept(rig: Rig, key: KeyEntry) -> None:
    schema = {"type": "object"}
    keeps(rig, key, policy(("schema", AFTER, RETRY, {"schema": schema, "attempts": 3, "otherwise": BLOCK})))
    rig.upstream.does(says(a_response(output=[message("no json")])))
    answer = await read(rig, f"{PATH}/resp_1")
    assert answer.status == 422
    assert rig.outcome().verdicts[0].note == ""
    rig.upstream.does(says(a_response(output=[message("{}")])))
    assert (await read(rig, f"{PATH}/resp_1")).status == 200


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "failed"])
async def test_what_is_no_answer_yet_is_not_judged_as_one(rig: Rig, key: KeyEntry, status: str) -> None:
    keeps(rig, key, policy(("schema", AFTER, BLOCK, {"schema": {"type": "object"}})))
    rig.upstream.does(says(a_response(status=status, output=[])))
    assert (await read(rig, f"{PATH}/resp_1")).status == 200


async def test_an_answer_is_not_told_again_where_it_cannot_be_checked(rig: Rig, key: KeyEntry) -> None:
    keeps(rig, key, policy(("secrets", AFTER, REDACT, {})))
    answer = await read(rig, f"{PATH}/resp_1?stream=true&starting_after=3")
    assert (answer.status, answer.error["param"]) == (422, "stream")
    assert "without stream" in answer.error["message"]
    assert rig.upstream.asked == []


@pytest.mark.parametrize("stage", [BEFORE, AFTER])
async def test_an_answer_is_told_again_where_nothing_changes_it(rig: Rig, key: KeyEntry, stage: str) -> None:
    action = BLOCK if stage == BEFORE else ALLOW
    keeps(rig, key, policy(("secrets", stage, action, {})))
    pieces = a_stream("a", "b")
    rig.upstream.does(streams(*pieces))
    assert (await read(rig, f"{PATH}/resp_1?stream=true")).body == b"".join(pieces)


async def test_placeholders_stand_for_what_was_never_kept(rig: Rig, key: KeyEntry) -> None:
    keeps(rig, key, policy(("personal_data", BEFORE, REDACT, {"reversible": True})))
    rig.upstream.does(says(a_response(output=[message("Told [EMAIL_1]")])))
    answer = await read(rig, f"{PATH}/resp_1")
    assert answer.json["output"][0]["content"][0]["text"] == "Told [EMAIL_1]"


async def test_what_cannot_be_read_does_not_go_out(rig: Rig, key: KeyEntry) -> None:
    keeps(rig, key, policy(("secrets", AFTER, REDACT, {})))
    rig.upstream.does(says(b'{"id": "resp_1", "output": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"))
    answer = await read(rig, f"{PATH}/resp_1")
    assert answer.status == 502


async def test_a_response_that_goes_on_where_another_is_kept_meets_its_policies(
    rig: Rig, key: KeyEntry
) -> None:
    keeps(rig, key, policy(("secrets", BEFORE, BLOCK, {}), ("personal_data", AFTER, REDACT, {})))
    answer = await rig.call(ask(SECRET, previous_response_id="resp_1"), path=PATH)
    assert (answer.status, answer.error["code"]) == (400, "policy_blocked")
    rig.upstream.does(streams(*a_stream()[:1], ended(number=9, output=[message(f"Hi {EMAIL}")])))
    told = await rig.call(ask("Hi", previous_response_id="resp_1", stream=True), path=PATH)
    assert told.status == 200 and EMAIL not in told.body.decode()
