"""Speech, transcriptions and translations through the gateway: what is sent, relayed, held and billed."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from llmops.core.tokens.made import heard_tokens, seconds_of, spoken_tokens, written_tokens
from tests.gateway.making import (
    AUDIO_IN,
    AUDIO_OUT,
    SOUND,
    TEXT_IN,
    TEXT_OUT,
    TOKEN_PRICES,
    event,
    form,
    heard_usage,
    per,
    post_form,
    says,
    wav,
)
from tests.gateway.rig import (
    USD,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_key,
    a_model,
    a_provider,
    a_route,
    cuts,
    eventually,
    fails,
    hangs,
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


# ---------------------------------------------------------------------- hearing


@pytest.mark.parametrize("path", [TRANSCRIPTIONS, TRANSLATIONS])
async def test_a_sound_is_heard_and_billed_by_its_tokens(rig: Rig, path: str) -> None:
    voices(rig)
    answered = json.dumps({"text": "Grüße", "usage": heard_usage(14, 3, 8)}).encode()
    rig.upstream.does(says(answered))
    parts = [SOUND, ("model", "sound"), ("include[]", "logprobs"), ("prompt", "names: Grüße"), ("odd", "x")]
    answer = await post_form(rig, path, *parts)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, answered, "application/json")
    [asked] = rig.upstream.asked
    assert (asked.path, asked.body) == (path, form(SOUND, ("model", "sim-voice"), *parts[2:]))
    outcome = rig.outcome()
    assert outcome.cost == 3 * TEXT_IN + 14 * AUDIO_IN + 8 * TEXT_OUT
    assert not outcome.tokens.estimated
    assert rig.ended()[0].origin.endpoint == path.removeprefix("/v1/").replace("/", ".")
    seconds = seconds_of(len(form(*parts)))
    fields = sum(len(value.encode()) for _, value in parts[1:])
    worst = (fields + heard_tokens(seconds)) * AUDIO_IN + written_tokens(seconds) * TEXT_OUT
    assert rig.held()[0].worst_cost == worst


async def test_hearing_by_the_second_costs_the_seconds_begun(rig: Rig) -> None:
    voices(rig, per("seconds", PER_SECOND))
    rig.upstream.does(says({"text": "Hi", "usage": {"type": "duration", "seconds": 2.2}}))
    await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"))
    outcome = rig.outcome()
    assert (outcome.cost, outcome.tokens.media.seconds) == (3 * PER_SECOND, 3)
    assert not outcome.tokens.estimated
    assert rig.held()[0].worst_cost == seconds_of(len(form(SOUND, ("model", "voice")))) * PER_SECOND


async def test_a_verbose_answer_says_how_long_the_sound_is(rig: Rig) -> None:
    voices(rig, per("seconds", PER_SECOND))
    rig.upstream.does(says({"text": "Hi", "duration": 4.0, "language": "english", "segments": []}))
    await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"), ("response_format", "verbose_json"))
    assert (rig.outcome().cost, rig.outcome().tokens.estimated) == (4 * PER_SECOND, False)


SRT = b"1\n00:00:00,000 --> 00:00:01,500\nHello\n\n2\n00:00:01,500 --> 00:00:03,200\nthere\n\n"
VTT = b"WEBVTT\n\n00:00.000 --> 00:03.200\nHello there\n\n"


@pytest.mark.parametrize(
    ("kind", "body", "sound", "seconds"),
    [
        ("srt", SRT, wav(9), 9),
        ("vtt", VTT, wav(9), 9),
        ("text", b"Hello there\n", wav(8.5), 9),
        ("srt", SRT, b"\x1aE\xdf\xa3" * 2_000, 5),
        ("vtt", VTT, b"\x1aE\xdf\xa3" * 2_000, 5),
        ("text", b"Hello there\n", b"\x1aE\xdf\xa3" * 2_000, None),
        # A header that claims an hour.
        ("text", b"Hello there\n", wav(1)[:28] + b"\1\0\0\0" + wav(1)[32:], None),
    ],
)
async def test_texts_go_through_untouched_and_cost_what_they_and_the_sound_show(
    rig: Rig, kind: str, body: bytes, sound: bytes, seconds: int | None
) -> None:
    voices(rig, per("seconds", PER_SECOND))
    rig.upstream.does(says(body, kind="text/plain; charset=utf-8"))
    parts = [("response_format", kind), ("file", ("a.wav", "audio/wav", sound)), ("model", "voice")]
    answer = await post_form(rig, TRANSCRIPTIONS, *parts)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    outcome = rig.outcome()
    assert outcome.tokens.estimated
    assert outcome.cost == (seconds or seconds_of(len(form(*parts)))) * PER_SECOND
    assert outcome.cost <= rig.held()[0].worst_cost


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (says(b"<!DOCTYPE html><p>oops", kind="text/html"), "text"),
        (says(b"  <html>oops", kind="text/plain"), "srt"),
        (says(b"", kind="text/plain"), "text"),
        (says(b"<!DOCTYPE html><p>oops", kind="text/html"), "json"),
        (says(b'{"text": "Hel'), "json"),
        (says(b""), "verbose_json"),
        (says(b"[1]"), "diarized_json"),
        (says({"error": {"message": "no"}}), "text"),
    ],
)
async def test_what_is_no_transcript_is_never_passed_on(rig: Rig, wrong: Any, kind: str) -> None:
    voices(rig)
    rig.upstream.does(wrong)
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"), ("response_format", kind))
    assert answer.status == 502
    assert b"oops" not in answer.body
    assert set(answer.json) == {"error"}
    assert rig.outcome().status == "error"
    rig.nothing_held()


async def test_a_transcript_streams_and_its_usage_is_billed(rig: Rig) -> None:
    voices(rig)
    events = [
        event("transcript.text.delta", delta="Hel"),
        event("transcript.text.delta", delta="lo"),
        event("transcript.text.done", text="Hello", usage=heard_usage(14, 0, 2)),
    ]
    whole = b"".join(events)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*[whole[at : at + 7] for at in range(0, len(whole), 7)])

    rig.upstream.does(script)
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"), ("stream", "true"))
    assert (answer.body, answer.complete) == (whole, True)
    assert rig.outcome().cost == 14 * AUDIO_IN + 2 * TEXT_OUT
    assert rig.ended()[0].origin.streamed


async def test_a_model_that_does_not_stream_may_answer_in_one_piece(rig: Rig) -> None:
    voices(rig, per("seconds", PER_SECOND))
    rig.upstream.does(says({"text": "Hi", "usage": {"type": "duration", "seconds": 2}}))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"), ("stream", "True"))
    assert (answer.status, answer.json["text"]) == (200, "Hi")
    assert rig.outcome().cost == 2 * PER_SECOND


async def test_a_transcript_that_breaks_off_says_so_and_costs_what_came(rig: Rig) -> None:
    voices(rig)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(event("transcript.text.delta", delta="Hel"), end=False)
        reply.cut()

    rig.upstream.does(script)
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"), ("stream", "true"))
    assert b"stream_interrupted" in answer.body
    outcome = rig.outcome()
    assert (outcome.status, outcome.tokens.output) == ("interrupted", 3)
    assert 0 < outcome.cost <= rig.held()[0].worst_cost


@pytest.mark.parametrize(
    ("prices", "used"),
    [
        (per("seconds", PER_SECOND), heard_usage()),
        (TOKEN_PRICES, {"type": "duration", "seconds": 3}),
    ],
)
async def test_usage_in_another_unit_than_the_price_is_not_free(rig: Rig, prices: Any, used: Any) -> None:
    voices(rig, prices)
    rig.upstream.does(says({"text": "Hi", "usage": used}))
    await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"))
    outcome = rig.outcome()
    assert outcome.tokens.estimated
    assert 0 < outcome.cost <= rig.held()[0].worst_cost


async def test_a_large_sound_is_sent_whole_to_each_target(rig: Rig) -> None:
    voices(rig, per("seconds", 1))
    large = ("file", ("a.wav", "audio/wav", wav(500)))
    rig.upstream.does(cuts, fails(500), says({"text": "Hi", "usage": {"type": "duration", "seconds": 2}}))
    body = form(large, ("model", "sound"))
    pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    headers = {"content-type": "multipart/form-data; boundary=a-boundary-of-the-client"}
    answer = await rig.call(pieces, path=TRANSCRIPTIONS, headers=headers)
    assert answer.status == 200
    sent = [asked.body for asked in rig.upstream.asked]
    assert sent == [form(large, ("model", f"sim-{name}")) for name in ("voice", "voice", "other")]
    assert rig.ended()[0].origin.bytes_in == len(body)


async def test_a_form_larger_than_is_read_here_is_refused(rig: Rig) -> None:
    voices(rig)
    rig.plane.max_media = 2_000
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"))
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([SOUND], "model"),
        ([("model", "voice")], "file"),
        ([("file", "not a file"), ("model", "voice")], "file"),
        ([("file", ("a.wav", "audio/wav", b"")), ("model", "voice")], "file"),
        ([SOUND, ("model", "voice"), ("model", "other")], "model"),
    ],
)
async def test_a_bad_form_is_refused_with_the_part(rig: Rig, parts: Any, param: str) -> None:
    voices(rig)
    answer = await post_form(rig, TRANSCRIPTIONS, *parts)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert not rig.upstream.asked
    assert rig.outcome().status == "refused"


async def test_a_body_that_is_no_form_is_refused(rig: Rig) -> None:
    voices(rig)
    answer = await rig.call({"model": "voice"}, path=TRANSCRIPTIONS)
    assert (answer.status, answer.error["param"]) == (400, "Content-Type")
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await rig.call(b"--b\r\nContent-Disp", path=TRANSCRIPTIONS, headers=headers)
    assert (answer.status, answer.error["code"]) == (400, "invalid_multipart")


async def test_nobody_without_a_key_may_fill_the_disk(rig: Rig) -> None:
    exchange = rig.start(
        [b"x" * 100] * 3, path=TRANSCRIPTIONS, key=None, headers={"content-type": "multipart/form-data"}
    )
    answer = await exchange.done()
    assert answer.status == 401
    assert exchange.left() == 3


async def test_money_for_the_longest_sound_is_held_while_it_is_heard(rig: Rig) -> None:
    voices(rig, per("seconds", PER_SECOND))
    rig.configure(
        models=[a_model("voice", prices=per("seconds", PER_SECOND))],
        budgets=[a_budget(limit_nano=PER_SECOND)],
    )
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"))
    assert (answer.status, answer.error["code"]) == (429, "insufficient_quota")
    assert not rig.upstream.asked


async def test_tokens_a_minute_count_what_may_be_heard_and_said(rig: Rig) -> None:
    rig.configure(
        models=[a_model("voice", prices=TOKEN_PRICES)], keys={"llmops_testtest_" + "k" * 40: a_key(tpm=50)}
    )
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "voice"))
    assert (answer.status, answer.error["code"]) == (429, "tokens_limit_exceeded")


async def test_a_transcript_that_never_comes_is_charged_at_its_hold(rig: Rig) -> None:
    rig.configure(
        models=[a_model("voice", prices=TOKEN_PRICES)],
        providers=[a_provider(base_url=rig.upstream.url, read_timeout_ms=100)],
        budgets=[a_budget(limit_nano=USD)],
        routes=[a_route("sound", "voice", attempts=1)],
    )
    rig.upstream.does(hangs)
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "sound"))
    assert answer.status == 504
    assert rig.outcome().cost == rig.held()[0].worst_cost
