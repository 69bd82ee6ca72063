"""Transcriptions and translations through the gateway: what is sent, relayed, held and billed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.core.tokens.made import heard_tokens, seconds_of, written_tokens
from tests.gateway.making import (
    AUDIO_IN,
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
    fails,
    hangs,
)
from tests.gateway.test_audio import PER_SECOND, TRANSCRIPTIONS, TRANSLATIONS, voices


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
        # Where samples tell, the bytes a second of the header do not; a sample a second makes two hours of it.
        ("text", b"Hello there\n", wav(1)[:28] + b"\1\0\0\0" + wav(1)[32:], 1),
        ("text", b"Hello there\n", wav(1)[:24] + b"\1\0\0\0" + wav(1)[28:], 8_000),
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
        ([SOUND, SOUND, ("model", "voice")], "file"),
        # To some servers that is on.
        ([SOUND, ("model", "voice"), ("stream", "yes")], "stream"),
        ([SOUND, ("model", "voice"), ("response_format[]", "text")], "response_format[]"),
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


async def test_a_sound_that_says_it_is_longer_than_its_bytes_show_is_held_as_long(rig: Rig) -> None:
    """Silence is compressed to next to nothing, and billed by its seconds all the same."""
    voices(rig, per("seconds", PER_SECOND))
    rate, seconds = 48_000, 7_200
    silence = (
        b"fLaC" + b"\x80\0\0\x22" + bytes(10) + (rate << 44 | rate * seconds).to_bytes(8, "big") + bytes(16)
    )
    file = ("file", ("quiet.flac", "audio/flac", silence))
    rig.upstream.does(says({"text": "", "usage": {"type": "duration", "seconds": seconds}}))
    answer = await post_form(rig, TRANSCRIPTIONS, file, ("model", "voice"))
    assert answer.status == 200
    assert rig.held()[0].worst_cost == rig.outcome().cost == seconds * PER_SECOND
    rig.nothing_held()


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
