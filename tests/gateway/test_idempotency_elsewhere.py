"""``Idempotency-Key`` with forms, sounds, prompts by name, responses in the background and batches."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.batching import A_BATCH, at, create, lines
from tests.gateway.keeping import MINE, bytes_of, configure, gives
from tests.gateway.making import FORM_TYPE, SOUND, form, heard_usage, says, wav
from tests.gateway.responding import PATH, a_response
from tests.gateway.rig import KEY, Answer, Rig, a_key, answers, fails
from tests.gateway.test_audio import SPEECH, TRANSCRIPTIONS, sounds, voices
from tests.gateway.test_prompting import a_prompt, a_version, configured, naming

pytestmark = pytest.mark.any_engine

ONCE = {"idempotency-key": "order-7f3a"}


def replayed(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


async def transcribe(rig: Rig, sound: Any = SOUND, boundary: str = "b1") -> Answer:
    kind = FORM_TYPE["content-type"].replace("a-boundary-of-the-client", boundary)
    body = form(("model", "voice"), sound, boundary=boundary)
    return await rig.call(body, path=TRANSCRIPTIONS, headers=ONCE | {"content-type": kind})


async def test_a_form_is_what_is_in_it_whatever_its_boundary(rig: Rig) -> None:
    voices(rig)
    rig.upstream.does(says({"text": "Hi", "usage": heard_usage()}))
    first = await transcribe(rig)
    again = await transcribe(rig, boundary="another")
    assert (first.status, again.status, again.body, replayed(again)) == (200, 200, first.body, True)
    other = await transcribe(rig, ("file", ("speech.wav", "audio/wav", wav(0.6))))
    assert (other.status, other.error["param"]) == (422, "file")
    assert len(rig.upstream.asked) == 1


async def test_a_large_form_that_lies_on_the_disk(rig: Rig) -> None:
    voices(rig)
    rig.plane.max_media = 10_000_000
    rig.upstream.does(says({"text": "Hi", "usage": heard_usage()}))
    large = ("file", ("speech.wav", "audio/wav", wav(200)))
    assert (await transcribe(rig, large)).status == 200
    assert replayed(await transcribe(rig, large, boundary="another"))


async def test_a_sound_again(rig: Rig) -> None:
    voices(rig)
    rig.upstream.does(sounds(b"ID3", b"sound"))
    body = {"model": "voice", "input": "Hello", "voice": "alloy"}
    first = await rig.call(body, path=SPEECH, headers=ONCE)
    again = await rig.call(body, path=SPEECH, headers=ONCE)
    assert (again.body, again.headers["content-type"]) == (b"ID3sound", first.headers["content-type"])
    assert replayed(again)


async def test_a_sound_that_was_cut_off_is_paid_once(rig: Rig) -> None:
    voices(rig)
    rig.upstream.does(sounds(b"ID3", b"sound", end="cut"))
    body = {"model": "voice", "input": "Hello", "voice": "alloy"}
    first = await rig.call(body, path=SPEECH, headers=ONCE)
    assert not first.complete
    again = await rig.call(body, path=SPEECH, headers=ONCE)
    assert (again.status, again.error["code"]) == (409, "idempotency_answer_not_kept")
    assert len(rig.upstream.asked) == 1


async def test_a_prompt_whose_label_moved_meanwhile_is_the_same_request(rig: Rig) -> None:
    mine = {KEY: a_key()}
    configured(rig, a_prompt(a_version(route="chat")), keys=mine)
    rig.upstream.does(answers())
    first = await rig.call(naming(), headers=ONCE)
    later = a_version(2, task="Classify better.", route="chat")
    configured(rig, a_prompt(a_version(route="chat"), later, production=2), keys=mine)
    again = await rig.call(naming(), headers=ONCE)
    assert (replayed(again), again.body) == (True, first.body)
    assert again.headers["x-llmops-prompt"] == "triage@1"
    assert (await rig.call(naming(ticket="Another"), headers=ONCE)).status == 422


async def test_a_background_response_is_begun_once(rig: Rig) -> None:
    rig.upstream.does(gives(a_response(status="queued", output=[], usage=None, background=True)))
    body = {"model": "small", "input": "Hello", "background": True, "store": True}
    first = await rig.call(body, path=PATH, headers=ONCE)
    again = await rig.call(body, path=PATH, headers=ONCE)
    assert (replayed(again), again.json["id"]) == (True, first.json["id"])
    assert sum(one.method == "POST" for one in rig.upstream.asked) == 1
    await rig.plane.background.close()


async def test_a_batch_is_made_once(rig: Rig) -> None:
    configure(rig)
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    rig.upstream.does(at(content=bytes_of(lines("sim-small")), batches=gives(A_BATCH)))
    first = await create(rig, headers=ONCE)
    again = await create(rig, headers=ONCE)
    assert (first.status, again.status, again.json, replayed(again)) == (200, 200, A_BATCH, True)
    made = [one for one in rig.upstream.asked if one.path.endswith("/batches")]
    assert len(made) == 1
    # Two projects with the same one would meet at the provider.
    assert "idempotency-key" not in made[0].headers
    assert (await create(rig, headers=ONCE, body={"metadata": {"a": "b"}})).error["param"] == "metadata"


async def test_a_batch_that_was_refused_may_be_made_again(rig: Rig) -> None:
    configure(rig)
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    content = bytes_of(lines("sim-small"))
    rig.upstream.does(at(content=content, batches=fails(400)))
    assert (await create(rig, headers=ONCE)).status == 400
    rig.upstream.does(at(content=content, batches=gives(A_BATCH)))
    found = await create(rig, headers=ONCE)
    assert (found.status, replayed(found)) == (200, False)
