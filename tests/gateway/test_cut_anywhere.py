"""A call is ended wherever it stands, by its client or by the server: every hold is settled once, and nothing stays behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from llmops.core.verdicts import AFTER, BEFORE, BLOCK, REDACT
from llmops.gateway import watch
from tests.gateway.responding import PATH, a_response, a_stream
from tests.gateway.responding import ask as respond
from tests.gateway.rig import (
    DONE,
    KEY,
    Asked,
    Exchange,
    Reply,
    Rig,
    a_budget,
    a_key,
    a_model,
    a_route,
    ask,
    chunk,
    completion,
    eventually,
    usage_chunk,
)
from tests.gateway.test_policing import policy

CHATS = "/v1/chat/completions"
#: Turns of the loop after which a call is ended; it takes fewer than the most.
TURNS = (*range(0, 60, 2), *range(60, 200, 9))
JUDGED = {
    "id": "m",
    "model": "omni",
    "results": [{"flagged": False, "categories": {}, "category_scores": {}}],
}


async def provider(asked: Asked, reply: Reply) -> None:
    """Says everything that is asked for, a turn of the loop between two pieces."""
    if asked.method == "GET":
        await reply.json(a_response())
    elif asked.path.endswith("/moderations"):
        await reply.json(JUDGED)
    elif asked.json["model"] == "sim-broken":
        await reply.json({"error": {"message": "no", "type": "server_error"}}, 500)
    elif asked.path.endswith("/responses"):
        await (
            reply.events(*a_stream("one ", "two ")) if asked.json.get("stream") else reply.json(a_response())
        )
    elif asked.json.get("stream"):
        await reply.events(chunk("one "), chunk("two"), chunk(finish="stop"), usage_chunk(), DONE)
    else:
        await reply.json(completion())


def plain(rig: Rig) -> dict[str, Any]:
    return {"routes": [a_route()]}


def moved_on(rig: Rig) -> dict[str, Any]:
    return {"routes": [a_route("chat", "broken", fallbacks=("small",), attempts=3)]}


def judged(rig: Rig) -> dict[str, Any]:
    checks = [("moderation", stage, BLOCK, {"model": "omni"}) for stage in (BEFORE, AFTER)]
    return {"routes": [a_route()], "policies": [policy(*checks, ("personal_data", AFTER, REDACT, {}))]}


def waited_for(rig: Rig) -> dict[str, Any]:
    return {"routes": [a_route(max_concurrency=1, queue_size=8)]}


def remembered(rig: Rig) -> dict[str, Any]:
    return {"routes": [a_route(cache_ttl_s=60)]}


SETTINGS: tuple[Callable[[Rig], dict[str, Any]], ...] = (plain, moved_on, judged, waited_for, remembered)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("how", ["hangs up", "is cancelled"])
async def test_wherever_it_ends_it_is_settled_once(
    rig: Rig, soon: None, monkeypatch: pytest.MonkeyPatch, setting: Callable[[Rig], dict[str, Any]], how: str
) -> None:
    monkeypatch.setattr(watch, "LISTEN_AFTER_S", 0.0)
    monkeypatch.setattr("llmops.gateway.kept.background.FIRST_S", 0.01)
    rig.configure(
        models=[a_model(), a_model("omni"), a_model("broken")],
        budgets=[a_budget()],
        keys={KEY: a_key(concurrency=100, tpm=10**9)},
        **setting(rig),
    )
    rig.upstream.does(provider)
    calls: list[Exchange] = []
    for number, turns in enumerate(TURNS):
        path, body = asked_for(number)
        headers = {"idempotency-key": f"k{number}"} if number % 5 == 4 else {}
        mine = [rig.start(body, path=path, headers=headers) for _ in range(2)]
        for _ in range(turns):
            await asyncio.sleep(0)
        if how == "hangs up":
            mine[0].hang_up()
        else:
            mine[0].task.cancel()
        await asyncio.gather(*(one.task for one in mine), return_exceptions=True)
        calls += mine
    await eventually(lambda: not rig.plane.calls and not len(rig.plane.background))
    held, ended = rig.held(), rig.ended()
    attempts = Counter((one.origin.call, one.attempt) for one in ended if one.attempt)
    assert set(attempts.values()) <= {1}
    assert {(one.origin.call, one.attempt) for one in held} == set(attempts), "what is held ends"
    outcomes = Counter(one.origin.call for one in ended if one.outcome is not None)
    assert set(outcomes.values()) == {1}
    # What the other one of each two gets: its answer, or at once that the one under its key may have been paid for.
    others = [one.answer for one in calls[1::2]]
    assert all(one.complete and one.status in (200, 400, 409) for one in others)
    codes = {one.error["code"] for one in others if one.status == 409}
    assert codes <= {"idempotency_answer_not_kept"}
    for gate in rig.plane.gates.all.values():
        assert gate.in_flight == gate.queued == 0 and not any(gate.inside.values())
    assert all(one.in_flight == 0 for one in rig.plane.limits._standings.values())
    assert rig.plane.cache._flights == {} and len(rig.plane.flights) == 0
    assert all(not one.probing for _, one in rig.plane.breakers.every())
    rig.nothing_held()


def asked_for(number: int) -> tuple[str, dict[str, Any]]:
    kinds = (
        (CHATS, ask("chat", f"Say {number}")),
        (CHATS, ask("chat", f"Say {number}", stream=True)),
        (PATH, respond(f"Say {number}", model="chat")),
        (PATH, respond(f"Say {number}", model="chat", stream=True)),
    )
    return kinds[number % len(kinds)]
