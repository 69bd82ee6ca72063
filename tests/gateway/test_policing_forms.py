"""Policies on images and audio: the texts of forms before, transcripts after, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.core.verdicts import AFTER, ALLOW, BEFORE, BLOCK, REDACT
from tests.gateway.making import (
    PICTURE,
    SOUND,
    event,
    form,
    heard_usage,
    image_usage,
    images,
    post_form,
    says,
)
from tests.gateway.rig import Answer, Asked, Reply, Rig, a_budget, a_model, ask, streams
from tests.gateway.test_policing import EMAIL, SECRET, nothing_kept, policy, verdicts

EDITS, TRANSCRIPTIONS, SPEECH = "/v1/images/edits", "/v1/audio/transcriptions", "/v1/audio/speech"
Check = tuple[str, str, str, dict[str, Any]]


def under(rig: Rig, *checks: Check, **model: Any) -> None:
    rig.configure(
        models=[a_model(**model)],
        policies=[policy(*checks)],
        budgets=[a_budget()],
    )


def heard(text: str = "Hi", **members: Any) -> Any:
    return says({"text": text, "usage": heard_usage()} | members)


# ---------------------------------------------------------------------- before


@pytest.mark.parametrize(("path", "file"), [(EDITS, PICTURE), (TRANSCRIPTIONS, SOUND)])
async def test_what_a_form_says_is_blocked(rig: Rig, path: str, file: Any) -> None:
    under(rig, ("secrets", BEFORE, BLOCK, {}))
    answer = await post_form(rig, path, file, ("model", "small"), ("prompt", f"Use {SECRET}"))
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, "policy_blocked", "prompt")
    assert rig.upstream.asked == []
    assert verdicts(rig) == [("before", "secrets", "block")]
    nothing_kept(rig, SECRET)


async def test_no_part_is_made_of_what_a_policy_puts_into_a_field(rig: Rig) -> None:
    """A boundary that looks like a placeholder: what is redacted to it would end the field, and begin another one."""
    under(rig, ("personal_data", BEFORE, REDACT, {}))
    prompt = f'Hi\r\n--{EMAIL}\r\nContent-Disposition: form-data; name="n"\r\n\r\n10'
    body = form(PICTURE, ("model", "small"), ("prompt", prompt), boundary="[EMAIL_1]")
    headers = {"content-type": 'multipart/form-data; boundary="[EMAIL_1]"'}
    answer = await rig.call(body, path=EDITS, headers=headers)
    assert (answer.status, answer.error["param"]) == (400, "prompt")
    assert "use another boundary" in answer.error["message"]
    assert rig.upstream.asked == []


@pytest.mark.parametrize(
    ("path", "file", "answered"),
    [
        (EDITS, PICTURE, images(1, image_usage())),
        (TRANSCRIPTIONS, SOUND, {"text": "Hi", "usage": heard_usage()}),
    ],
)
async def test_what_a_form_says_is_redacted_and_no_other_byte_of_it(
    rig: Rig, path: str, file: Any, answered: Any
) -> None:
    under(rig, ("personal_data", BEFORE, REDACT, {}))
    rig.upstream.does(says(answered))
    parts = [file, ("model", "small"), ("prompt", f"Grüße an {EMAIL}"), ("odd", EMAIL)]
    answer = await post_form(rig, path, *parts)
    assert (answer.status, answer.json) == (200, answered)
    sent = form(file, ("model", "sim-small"), ("prompt", "Grüße an [EMAIL_1]"), ("odd", EMAIL))
    [asked] = rig.upstream.asked
    assert asked.body == sent
    assert asked.headers["content-length"] == str(len(sent))
    assert verdicts(rig) == [("before", "personal_data", "redact")]


async def test_a_field_that_two_readers_could_understand_differently_is_refused(rig: Rig) -> None:
    under(rig, ("secrets", BEFORE, BLOCK, {}))
    for twice in ("instructions", "prompt[]"):
        parts = [SOUND, ("model", "small"), (twice, "fine"), (twice, SECRET)]
        answer = await post_form(rig, TRANSCRIPTIONS, *parts)
        assert (answer.status, answer.error["param"]) == (400, twice)
    assert rig.upstream.asked == []


async def test_files_are_not_looked_into(rig: Rig) -> None:
    under(rig, ("secrets", BEFORE, BLOCK, {}))
    rig.upstream.does(heard())
    sound = ("file", ("a.wav", "audio/wav", SECRET.encode()))
    assert (await post_form(rig, TRANSCRIPTIONS, sound, ("model", "small"))).status == 200


async def test_what_is_spoken_is_charged_as_it_was_sent(rig: Rig) -> None:
    under(rig, ("personal_data", BEFORE, REDACT, {}))

    async def sound(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "audio/mpeg", "content-length": "4"})
        await reply.raw(b"ding")

    rig.upstream.does(sound)
    body = {"model": "small", "voice": "alloy", "input": f"Mail {EMAIL}, {EMAIL}"}
    answer = await rig.call(body, path=SPEECH)
    assert answer.body == b"ding"
    said = "Mail [EMAIL_1], [EMAIL_1]"
    assert rig.upstream.asked[0].json["input"] == said
    assert rig.outcome().tokens.media.characters == len(said)


# ---------------------------------------------------------------------- after


async def test_a_transcript_is_redacted(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(heard(f"Call {EMAIL}"))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"))
    assert answer.json == {"text": "Call [EMAIL_1]", "usage": heard_usage()}
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert verdicts(rig) == [("after", "personal_data", "redact")]


async def test_a_transcript_as_plain_text_is_redacted(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    titles = "1\n00:00:00,000 --> 00:00:01,500\nGrüße an {}\n\n"
    rig.upstream.does(says(titles.format(EMAIL).encode(), kind="text/plain; charset=utf-8"))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("response_format", "srt"))
    assert answer.body.decode() == titles.format("[EMAIL_1]")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


SRT = "1\n00:00:00,000 --> 00:00:01,500\n{}\n\n2\n00:00:01,500 --> 00:00:03,000\n{}\n\n"
VTT = "WEBVTT\n\n00:00.000 --> 00:01.500 align:start\n{}\n\n00:01.500 --> 00:03.000\n{}\n"


@pytest.mark.parametrize("captions", [SRT, VTT, SRT.replace("\n", "\r\n")], ids=["srt", "vtt", "windows"])
@pytest.mark.parametrize(("action", "status"), [(ALLOW, 200), (REDACT, 422), (BLOCK, 422)])
async def test_what_goes_over_two_captions_is_seen(rig: Rig, captions: str, action: str, status: int) -> None:
    under(rig, ("personal_data", AFTER, action, {}))
    body = captions.format("The card is 4111 1111", "1111 1111, thanks").encode()
    rig.upstream.does(says(body, kind="text/plain; charset=utf-8"))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("response_format", "srt"))
    assert answer.status == status
    assert verdicts(rig) == [("after", "personal_data", action)]
    assert answer.body == body if status == 200 else "1111" not in answer.body.decode()
    rig.nothing_held()


async def test_captions_without_anything_go_out_as_they_came(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    body = SRT.format("The answer is 42", "2024 was a year").encode()
    rig.upstream.does(says(body, kind="text/plain; charset=utf-8"))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("response_format", "srt"))
    assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("kind", ["json", "text", "verbose_json"])
async def test_a_blocked_transcript_is_charged_and_kept_back(rig: Rig, kind: str) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}))
    if kind == "text":
        rig.upstream.does(says(f"Say {SECRET}".encode(), kind="text/plain"))
    else:
        more = {"segments": [{"id": 0, "text": SECRET}]} if kind == "verbose_json" else {}
        rig.upstream.does(heard(f"Say {SECRET}", **more))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("response_format", kind))
    assert (answer.status, answer.error["code"]) == (422, "policy_blocked")
    assert SECRET[:14] not in answer.body.decode()
    outcome = rig.outcome()
    assert (outcome.status, outcome.code) == ("error", "policy_blocked") and outcome.cost > 0
    rig.nothing_held()


@pytest.mark.parametrize(
    "parts",
    [
        {"segments": [{"id": 0, "text": "Call ada@"}, {"id": 1, "text": "example.com"}]},
        {"segments": [{"id": 0, "text": f"Call {EMAIL}"}]},
        {"words": [{"word": "Call"}, {"word": EMAIL}]},
    ],
)
async def test_parts_of_a_transcript_do_not_tell_what_the_whole_may_not(rig: Rig, parts: Any) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(heard(f"Call {EMAIL}", **parts))
    answer = await post_form(
        rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("response_format", "verbose_json")
    )
    assert (answer.status, answer.error["param"]) == (422, "response_format")
    assert "json or text" in answer.error["message"]
    assert verdicts(rig)[0] == ("after", "personal_data", "redact")
    assert rig.outcome().cost > 0


async def test_parts_of_a_transcript_stay_where_nothing_is_taken_out(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(heard("Hello", segments=[{"id": 0, "text": "Hello"}], words=[{"word": "Hello"}]))
    answer = await post_form(
        rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("response_format", "verbose_json")
    )
    assert (answer.status, answer.json["words"]) == (200, [{"word": "Hello"}])


async def test_a_transcript_is_judged_as_a_whole(rig: Rig) -> None:
    under(rig, ("length", AFTER, BLOCK, {"max_characters": 10}))
    rig.upstream.does(heard("far too long a text"))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"))
    assert (answer.status, verdicts(rig)) == (422, [("after", "length", "block")])


async def test_a_transcript_that_is_no_text_does_not_go_out_unread(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}))
    rig.upstream.does(says(b"\xff\xfe", kind="text/plain"))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("response_format", "text"))
    assert answer.status == 502


GENERATIONS = "/v1/images/generations"
A_PICTURE = "A" * 70_000


def drawn(*said: str, twice: bool = False) -> Any:
    """A stream of an image: with each event but the last one a partial image, and what the prompt was made into."""
    names = [*["image_generation.partial_image"] * (len(said) - 1), "image_generation.completed"]
    events = [
        event(name, b64_json=A_PICTURE, revised_prompt=text, usage=image_usage(20, 500))
        for name, text in zip(names, said, strict=True)
    ]
    if twice:
        events[-1] = events[-1].replace(
            b'"revised_prompt"', b'"revised_prompt":"%b","revised_prompt"' % SECRET.encode()
        )

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*events)

    return script


async def draw(rig: Rig) -> Answer:
    return await rig.call({"model": "small", "prompt": "x", "stream": True}, path=GENERATIONS)


async def test_what_a_streamed_image_says_of_its_prompt_is_redacted(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}), max_output_tokens=4_000)
    rig.upstream.does(drawn("A cat", f"A cat for {EMAIL}", f"A cat for {EMAIL}"))
    events = data_of((await draw(rig)).body)
    assert [one["revised_prompt"] for one in events] == [
        "A cat",
        "A cat for [EMAIL_1]",
        "A cat for [EMAIL_1]",
    ]
    assert [(one["b64_json"], one["usage"]) for one in events] == [(A_PICTURE, image_usage(20, 500))] * 3
    assert rig.outcome().status == "ok"
    assert verdicts(rig) == [("after", "personal_data", "redact")]


@pytest.mark.parametrize("said", [(f"A {SECRET}", "A cat"), ("A cat", f"A {SECRET}")], ids=["early", "last"])
async def test_a_streamed_image_that_says_a_secret_is_stopped(rig: Rig, said: tuple[str, ...]) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}), max_output_tokens=4_000)
    rig.upstream.does(drawn(*said))
    body = (await draw(rig)).body
    assert b"policy_blocked" in body and SECRET[:14].encode() not in body
    assert b"image_generation.completed" not in body
    assert rig.outcome().code == "policy_blocked"


async def test_a_streamed_image_that_says_two_things_at_once_is_not_relayed(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}), max_output_tokens=4_000)
    rig.upstream.does(drawn("A cat", "A dog", twice=True))
    body = (await draw(rig)).body
    assert SECRET[:14].encode() not in body and b"image_generation.completed" not in body
    assert rig.outcome().status == "interrupted"


async def test_a_streamed_image_is_not_kept_back_for_a_judge_of_texts(rig: Rig) -> None:
    under(rig, ("length", AFTER, BLOCK, {"max_characters": 5}), max_output_tokens=4_000)
    rig.upstream.does(drawn("A cat that is long", "A cat that is long"))
    assert [one["type"] for one in data_of((await draw(rig)).body)][-1] == "image_generation.completed"
    assert rig.outcome().status == "ok"


def told(text: str, size: int) -> Any:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    events = [event("transcript.text.delta", delta=one) for one in pieces]
    whole = b"".join((*events, event("transcript.text.done", text=text, usage=heard_usage())))

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.events(*[whole[at : at + 50] for at in range(0, len(whole), 50)])

    return script


def data_of(body: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: ")]


@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_a_streamed_transcript_is_redacted(rig: Rig, size: int) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    rig.upstream.does(told(f"Call {EMAIL} now, {EMAIL}", size))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("stream", "true"))
    events = data_of(answer.body)
    expected = "Call [EMAIL_1] now, [EMAIL_1]"
    assert "".join(one.get("delta", "") for one in events) == expected
    assert (events[-1]["text"], events[-1]["usage"]) == (expected, heard_usage())
    assert rig.outcome().status == "ok" and not rig.outcome().tokens.estimated
    assert verdicts(rig) == [("after", "personal_data", "redact")]


@pytest.mark.parametrize("size", [1, 1_000])
async def test_a_streamed_transcript_is_stopped(rig: Rig, size: int) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}))
    rig.upstream.does(told(f"Say {SECRET} now", size))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("stream", "true"))
    assert "policy_blocked" in answer.body.decode() and SECRET[:14] not in answer.body.decode()
    assert b"transcript.text.done" not in answer.body
    assert rig.outcome().code == "policy_blocked"


async def test_a_streamed_transcript_is_judged_as_a_whole(rig: Rig) -> None:
    under(rig, ("length", AFTER, BLOCK, {"max_characters": 10}))
    rig.upstream.does(told("far too long a text", 4))
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("stream", "true"))
    assert "policy_blocked" in answer.body.decode() and b"transcript.text.done" not in answer.body


def spoken(*parts: str) -> Any:
    """A transcript that comes in parts, and whole at its end."""
    text = " ".join(parts)
    segments = [
        event("transcript.text.segment", id=f"seg_{n}", speaker="A", start=n, end=n + 1, text=part)
        for n, part in enumerate(parts)
    ]
    return streams(*segments, event("transcript.text.done", text=text, usage=heard_usage()))


async def in_parts(rig: Rig, *parts: str) -> Answer:
    rig.upstream.does(spoken(*parts))
    fields = (("model", "small"), ("stream", "true"), ("response_format", "diarized_json"))
    return await post_form(rig, TRANSCRIPTIONS, SOUND, *fields)


async def test_parts_of_a_streamed_transcript_are_redacted_each(rig: Rig) -> None:
    under(rig, ("personal_data", AFTER, REDACT, {}))
    events = data_of((await in_parts(rig, "Hello.", f"Call {EMAIL}", "and", "bye")).body)
    assert [one["text"] for one in events] == [
        "Hello.", "Call [EMAIL_1]", "and", "bye", "Hello. Call [EMAIL_1] and bye",
    ]  # fmt: skip
    assert rig.outcome().status == "ok"


@pytest.mark.parametrize("action", [REDACT, BLOCK])
@pytest.mark.parametrize(
    "parts",
    [
        ("Hello.", "My card is 4111 1111", "1111 1111 and", "that is all"),
        ("Hello.", "It is 4111", "1111", "1111 1111"),
    ],
)
async def test_what_parts_tell_together_does_not_go_out(
    rig: Rig, parts: tuple[str, ...], action: str
) -> None:
    under(rig, ("personal_data", AFTER, action, {"kinds": ["card"]}))
    answer = await in_parts(rig, *parts)
    said = " ".join(one.get("text", "") for one in data_of(answer.body))
    assert "1111 1111 1111" not in said and "transcript.text.done" not in answer.body.decode()
    assert "policy_blocked" in answer.body.decode()
    assert rig.outcome().code == "policy_blocked"


async def test_parts_that_tell_nothing_come_as_they_are_and_in_order(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, BLOCK, {}))
    answer = await in_parts(rig, "One", "two", "three")
    assert [one["text"] for one in data_of(answer.body)] == ["One", "two", "three", "One two three"]
    assert [one.get("id") for one in data_of(answer.body)] == ["seg_0", "seg_1", "seg_2", None]


# ---------------------------------------------------------------------- log probabilities


@pytest.mark.parametrize(
    ("members", "stream", "action", "refused"),
    [
        ({"logprobs": True}, False, REDACT, "logprobs"),
        ({"logprobs": True, "top_logprobs": 2}, True, BLOCK, "logprobs"),
        ({"logprobs": True}, False, BLOCK, ""),
        ({"logprobs": False, "top_logprobs": None}, True, REDACT, ""),
    ],
)
async def test_log_probabilities_do_not_tell_what_is_taken_out(
    rig: Rig, members: Any, stream: bool, action: str, refused: str
) -> None:
    under(rig, ("secrets", AFTER, action, {}))
    answer = await rig.call(ask(stream=stream, **members))
    if refused:
        assert (answer.status, answer.error["param"]) == (400, refused)
        assert rig.upstream.asked == []
    else:
        assert len(rig.upstream.asked) >= 1


async def test_nor_do_those_of_responses_and_transcripts(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}))
    for include in (b"message.output_text.logprobs", b"message.output_text.l\\u006fgprobs"):
        body = b'{"model": "small", "input": "Hi", "include": ["' + include + b'"]}'
        answer = await rig.call(body, path="/v1/responses")
        assert (answer.status, answer.error["param"]) == (400, "include")
    answer = await post_form(rig, TRANSCRIPTIONS, SOUND, ("model", "small"), ("include[]", "logprobs"))
    assert (answer.status, answer.error["param"]) == (400, "include[]")
    assert rig.upstream.asked == []


async def test_nor_do_those_that_a_model_has_as_its_default(rig: Rig) -> None:
    under(rig, ("secrets", AFTER, REDACT, {}), parameters={"logprobs": True})
    answer = await rig.chat()
    assert (answer.status, answer.error["param"]) == (400, "model")
    assert rig.upstream.asked == []
