"""Policies on batches: each line is looked at before the batch is made, and what cannot be done for a batch refuses it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REDACT, REQUIRE_APPROVAL
from llmops.serving.snapshot import PolicyEntry
from tests.gateway.batching import A_BATCH, at, create
from tests.gateway.keeping import MINE, bytes_of, configure, gives
from tests.gateway.rig import Answer, Rig, a_model, a_route
from tests.gateway.test_policing import EMAIL, SECRET, nothing_kept, policy, verdicts


def line(text: str, model: str = "sim-small", name: str = "messages") -> bytes:
    told: Any = [{"role": "user", "content": text}] if name == "messages" else text
    body = {"model": model, name: told}
    return (
        json.dumps({"custom_id": "NUMBER", "method": "POST", "url": "ENDPOINT", "body": body}).encode()
        + b"\n"
    )


async def made(
    rig: Rig, content: bytes, *policies: PolicyEntry, endpoint: str = "/v1/chat/completions", **what: Any
) -> Answer:
    content = content.replace(b"ENDPOINT", endpoint.encode())
    named = iter(range(1_000_000))
    content = re.sub(b"NUMBER", lambda _: b"%d" % next(named), content)
    configure(rig, policies=policies, **what)
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    pieces = [content[at_ : at_ + 30_000] for at_ in range(0, len(content), 30_000)]
    rig.upstream.does(at(content=bytes_of(*pieces), batches=gives(A_BATCH)))
    return await create(rig, body={"endpoint": endpoint})


def sent(rig: Rig) -> bool:
    return any(one.path.endswith("/batches") for one in rig.upstream.asked)


@pytest.mark.parametrize(
    ("check", "text", "status", "code"),
    [
        (("secrets", BEFORE, BLOCK, {}), SECRET, 400, "policy_blocked"),
        (("personal_data", BEFORE, REDACT, {}), EMAIL, 400, "policy_blocked"),
        (("secrets", BEFORE, REQUIRE_APPROVAL, {}), SECRET, 403, "approval_required"),
    ],
)
@pytest.mark.parametrize("before", [1, 3_000])
async def test_a_line_that_may_not_go_refuses_the_batch(
    rig: Rig, before: int, check: Any, text: str, status: int, code: str
) -> None:
    content = line("fine, " * 20) * before + line(f"Use {text}") + line("fine")
    answer = await made(rig, content, policy(check))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, "input_file_id")
    assert f"line {before + 1}:" in answer.error["message"] and "'strict'" in answer.error["message"]
    assert not sent(rig)
    assert rig.outcome().code == code
    assert verdicts(rig) == [("before", check[0], check[2])]
    nothing_kept(rig, text)


async def test_lines_that_may_go_make_a_batch_and_leave_their_marks(rig: Rig) -> None:
    checks = (
        ("secrets", BEFORE, BLOCK, {}),
        ("personal_data", BEFORE, ALLOW, {}),
        ("personal_data", AFTER, ALLOW, {}),
    )
    answer = await made(rig, line("fine") + line(f"Mail {EMAIL}"), policy(*checks))
    assert (answer.status, answer.json) == (200, A_BATCH)
    assert verdicts(rig) == [("before", "personal_data", "allow")]


async def test_lines_of_embeddings_are_looked_at_and_have_no_answers(rig: Rig) -> None:
    checks = (("secrets", BEFORE, BLOCK, {}), ("secrets", AFTER, BLOCK, {}))
    endpoint = "/v1/embeddings"
    assert (await made(rig, line("fine", name="input"), policy(*checks), endpoint=endpoint)).status == 200
    assert (await made(rig, line(SECRET, name="input"), policy(*checks), endpoint=endpoint)).status == 400
    endpoint = "/v1/moderations"
    assert (await made(rig, line(SECRET, name="input"), policy(*checks), endpoint=endpoint)).status == 200


@pytest.mark.parametrize(
    "check",
    [("secrets", AFTER, REDACT, {}), ("moderation", BEFORE, BLOCK, {"model": "small"})],
)
async def test_what_cannot_be_done_for_a_batch_refuses_it(rig: Rig, check: Any) -> None:
    answer = await made(rig, line("fine"), policy(check))
    assert (answer.status, answer.error["code"]) == (400, "policy_blocked")
    assert "one by one" in answer.error["message"]
    assert not sent(rig)


async def test_policies_of_the_routes_that_lead_to_a_model_hold_for_its_lines(rig: Rig) -> None:
    what = {
        "models": [a_model("small"), a_model("free")],
        "routes": [a_route("guarded", "small", policies=("strict",))],
    }
    strict = policy(("secrets", BEFORE, BLOCK, {}), everywhere=False)
    assert (await made(rig, line(SECRET, "sim-free") + line("fine"), strict, **what)).status == 200
    answer = await made(rig, line(SECRET, "sim-free") + line(SECRET), strict, **what)
    assert answer.status == 400 and "line 2:" in answer.error["message"]


async def test_a_line_that_cannot_be_read_is_refused(rig: Rig) -> None:
    deep = (
        b'{"custom_id": "deep", "method": "POST", "url": "ENDPOINT", "body": {"model": "sim-small", "messages": '
        + b"[" * 2_000
        + b"]" * 2_000
        + b"}}\n"
    )
    answer = await made(rig, line("fine") + deep, policy(("secrets", BEFORE, BLOCK, {})))
    assert (answer.status, answer.error["param"]) == (400, "input_file_id")
    assert "line 2" in answer.error["message"]
