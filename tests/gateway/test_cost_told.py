"""``x-llmops-cost-nano``: what a call cost, told to who bounds it and to the console's own keys: as it was written down, whatever became
of the call."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from llmops.core.tokens import count_chat
from llmops.core.verdicts import AFTER, BEFORE
from tests.gateway.rig import (
    DONE,
    KEY,
    Answer,
    Asked,
    Reply,
    Rig,
    a_key,
    a_model,
    a_route,
    answers,
    ask,
    chunk,
    cuts,
    eventually,
    streams,
    usage,
    usage_chunk,
)
from tests.gateway.test_judged_within import TEXT, configured, judges

pytestmark = pytest.mark.any_engine
MOST = 10**12
ASKED = count_chat(ask(text=TEXT)["messages"], "sim-small")
STREAM = streams(chunk("Rain"), chunk(finish="stop"), usage_chunk(prompt=ASKED, completion=1), DONE)


async def asked(rig: Rig, *, key: str = "", most: int | None = MOST, **members: Any) -> Answer:
    headers = {"x-llmops-max-cost-nano": str(most)} if most is not None else {}
    if key:
        headers["idempotency-key"] = key
    return await rig.call(ask(text=TEXT, **members), headers=headers)


def told(answer: Answer) -> int | None:
    """What head and stream say together, as ``llmops.runs.asking`` reads it."""
    head = answer.headers.get("x-llmops-cost-nano")
    said = re.findall(rb"^: x-llmops-cost-nano (\d+)$", answer.body, re.MULTILINE)
    assert len(said) <= 1
    found = [int(one) for one in (head, *said) if one is not None]
    return sum(found) if found else None


def spent(rig: Rig) -> int:
    return sum(one.cost for one in rig.ended())


@pytest.mark.parametrize("stream", [False, True])
async def test_all_attempts_and_what_policies_asked_are_in_it(rig: Rig, stream: bool) -> None:
    configured(rig, BEFORE, AFTER, routes=[a_route("chat", "small", fallbacks=("other",))], price=1_000)
    said = STREAM if stream else answers("Rain", usage(ASKED, 1))
    rig.upstream.does(judges(tokens=10), cuts, said, judges(tokens=5))
    answer = await asked(rig, model="chat", stream=stream)
    assert answer.status == 200 and answer.headers["x-llmops-attempts"] == "2"
    assert told(answer) == spent(rig) > 0


async def test_a_stream_tells_it_before_the_event_that_ends_it(rig: Rig) -> None:
    """Nobody reads on after that."""
    heard = asyncio.Event()

    async def script(request: Asked, reply: Reply) -> None:
        await reply.events(chunk("Rain"), end=False)
        await heard.wait()
        for piece in (chunk(finish="stop"), usage_chunk(prompt=ASKED, completion=1), DONE):
            await reply.chunk(piece)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    begun = rig.start(ask(text=TEXT, stream=True), headers={"x-llmops-max-cost-nano": str(MOST)})
    await eventually(lambda: begun.answer.body.count(b"Rain"))
    heard.set()
    answer = await begun.done()
    first, _, rest = answer.body.partition(b"\n\n: x-llmops-cost-nano %d\n\n" % spent(rig))
    assert b"Rain" in first and rest.startswith(b"data: ") and rest.endswith(b"data: [DONE]\n\n")
    assert "x-llmops-cost-nano" not in answer.headers


async def test_what_failed_tells_what_it_cost_as_well(rig: Rig) -> None:
    configured(rig, BEFORE)
    rig.upstream.does(judges(tokens=10), cuts)
    answer = await asked(rig)
    assert answer.status == 502 and told(answer) == spent(rig) > 500_000
    before = spent(rig)
    rig.upstream.does(judges(tokens=11))
    refused = await asked(rig, most=700_000)
    assert refused.error["code"] == "cost_bound_exceeded" and told(refused) == spent(rig) - before == 550_000
    rig.upstream.does(judges(flagged=True, tokens=7))
    blocked = await asked(rig)
    assert blocked.status == 400 and told(blocked) == 350_000


async def test_a_stream_that_breaks_off_tells_what_came_of_it(rig: Rig) -> None:
    rig.upstream.does(streams(chunk("Rain"), chunk(" and more")))
    answer = await asked(rig, stream=True)
    assert b"stream_interrupted" in answer.body and told(answer) == spent(rig) > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_answer_again_tells_what_the_first_cost(rig: Rig, stream: bool) -> None:
    rig.upstream.does(STREAM if stream else answers("Rain", usage(ASKED, 1)))
    first = await asked(rig, key="once", stream=stream)
    again = await asked(rig, key="once", stream=stream)
    assert again.headers["idempotent-replayed"] == "true" and again.body == first.body
    assert told(again) == told(first) == spent(rig) > 0


async def test_a_failure_that_is_given_again_tells_it_as_well(rig: Rig) -> None:
    rig.upstream.does(cuts)
    first, again = await asked(rig, key="once"), await asked(rig, key="once")
    assert again.headers["idempotent-replayed"] == "true" and told(again) == told(first) == spent(rig) > 0


async def test_what_policies_ask_before_an_answer_is_given_again_is_added(rig: Rig) -> None:
    mine = {KEY: a_key()}
    rig.configure(keys=mine)
    rig.upstream.does(answers("Rain", usage(ASKED, 1)))
    first = await asked(rig, key="once")
    configured(rig, BEFORE, keys=mine, revision=rig.plane.snapshot.revision + 1)
    rig.upstream.does(judges(tokens=10))
    again = await asked(rig, key="once")
    assert again.headers["idempotent-replayed"] == "true"
    assert told(again) == (told(first) or 0) + 500_000 == spent(rig)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_the_cache_costs_nothing_and_keeps_no_cost(rig: Rig, stream: bool) -> None:
    rig.configure(models=[a_model()], routes=[a_route("chat", "small", cache_ttl_s=60)])
    rig.upstream.does(STREAM if stream else answers("Rain", usage(ASKED, 1)))
    first = await asked(rig, model="chat", stream=stream, temperature=0)
    again = await asked(rig, model="chat", stream=stream, temperature=0)
    plain = await asked(rig, model="chat", stream=stream, temperature=0, most=None)
    assert [one.headers["x-llmops-cache"] for one in (first, again, plain)] == ["miss", "hit", "hit"]
    assert (told(again), told(plain)) == (0, None) and (told(first) or 0) > 0


async def test_nobody_else_is_told(rig: Rig) -> None:
    rig.upstream.does(STREAM)
    assert told(await asked(rig, most=None)) is None
    assert told(await asked(rig, most=None, stream=True)) is None


async def test_keys_that_the_console_holds_are_told(rig: Rig) -> None:
    rig.configure(keys={KEY: a_key(held=True)})
    assert told(await asked(rig, most=None)) == spent(rig) > 0


async def test_calls_that_policies_make_are_found_by_the_request_that_they_are_about(rig: Rig) -> None:
    configured(rig, BEFORE)
    rig.upstream.does(judges(), answers("Rain", usage(ASKED, 1)))
    await rig.call(ask(text=TEXT), headers={"x-request-id": "mine"})
    ids = {one.origin.endpoint: one.origin.request for one in rig.ended() if one.outcome is not None}
    assert ids == {"moderations": "mine.judged", "chat.completions": "mine"}
    await rig.call(ask(text=TEXT), headers={"x-request-id": "m" * 80})
    longest = [one.origin.request for one in rig.ended()][-2:]
    assert sorted(map(len, longest)) == [80, 80] and any(one.endswith(".judged") for one in longest)
