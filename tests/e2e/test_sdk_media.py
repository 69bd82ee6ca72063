"""Images and audio with the official SDK, sync and async, against a running data plane over the simulated provider."""

from __future__ import annotations

import asyncio
import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from llmops.core.tokens.made import image_tokens
from tests.e2e.test_sdk import KEY, PROVIDER_SECRET, Stack, call_of, start_gateway
from tests.gateway.making import png, wav
from tests.installation import Installation
from tests.simulator.running import running

#: What the SDK sends and gets back; what is booked of it are calls like others.
pytestmark = pytest.mark.any_engine

MODELS = {
    "draw": ("sim-image+instant", {"input": "5", "image_input": "10", "image_output": "40"}),
    "draw-flat": ("sim-image-flat+instant", {"images": "40000"}),
    "draw-dropped": ("sim-image+latency=5+drop=1", {"input": "5", "image_output": "40"}),
    "say": ("sim-tts+instant", {"characters": "15"}),
    "say-tokens": ("sim-gpt-tts+instant", {"input": "0.60", "audio_output": "12"}),
    "say-dropped": ("sim-tts+latency=5+tps=100+drop=3", {"characters": "15"}),
    "say-slowly": ("sim-tts+latency=20+tps=10", {"characters": "15"}),
    "hear": ("sim-transcribe+instant", {"input": "2.50", "audio_input": "6", "output": "10"}),
    "hear-paced": ("sim-transcribe+latency=5+tps=200", {"input": "2.50", "audio_input": "6", "output": "10"}),
    "hear-seconds": ("sim-whisper+instant", {"seconds": "100"}),
    "hear-html": ("sim-whisper+html", {"seconds": "100"}),
    "hear-flaky": ("sim-transcribe+instant+fail=1", {"input": "2.50", "audio_input": "6", "output": "10"}),
}
CONFIGURATION = """\
version: 1
projects: [{{slug: support, name: Support}}]
providers:
  - slug: sim
    kind: simulator
    base_url: {url}
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:{secret}"}}]
models:
{models}
routes:
  - {{slug: sound, targets: [{{model: hear-flaky}}], retry: {{attempts: 2, total_timeout: 30}}}}
budgets:
  - {{name: month, scope: "project:support", limit_usd: "1000.00", period: month, hard: true}}
service_keys:
  - {{name: all, project: support, secret: "plain:{key}", routes: ["*"], models: ["*"]}}
"""
_MODEL = (
    "  - {{slug: {0}, provider: sim, model: {1!r}, context_window: 32000, max_output_tokens: 0, "
    "default_max_output_tokens: 0, prices: {2}}}\n"
)
SOUND = ("speech.wav", wav(2.5), "audio/wav")
PICTURE = ("cat.png", png(), "image/png")


@pytest.fixture(scope="module")
def stack(module_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("simulator")) as simulator:
        models = "".join(
            _MODEL.format(slug, model, json.dumps(prices)) for slug, (model, prices) in MODELS.items()
        )
        text = CONFIGURATION.format(url=simulator.url, secret=PROVIDER_SECRET, models=models, key=KEY)
        module_installation.manage("apply", "-f", "-", stdin=text)
        module_installation.start_booking()
        port = module_installation.free_port()
        gateway = start_gateway(module_installation, port)
        module_installation.wait_ready(f"http://127.0.0.1:{port}/readyz", gateway)
        yield Stack(module_installation, simulator, gateway, port)


def nano(slug: str, **amounts: int) -> int:
    """What these amounts cost, in nanodollars, rounded up once."""
    prices = MODELS[slug][1]
    return math.ceil(sum(float(prices[name]) * 1000 * amount for name, amount in amounts.items()))


def booked(stack: Stack, headers: Any) -> dict[str, Any]:
    stack.installation.wait_booked()
    names = [
        "status",
        "cost_nano",
        "input_tokens",
        "output_tokens",
        "audio_input_tokens",
        "audio_output_tokens",
        "image_input_tokens",
        "image_output_tokens",
        "characters",
        "seconds",
        "images",
        "usage_estimated",
        "endpoint",
        "attempt_count",
        "streamed",
    ]
    rows = stack.installation.rows(f"SELECT id, {', '.join(names)} FROM usage_call")
    found = {str(row[0]).replace("-", ""): dict(zip(names, row[1:], strict=True)) for row in rows}
    return found[call_of(headers)]


