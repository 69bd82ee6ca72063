"""Policies on streams: redacted wherever they are cut, stopped, judged at the end."""

from __future__ import annotations

import asyncio

from llmops.core.verdicts import AFTER, BLOCK, REDACT
from tests.gateway.rig import (
    DONE,
    Asked,
    Reply,
    Rig,
    a_route,
    answers,
    ask,
    chunk,
    streams,
    usage_chunk,
)
from tests.gateway.test_policing import EMAIL, SECRET, nothing_kept, said, under, verdicts
from tests.gateway.test_stream_relay import data_of


async def test_a_stream_is_redacted_wherever_it_is_cut(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}), ("personal_data", AFTER, REDACT, {}))
    text = f"Hello {EMAIL}, your key is {SECRET}."
    rig.upstream.does(streams(*[chunk(one) for one in text], chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    assert said(answer) == "Hello [EMAIL_1], your key is [OPENAI_KEY]."
    assert answer.body.endswith(DONE)
    assert verdicts(rig) == [("after", "secrets", "redact"), ("after", "personal_data", "redact")]
    assert rig.outcome().cost == 60_000
    nothing_kept(rig, SECRET, EMAIL)
    rig.nothing_held()


async def test_events_whose_texts_may_pass_keep_their_bytes(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}))
    events = [
        chunk("One two. "),
        chunk("Three. "),
        b": ping\n\n",
        chunk("Four. "),
        chunk(finish="stop"),
        usage_chunk(),
        DONE,
    ]
    rig.upstream.does(streams(*events))
    answer = await rig.chat(stream=True, stream_options={"include_usage": True})
    assert answer.body == b"".join(events)


async def test_what_is_left_at_the_end_comes_before_the_finish(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(streams(chunk("call "), chunk("ada"), chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    events = data_of(answer.body)
    assert [one["choices"][0]["delta"].get("content") for one in events] == ["call ", "ada", None]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_secret_stops_a_stream_and_nothing_of_it_leaves(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}))
    begun = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk("Here it is: "), end=False)
        await begun.wait()
        for piece in [*SECRET, " and", " more."]:
            await reply.chunk(chunk(piece))
        await rig.upstream.gone.wait()

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda seen: b"Here" in seen.body)
    begun.set()
    answer = await exchange.done()
    await asyncio.wait_for(rig.upstream.gone.wait(), 10)
    assert said(answer) == "Here it is: "
    last = data_of(answer.body)[-1]
    assert last["error"]["code"] == "policy_blocked"
    assert DONE not in answer.body
    assert SECRET[:12] not in answer.body.decode()
    outcome = rig.outcome()
    assert (outcome.status, outcome.code) == ("interrupted", "policy_blocked")
    assert outcome.cost > 0
    assert verdicts(rig) == [("after", "secrets", "block")]
    nothing_kept(rig, SECRET)
    rig.nothing_held()


async def test_a_stream_that_is_judged_at_its_end_has_no_good_end(rig: Rig) -> None:
    under(rig, ("refusal", AFTER, BLOCK, {}))
    begun = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk("I'm sorry, but I "), end=False)
        await begun.wait()
        for event in (chunk("can't."), chunk(finish="stop"), usage_chunk(), DONE):
            await reply.chunk(event)
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda seen: b"sorry" in seen.body)
    begun.set()
    answer = await exchange.done()
    assert DONE not in answer.body
    assert data_of(answer.body)[-1]["error"]["code"] == "policy_blocked"
    assert rig.outcome().cost == 60_000
    rig.nothing_held()


async def test_a_stream_that_breaks_keeps_what_was_found(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(streams(chunk(f"Ask {EMAIL} or "), chunk("some"), end=False))

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(chunk(f"Ask {EMAIL} or "), chunk("some"), end=False)
        reply.cut()

    rig.upstream.does(script)
    answer = await rig.chat(stream=True)
    assert said(answer) == "Ask [EMAIL_1] or "
    assert data_of(answer.body)[-1]["error"]["code"] == "stream_interrupted"
    assert verdicts(rig) == [("after", "personal_data", "redact")]
    rig.nothing_held()


async def test_an_answer_from_the_cache_was_checked_when_it_came(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}), routes=[a_route(cache_ttl_s=60)])
    rig.upstream.does(answers(f"Use {SECRET}"))
    first = await rig.chat(model="chat")
    second = await rig.chat(model="chat")
    assert len(rig.upstream.asked) == 1
    assert first.body == second.body and SECRET not in second.body.decode()
