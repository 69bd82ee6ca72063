"""Speech, transcriptions and translations through the gateway: what is sent, relayed, held and billed."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from llmops.core.tokens.made import spoken_tokens
from tests.gateway.making import (
    AUDIO_OUT,
    TEXT_IN,
    TOKEN_PRICES,
    event,
    per,
    says,
)
from tests.gateway.rig import (
    Asked,
    Reply,
    Rig,
    a_budget,
    a_model,
    a_provider,
    a_route,
    eventually,
)

SPEECH, TRANSCRIPTIONS, TRANSLATIONS = (
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
)
#: What a million characters of tts-1 and a million seconds of whisper-1 cost, for one.
PER_CHARACTER, PER_SECOND = 15_000, 100_000


def voices(rig: Rig, prices: Any = TOKEN_PRICES, **changes: Any) -> None:
    given: dict[str, Any] = {"prices": prices, "max_output_tokens": 0}
    rig.configure(
        models=[a_model("voice", **(given | changes)), a_model("other", **(given | changes))],
        budgets=[a_budget()],
        routes=[a_route("sound", "voice", fallbacks=("other",))],
    )


def sounds(*pieces: bytes, kind: str = "audio/mpeg", length: int | None = None, end: str = "well") -> Any:
    async def script(asked: Asked, reply: Reply) -> None:
        if length is not None:
            await reply.head(200, {"content-type": kind, "content-length": str(length)})
            for piece in pieces:
                await reply.raw(piece)
        else:
            await reply.events(*pieces, end=False, kind=kind)
            if end == "well":
                await reply.raw(b"0\r\n\r\n")
        if end == "cut":
            reply.cut()
        if end == "hang":
            await asyncio.sleep(3600)

    return script


def say(text: str = "Hello there", **members: Any) -> dict[str, Any]:
    return {"model": "voice", "input": text, "voice": "alloy"} | members


# ---------------------------------------------------------------------- speech


async def test_a_sound_is_relayed_as_it_comes_and_its_last_byte_follows_the_settling(rig: Rig) -> None:
    voices(rig, per("characters", PER_CHARACTER))
    go_on = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(b"ID3 first", end=False, kind="audio/mpeg")
        await go_on.wait()
        await reply.chunk(b"second")
        await reply.raw(b"0\r\n\r\n")

    rig.upstream.does(script)
    exchange = rig.start(say("Grüße, 世界", response_format="mp3", odd=[1.50]), path=SPEECH)
    await exchange.answer.until(lambda answer: answer.body == b"ID3 firs")
    assert exchange.answer.headers["content-type"] == "audio/mpeg"
    assert exchange.answer.headers["x-llmops-model"] == "voice"
    assert not rig.ended()
    go_on.set()
    answer = await exchange.done()
    assert (answer.body, answer.complete) == (b"ID3 firstsecond", True)
    [asked] = rig.upstream.asked
    assert (asked.path, asked.json["model"], asked.json["odd"]) == (SPEECH, "sim-voice", [1.5])
    outcome = rig.outcome()
    assert outcome.cost == 9 * PER_CHARACTER == rig.held()[0].worst_cost
    assert (outcome.tokens.media.characters, outcome.tokens.estimated) == (9, False)
    assert outcome.bytes_out == len(answer.body)
    assert outcome.ttft_us is not None
    rig.nothing_held()


async def test_the_length_that_a_provider_names_is_passed_on(rig: Rig) -> None:
    voices(rig, per("characters", PER_CHARACTER))
    rig.upstream.does(sounds(b"abc", b"defg", length=7))
    answer = await rig.call(say(), path=SPEECH)
    assert (answer.headers["content-length"], answer.body, answer.complete) == ("7", b"abcdefg", True)


@pytest.mark.parametrize("how", ["cut", "short", "hang"])
async def test_a_sound_that_breaks_off_is_never_complete(rig: Rig, how: str) -> None:
    voices(rig, per("characters", PER_CHARACTER))
    rig.configure(
        models=[a_model("voice", prices=per("characters", PER_CHARACTER), max_output_tokens=0)],
        providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=200)],
        budgets=[a_budget()],
    )
    if how == "short":
        rig.upstream.does(sounds(b"abcdef", length=100, end="cut"))
    else:
        rig.upstream.does(sounds(b"abcdef", end=how))
    answer = await rig.call(say(), path=SPEECH)
    assert answer.status == 200
    assert not answer.complete
    assert answer.body == b"abcde"
    outcome = rig.outcome()
    assert (outcome.status, outcome.code) == ("interrupted", "stream_interrupted")
    assert outcome.cost == 11 * PER_CHARACTER
    assert len(rig.upstream.asked) == 1
    rig.nothing_held()


@pytest.mark.parametrize(
    "wrong",
    [
        says(b"<!doctype html><h1>Bad gateway</h1>", kind="text/html"),
        says(b'{"status": "fine"}'),
        says(b'{"title": "no voice"}', kind="Application/Problem+JSON; charset=utf-8"),
        says(b"no voice", kind="Text/Plain"),
        says(b""),
        sounds(kind="audio/mpeg"),
        sounds(b"", length=10, end="cut"),
    ],
)
async def test_what_is_no_sound_is_tried_again_and_never_passed_on(rig: Rig, wrong: Any) -> None:
    voices(rig, per("characters", PER_CHARACTER))
    rig.upstream.does(wrong, sounds(b"RIFF...."))
    answer = await rig.call(say(), path=SPEECH)
    assert (answer.status, answer.body) == (200, b"RIFF....")
    assert len(rig.upstream.asked) == 2
    rig.upstream.does(wrong)
    answer = await rig.call(say(), path=SPEECH)
    assert answer.status == 502
    assert answer.error["code"] in ("upstream_error", "stream_interrupted")


async def test_a_compressed_answer_is_no_answer(rig: Rig) -> None:
    """It was asked for as it is, and the client would not be told what it is."""
    voices(rig, per("characters", PER_CHARACTER))

    async def script(asked: Asked, reply: Reply) -> None:
        assert asked.headers["accept-encoding"] == "identity"
        headers = {"content-type": "audio/mpeg", "content-encoding": "gzip", "content-length": "4"}
        await reply.head(200, headers)
        await reply.raw(b"\x1f\x8b\x08\0")

    rig.upstream.does(script, sounds(b"RIFF...."))
    answer = await rig.call(say(), path=SPEECH)
    assert (answer.status, answer.body) == (200, b"RIFF....")
    rig.upstream.does(script)
    answer = await rig.call(say(), path=SPEECH)
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert "compressed" in answer.error["message"]


async def test_an_error_in_place_of_a_sound_is_an_error(rig: Rig) -> None:
    voices(rig)
    rig.upstream.does(says({"error": {"message": "voice: unknown", "code": "invalid_value"}}))
    answer = await rig.call(say(), path=SPEECH)
    assert answer.status >= 400
    assert set(answer.json) == {"error"}


async def test_a_client_that_hangs_up_stops_the_provider_and_pays(rig: Rig) -> None:
    voices(rig, per("characters", PER_CHARACTER))
    rig.upstream.does(sounds(b"abc", end="hang"))
    exchange = rig.start(say(), path=SPEECH)
    await exchange.answer.until(lambda answer: bool(answer.body))
    exchange.hang_up()
    await eventually(lambda: bool(rig.ended()))
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)
    assert rig.outcome().status == "client_closed"
    assert rig.outcome().cost == 11 * PER_CHARACTER
    rig.nothing_held()


async def test_a_server_that_stops_leaves_the_sound_without_its_end(rig: Rig) -> None:
    voices(rig, per("characters", PER_CHARACTER))
    rig.upstream.does(sounds(b"abc", end="hang"))
    exchange = rig.start(say(), path=SPEECH)
    await exchange.answer.until(lambda answer: bool(answer.body))
    for call in list(rig.plane.calls):
        call.watch.fire("shutdown")
    answer = await exchange.done()
    assert (answer.body, answer.complete) == (b"ab", False)
    assert rig.outcome().status == "interrupted"


@pytest.mark.parametrize(
    ("members", "bound"),
    [
        ({}, spoken_tokens(11)),
        ({"speed": 0.5}, 2 * spoken_tokens(11)),
        ({"speed": 2}, spoken_tokens(11)),
        ({"instructions": "like a pirate"}, spoken_tokens(11)),
    ],
)
async def test_speech_billed_by_tokens_is_bounded_and_counted(
    rig: Rig, members: dict[str, Any], bound: int
) -> None:
    voices(rig)
    rig.upstream.does(sounds(b"\0" * 48_000, kind="audio/pcm"))
    body = say(response_format="pcm", **members)
    await rig.call(body, path=SPEECH)
    text = 11 + len(members.get("instructions", "")) + 16
    assert rig.held()[0].worst_cost == text * TEXT_IN + bound * AUDIO_OUT
    outcome = rig.outcome()
    # A second of sound.
    assert (outcome.tokens.output, outcome.tokens.media.audio_output) == (21, 21)
    assert outcome.tokens.estimated
    assert outcome.cost <= rig.held()[0].worst_cost


async def test_events_of_a_sound_are_relayed_and_their_usage_is_billed(rig: Rig) -> None:
    voices(rig)
    delta = event("speech.audio.delta", audio=base64.b64encode(b"abc").decode())
    done = event("speech.audio.done", usage={"input_tokens": 14, "output_tokens": 101, "total_tokens": 115})

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(delta, delta, done)

    rig.upstream.does(script)
    answer = await rig.call(say(stream_format="sse"), path=SPEECH)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.body == delta + delta + done
    outcome = rig.outcome()
    assert outcome.cost == 14 * TEXT_IN + 101 * AUDIO_OUT
    assert (outcome.tokens.media.audio_output, outcome.tokens.media.characters) == (101, 11)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "voice", "voice": "a"}, "input"),
        ({"model": "voice", "voice": "a", "input": ""}, "input"),
        ({"model": "voice", "voice": "a", "input": 7}, "input"),
        ({"voice": "a", "input": "x"}, "model"),
        (say(speed="fast"), "speed"),
        (say(speed=0), "speed"),
        (say(speed=10**400), "speed"),
        (say(speed=True), "speed"),
        (say(stream_format=1), "stream_format"),
    ],
)
async def test_bad_speech_is_refused_with_the_member(rig: Rig, body: Any, param: str) -> None:
    voices(rig)
    answer = await rig.call(body, path=SPEECH)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert not rig.upstream.asked


async def test_a_member_that_is_not_known_may_be_anything(rig: Rig) -> None:
    voices(rig, per("characters", PER_CHARACTER))
    rig.upstream.does(sounds(b"abc"))
    assert (await rig.call(say(voice={"name": "voice_1"}, odd=[1]), path=SPEECH)).status == 200
    assert rig.upstream.asked[0].json["voice"] == {"name": "voice_1"}