def test_an_image_is_made(stack: Stack) -> None:
    raw = stack.client().images.with_raw_response.generate(
        model="draw", prompt="A grey cat", n=2, size="1024x1024", quality="low"
    )
    made = raw.parse()
    assert [base64.b64decode(one.b64_json or "")[:4] for one in made.data or []] == [b"\x89PNG"] * 2
    assert made.usage is not None
    assert made.usage.output_tokens == 2 * (image_tokens("sim-image", "1024x1024", "low") or 0)
    call = booked(stack, raw.headers)
    assert (call["status"], call["images"], call["image_output_tokens"]) == ("ok", 2, 544)
    assert call["cost_nano"] == nano("draw", input=made.usage.input_tokens, image_output=544)


def test_partial_images_stream(stack: Stack) -> None:
    stream = stack.client().images.generate(
        model="draw", prompt="A grey cat", quality="low", stream=True, partial_images=2
    )
    events = list(stream)
    assert [one.type for one in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    call = booked(stack, stream.response.headers)
    used = events[-1].usage  # type: ignore[union-attr]
    assert (call["status"], call["output_tokens"]) == ("ok", used.output_tokens)
    assert call["cost_nano"] == nano("draw", input=used.input_tokens, image_output=used.output_tokens)


def test_a_stream_of_images_that_dies_raises(stack: Stack) -> None:
    stream = stack.client().images.generate(
        model="draw-dropped", prompt="A cat", quality="low", stream=True, partial_images=3
    )
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)
    call = booked(stack, stream.response.headers)
    assert call["status"] == "interrupted"
    assert call["cost_nano"] > 0


def test_an_image_is_edited_and_varied(stack: Stack) -> None:
    client = stack.client()
    raw = client.images.with_raw_response.edit(
        model="draw", image=[PICTURE, PICTURE], mask=PICTURE, prompt="A hat", quality="low", size="1024x1024"
    )
    used = raw.parse().usage
    assert used is not None
    assert used.input_tokens_details.image_tokens > 0
    call = booked(stack, raw.headers)
    assert call["image_input_tokens"] == used.input_tokens_details.image_tokens
    assert call["cost_nano"] == nano(
        "draw",
        input=used.input_tokens_details.text_tokens,
        image_input=used.input_tokens_details.image_tokens,
        image_output=272,
    )
    raw2 = client.images.with_raw_response.create_variation(model="draw-flat", image=PICTURE, n=3)
    assert len(raw2.parse().data or []) == 3
    assert booked(stack, raw2.headers)["cost_nano"] == 3 * 40_000_000
    streamed = list(client.images.edit(model="draw", image=PICTURE, prompt="A hat", stream=True))
    assert streamed[-1].type == "image_edit.completed"


def test_text_is_spoken(stack: Stack) -> None:
    client = stack.client()
    answer = client.audio.speech.create(model="say", voice="alloy", input="Hello there, 世界")
    sound = answer.read()
    assert (sound[:4], sound[8:12]) == (b"RIFF", b"WAVE")
    assert answer.response.headers["content-type"] == "audio/wav"
    call = booked(stack, answer.response.headers)
    assert (call["characters"], call["cost_nano"], call["usage_estimated"]) == (15, 15 * 15_000, False)
    with client.audio.speech.with_streaming_response.create(
        model="say-tokens", voice="alloy", input="Hello there, everybody", response_format="wav"
    ) as streamed:
        assert b"".join(streamed.iter_bytes())[:4] == b"RIFF"
    call = booked(stack, streamed.headers)
    assert call["status"] == "ok"
    assert call["audio_output_tokens"] > 0


def test_speech_streams_as_events(stack: Stack) -> None:
    with stack.client().audio.speech.with_streaming_response.create(
        model="say-tokens", voice="alloy", input="Hello there, everybody", stream_format="sse"
    ) as streamed:
        lines = [line for line in streamed.iter_lines() if line.startswith("event: ")]
    assert set(lines[:-1]) == {"event: speech.audio.delta"}
    assert lines[-1] == "event: speech.audio.done"
    call = booked(stack, streamed.headers)
    assert not call["usage_estimated"]
    assert call["cost_nano"] == nano(
        "say-tokens", input=call["input_tokens"], audio_output=call["output_tokens"]
    )


def test_a_sound_that_is_cut_off_is_no_complete_answer(stack: Stack) -> None:
    text = "A sentence that takes longer to say than the provider lives, by a good deal. " * 4
    with (
        stack.client().audio.speech.with_streaming_response.create(
            model="say-dropped", voice="alloy", input=text
        ) as streamed,
        pytest.raises((httpx2.HTTPError, openai.APIConnectionError)),
    ):
        for _ in streamed.iter_bytes():
            pass
    call = booked(stack, streamed.headers)
    assert (call["status"], call["cost_nano"]) == ("interrupted", len(text) * 15_000)


