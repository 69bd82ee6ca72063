"""Policies on streams: redacted wherever they are cut, stopped, judged at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmops.core.verdicts import AFTER, BLOCK, REDACT
from llmops.gateway.policing.chat_streams import ChatWatcher
from llmops.gateway.policing.streams import MAX_TEXTS
from llmops.gateway.streaming.chat import ChatRelay
from llmops.policies.decisions import Placeholders
from tests.gateway.rig import (
    DONE,
    Answer,
    Asked,
    Reply,
    Rig,
    a_model,
    a_route,
    answers,
    ask,
    chunk,
    streams,
    usage_chunk,
)
from tests.gateway.test_policing import EMAIL, SECRET, nothing_kept, said, under, verdicts
from tests.gateway.test_stream_relay import data_of
from tests.policies.test_streams import ALL, a_guard, cut, places, texts, whole
from tests.trying import tries


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


# ---------------------------------------------------------------------- shapes of other providers


def one(delta: dict[str, Any], finish: str | None = None, index: int = 0, **members: Any) -> bytes:
    """A chunk of one choice."""
    return chunk(choices=[{"index": index, "delta": delta, "finish_reason": finish} | members])


def deltas(answer: Answer) -> list[dict[str, Any]]:
    return [choice["delta"] for event in data_of(answer.body) for choice in event.get("choices", ())]


async def test_text_in_the_chunk_of_the_finish_stays_in_order(rig: Rig) -> None:
    """Some servers tell the last piece, or all of an answer, together with the finish reason."""
    under(rig, ("personal_data", AFTER, REDACT, {}))
    calls = [
        {"index": 0, "id": "c", "function": {"name": "f", "arguments": f'{{"to": "bob", "cc": "{EMAIL}'}}
    ]
    rig.upstream.does(
        streams(
            chunk("So: hello a"),
            one({"content": f"da, I am {EMAIL}", "tool_calls": calls}, "tool_calls"),
            DONE,
        )
    )
    answer = await rig.chat(stream=True)
    assert said(answer) == "So: hello ada, I am [EMAIL_1]"
    last = data_of(answer.body)[-1]["choices"][0]
    assert last["finish_reason"] == "tool_calls"
    assert last["delta"]["tool_calls"][0]["function"]["arguments"] == '{"to": "bob", "cc": "[EMAIL_1]'


async def test_what_was_held_of_other_choices_stays_held(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(
        streams(
            one({"content": "ada@exam"}, index=1),
            one({"content": "ada@example.com"}, "stop"),
            one({"content": "ple.com"}, "stop", index=1),
            DONE,
        )
    )
    answer = await rig.chat(stream=True, n=2)
    told = [
        (choice["index"], choice["delta"].get("content"), choice["finish_reason"])
        for event in data_of(answer.body)
        for choice in event["choices"]
    ]
    assert told == [(0, "[EMAIL_1]", "stop"), (1, "[EMAIL_1]", "stop")]


async def test_what_a_model_thought_is_looked_at_wherever_it_is_told_again(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))

    def thinks(text: str) -> bytes:
        detail = {"type": "reasoning.text", "format": "unknown", "index": 0, "text": text}
        return one({"role": "assistant", "content": "", "reasoning": text, "reasoning_details": [detail]})

    pieces = [thinks(letter) for letter in f"Write to {EMAIL}"]
    rig.upstream.does(streams(*pieces, chunk("Done."), chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    assert "".join(delta.get("reasoning") or "" for delta in deltas(answer)) == "Write to [EMAIL_1]"
    details = [detail for delta in deltas(answer) for detail in delta.get("reasoning_details", ())]
    assert "".join(detail["text"] for detail in details) == "Write to [EMAIL_1]"
    assert {(detail["type"], detail["format"], detail["index"]) for detail in details} == {
        ("reasoning.text", "unknown", 0)
    }
    assert said(answer) == "Done."


@pytest.mark.parametrize(
    "told",
    [
        {"text": "ada@example.com, "},
        {"message": {"role": "assistant", "content": "ada@example.com, "}},
        {"delta": {"audio": {"id": "a", "data": "AAAA", "transcript": "ada@example.com, "}}},
        {"delta": {"provider_specific_fields": {"reasoning_content": "ada@example.com, "}}},
        {"delta": {"content": "x", "\\u0072efusals": [{"r\\u0065fusal": "ada@example.com, "}]}},
    ],
)
async def test_a_text_under_any_name_of_texts_is_looked_at(rig: Rig, told: dict[str, Any]) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    said_so = {"index": 0, "delta": {}, "finish_reason": None} | told
    event = chunk(choices=[said_so]).replace(b"\\\\u", b"\\u")
    rig.upstream.does(streams(event, event, chunk("Hi"), chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    assert b"ada@" not in answer.body and answer.body.count(b"[EMAIL_1]") == 2
    assert answer.body.endswith(DONE)


async def test_a_chunk_that_tells_a_text_beside_its_own_is_not_known_at_sight(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    events = [one({"content": text, "notes": {"text": f"{EMAIL} "}}) for text in ("One ", "two ", "three ")]
    rig.upstream.does(streams(*events, chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    assert said(answer) == "One two three "
    assert EMAIL not in answer.body.decode()


async def test_a_member_that_is_given_twice_is_not_relayed(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    twice = chunk("fine").replace(b'"content":"fine"', b'"content":"ada@example.com","content":"fine"')
    rig.upstream.does(streams(chunk("Hello. "), twice, chunk(finish="stop"), DONE))
    answer = await rig.chat(stream=True)
    assert b"ada@" not in answer.body
    assert data_of(answer.body)[-1]["error"]["code"] == "stream_interrupted"
    rig.nothing_held()


async def test_log_probabilities_that_nobody_asked_for_tell_nothing(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))

    def likely(text: str) -> dict[str, Any]:
        return {"content": [{"token": text, "logprob": -0.1, "bytes": [*text.encode()], "top_logprobs": []}]}

    pieces = [
        one({"content": text}, logprobs=likely(text))
        for text in ("I am ", "ada@", "example", ".com", ", yes")
    ]
    rig.upstream.does(streams(*pieces, chunk(finish="stop"), usage_chunk(), DONE))
    answer = await rig.chat(stream=True)
    assert said(answer) == "I am [EMAIL_1], yes"
    assert b"example" not in answer.body and b'"token"' not in answer.body

    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": f"I am {EMAIL}"},
        "finish_reason": "stop",
    }
    rig.upstream.does(answers(choices=[choice | {"logprobs": likely(EMAIL)}]))
    answer = await rig.chat()
    assert answer.json["choices"] == [
        choice | {"message": {"role": "assistant", "content": "I am [EMAIL_1]"}, "logprobs": None}
    ]
    # Where nothing is taken out they repeat what is there.
    shown = choice | {"message": {"role": "assistant", "content": "Hi"}, "logprobs": likely("Hi")}
    rig.upstream.does(answers(choices=[shown]))
    assert (await rig.chat()).json["choices"] == [shown]


@pytest.mark.parametrize(
    ("action", "stream", "refused"), [(REDACT, False, True), (BLOCK, True, True), (BLOCK, False, False)]
)
async def test_a_sound_does_not_say_what_is_taken_out(
    rig: Rig, action: str, stream: bool, refused: bool
) -> None:
    under(rig, ("personal_data", AFTER, action, {}))
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
    answer = await rig.chat(stream=stream, **spoken)
    if refused:
        assert (answer.status, answer.error["param"]) == (400, "audio")
        assert rig.upstream.asked == []
    else:
        assert answer.status == 200


async def test_nor_does_one_that_a_model_has_as_its_default(rig: Rig) -> None:
    under(
        rig, ("personal_data", AFTER, REDACT, {}), models=[a_model(parameters={"audio": {"voice": "alloy"}})]
    )
    answer = await rig.chat()
    assert (answer.status, answer.error["param"]) == (400, "model")


async def test_a_chunk_that_says_more_than_what_is_held_goes_out(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    first = one({"role": "assistant", "content": "ada"})
    used = chunk("@example", used={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
    spaced = used.replace(b'"usage":{', b'"usage": {')
    rig.upstream.does(streams(first, spaced, chunk(".com "), chunk(finish="stop"), DONE))
    answer = await rig.chat(stream=True, stream_options={"include_usage": True})
    assert said(answer) == "[EMAIL_1] "
    assert deltas(answer)[0] == {"role": "assistant", "content": ""}
    assert [one["usage"]["completion_tokens"] for one in data_of(answer.body) if one.get("usage")] == [5]


async def test_an_answer_of_endless_texts_is_no_answer(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    many = [one({"content": "a"}, "stop", index=n) for n in range(MAX_TEXTS + 2)]
    rig.upstream.does(streams(b"".join(many[:100]), b"".join(many[100:]), DONE))
    answer = await rig.chat(stream=True)
    assert data_of(answer.body)[-1]["error"]["code"] == "stream_interrupted"
    assert DONE not in answer.body
    rig.nothing_held()


@given(text=texts, where=places, together=st.booleans(), also=st.booleans())
@example(text="Hello ada@example.com", where=[], together=True, also=False)
@tries(200)
def test_cut_over_chunks_an_answer_says_what_the_whole_says(
    text: str, where: list[int], together: bool, also: bool
) -> None:
    """Whether the finish reason comes with the last piece or alone, and in members of a provider's own."""
    guard = a_guard(*ALL)
    relay = ChatRelay(hide_usage=True)
    relay.guard = ChatWatcher(guard, Placeholders())
    pieces = cut(text, where)
    out = b""
    for number, piece in enumerate(pieces, 1):
        delta: dict[str, Any] = {"content": piece}
        if also:
            delta["notes"] = [{"text": piece}]
        out += relay.feed(one(delta, "stop" if together and number == len(pieces) else None))
    if not (together and pieces):
        out += relay.feed(one({}, "stop"))
    out += relay.feed(DONE)
    assert relay.done and not relay.broken
    told = [choice for event in data_of(out) for choice in event["choices"]]
    expected = whole(guard, text)
    assert "".join(choice["delta"].get("content") or "" for choice in told) == expected
    if also:
        notes = [note["text"] for choice in told for note in choice["delta"].get("notes", ())]
        assert "".join(notes) == expected
    assert [choice["finish_reason"] for choice in told] == [None] * (len(told) - 1) + ["stop"]