def test_a_sound_comes_while_it_is_made(stack: Stack) -> None:
    text = "Hello there, everybody, and welcome. " * 3
    with stack.client().audio.speech.with_streaming_response.create(
        model="say-slowly", voice="alloy", input=text
    ) as streamed:
        pieces = list(streamed.iter_bytes())
    assert len(pieces) > 5


def test_sound_is_transcribed(stack: Stack) -> None:
    client = stack.client()
    raw = client.audio.transcriptions.with_raw_response.create(model="hear", file=SOUND, prompt="Names: Ada")
    heard: Any = raw.parse()
    assert heard.text.startswith("Simulated")
    assert heard.usage.input_token_details.audio_tokens == 30
    call = booked(stack, raw.headers)
    assert call["cost_nano"] == nano(
        "hear",
        input=heard.usage.input_token_details.text_tokens,
        audio_input=30,
        output=heard.usage.output_tokens,
    )
    again: Any = client.audio.transcriptions.create(model="hear", file=SOUND)
    assert again.text == heard.text
    raw = client.audio.transcriptions.with_raw_response.create(
        model="hear-seconds", file=SOUND, response_format="verbose_json", timestamp_granularities=["segment"]
    )
    verbose: Any = raw.parse()
    assert (verbose.duration, len(verbose.segments)) == (3.0, 1)
    assert booked(stack, raw.headers)["cost_nano"] == 3 * 100_000
    assert client.audio.transcriptions.create(model="hear-seconds", file=SOUND, response_format="text")
    titles = client.audio.transcriptions.create(model="hear-seconds", file=SOUND, response_format="vtt")
    assert str(titles).startswith("WEBVTT")
    translated: Any = client.audio.translations.create(model="hear-seconds", file=SOUND)
    assert translated.text.startswith("Simulated")


def test_a_transcript_streams(stack: Stack) -> None:
    stream = stack.client().audio.transcriptions.create(model="hear-paced", file=SOUND, stream=True)
    events: list[Any] = list(stream)
    assert events[-1].type == "transcript.text.done"
    assert "".join(one.delta for one in events[:-1]) == events[-1].text
    call = booked(stack, stream.response.headers)
    assert (call["status"], call["streamed"]) == ("ok", True)
    assert call["output_tokens"] == events[-1].usage.output_tokens


def test_a_page_in_place_of_a_transcript_never_reaches_the_caller(stack: Stack) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        stack.client().audio.transcriptions.create(model="hear-html", file=SOUND, response_format="text")
    assert "html" not in str(caught.value.body).lower().replace("page of html", "")


def test_a_large_sound_is_sent_again_after_a_failure(stack: Stack) -> None:
    large = ("long.wav", wav(600), "audio/wav")
    raw = stack.client().audio.transcriptions.with_raw_response.create(model="sound", file=large)
    heard: Any = raw.parse()
    assert heard.usage.input_token_details.audio_tokens == 6_000
    call = booked(stack, raw.headers)
    assert (call["status"], call["attempt_count"], call["audio_input_tokens"]) == ("ok", 2, 6_000)


def test_all_of_it_async_and_at_once(stack: Stack) -> None:
    async def run() -> list[Any]:
        async with stack.aclient() as client:

            async def said() -> bytes:
                async with client.audio.speech.with_streaming_response.create(
                    model="say", voice="alloy", input="Hello"
                ) as streamed:
                    return b"".join([piece async for piece in streamed.iter_bytes()])

            async def streamed() -> list[Any]:
                stream = await client.audio.transcriptions.create(model="hear", file=SOUND, stream=True)
                return [one async for one in stream]

            return await asyncio.gather(
                client.images.generate(model="draw", prompt="x", quality="low"),
                client.images.edit(model="draw", prompt="x", image=PICTURE, quality="low"),
                client.images.create_variation(model="draw-flat", image=PICTURE),
                said(),
                streamed(),
                client.audio.transcriptions.create(model="hear", file=SOUND),
                client.audio.translations.create(model="hear", file=SOUND),
            )

    drawn, edited, varied, sound, events, heard, translated = asyncio.run(run())
    assert drawn.data and edited.data and varied.data
    assert sound[:4] == b"RIFF"
    assert events[-1].text == heard.text
    assert translated.text


def test_the_provider_was_asked_as_often_as_the_ledger_says(stack: Stack) -> None:
    stack.installation.wait_booked()
    rows = stack.installation.rows("SELECT SUM(attempt_count) FROM usage_call")
    assert len(stack.simulator.records()) == rows[0][0]
