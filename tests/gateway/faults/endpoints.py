"""What the matrix knows of each endpoint: how it is asked, what a provider rightly answers, and how the SDK calls it.

To put an endpoint into the matrix: an entry in ``ENDPOINTS``, and rows in ``table.py`` where it differs from the others.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import openai

from tests.gateway import responding
from tests.gateway.rig import DONE, chunk, completion, usage

#: The member is left out.
ABSENT: Any = object()
Call = Callable[[openai.AsyncOpenAI, str, bool], Awaitable[Any]]


@dataclass(frozen=True)
class Endpoint:
    """``whole`` makes the body of an answer and ``events`` the pieces of a stream, the last one its proper end, both with
    the given ``usage`` member. ``call`` makes the SDK ask for a model, streamed or not, and read to the end.

    ``usage`` states tokens (input, output) in the provider's words; ``cost`` is what they cost in nanodollars at the rig's
    prices. ``kind`` is the media type of an answer in one piece: one that is no JSON states no usage.
    """

    name: str
    path: str
    call: Call
    whole: Callable[[Any], dict[str, Any] | bytes]
    events: Callable[[Any], list[bytes]] | None = None
    usage: Callable[[int, int], dict[str, Any]] = usage
    has_output: bool = True
    #: what the last event of a whole stream holds, and no other
    end: bytes = b"data: [DONE]"
    kind: str = "application/json"
    #: whatever comes of it, nothing is billed
    free: bool = False

    def body(self, used: Any) -> bytes:
        """An answer in one piece."""
        made = self.whole(used)
        return made if isinstance(made, bytes) else json.dumps(made).encode()

    def states(self, streamed: bool) -> bool:
        """Whether a good answer says what it used."""
        return streamed or self.kind == "application/json"

    def cost(self, tokens: tuple[int, int]) -> int:
        return tokens[0] * 1_000 + (tokens[1] * 10_000 if self.has_output else 0)


def _with_usage(answer: dict[str, Any], used: Any) -> dict[str, Any]:
    return {name: value for name, value in (answer | {"usage": used}).items() if value is not ABSENT}


async def _chat(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    messages: list[Any] = [{"role": "user", "content": "Say hello"}]
    if not streamed:
        return await client.chat.completions.create(model=model, messages=messages)
    stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
    return [one async for one in stream]


def _chat_whole(used: Any) -> dict[str, Any]:
    return _with_usage(completion("Hello there, who asks?"), used)


def _chat_events(used: Any) -> list[bytes]:
    pieces = [chunk(text) for text in ("Hello", " there", ", who", " asks?")]
    pieces.append(chunk(finish="stop"))
    if used is not ABSENT:
        pieces.append(chunk(choices=[], used=used))
    return [*pieces, DONE]


def _embedding_usage(prompt: int, output: int) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "total_tokens": prompt}


async def _embed(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    return await client.embeddings.create(model=model, input="Say hello", encoding_format="float")


def _embedded(used: Any) -> dict[str, Any]:
    answer = {
        "object": "list",
        "model": "sim-small-2024",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    }
    return _with_usage(answer, used)


def _media_usage(given: int, output: int) -> dict[str, Any]:
    return {"input_tokens": given, "output_tokens": output, "total_tokens": given + output}


def _event(kind: str, used: Any = ABSENT, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(_with_usage({'type': kind} | members, used))}\n\n".encode()


async def _draw(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    if not streamed:
        return await client.images.generate(model=model, prompt="A cat")
    stream = await client.images.generate(model=model, prompt="A cat", stream=True, partial_images=2)
    return [one async for one in stream]


def _drawn(used: Any) -> dict[str, Any]:
    return _with_usage({"created": 1, "data": [{"b64_json": "QUJD" * 20}]}, used)


def _drawn_events(used: Any) -> list[bytes]:
    partial = [
        _event("image_generation.partial_image", partial_image_index=n, b64_json="QUJD") for n in range(3)
    ]
    return [*partial, _event("image_generation.completed", used, b64_json="QUJD")]


async def _edit(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    image = ("cat.png", b"\x89PNG not really", "image/png")
    if not streamed:
        return await client.images.edit(model=model, prompt="A hat", image=image)
    stream = await client.images.edit(model=model, prompt="A hat", image=[image, image], stream=True)
    return [one async for one in stream]


def _edited_events(used: Any) -> list[bytes]:
    return [one.replace(b"image_generation", b"image_edit") for one in _drawn_events(used)]


async def _vary(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    return await client.images.create_variation(
        model=model, image=("cat.png", b"\x89PNG not really", "image/png")
    )


async def _hear(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    sound = ("speech.wav", b"RIFF not really" * 50, "audio/wav")
    if not streamed:
        return await client.audio.transcriptions.create(model=model, file=sound)
    stream = await client.audio.transcriptions.create(model=model, file=sound, stream=True)
    return [one async for one in stream]


def _heard(used: Any) -> dict[str, Any]:
    return _with_usage({"text": "Hello there, who asks?"}, used)


def _heard_events(used: Any) -> list[bytes]:
    pieces = [_event("transcript.text.delta", delta=text) for text in ("Hello", " there", ", who", " asks?")]
    return [*pieces, _event("transcript.text.done", used, text="Hello there, who asks?")]


async def _respond(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    if not streamed:
        return await client.responses.create(model=model, input="Say hello")
    stream = await client.responses.create(model=model, input="Say hello", stream=True)
    return [one async for one in stream]


def _responded(used: Any) -> dict[str, Any]:
    return _with_usage(responding.a_response("Hello there, who asks?"), used)


def _responded_events(used: Any) -> list[bytes]:
    *before, _ = responding.a_stream("Hello", " there", ", who", " asks?")
    return [*before, _event("response.completed", sequence_number=5, response=_responded(used))]


async def _compact(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    return await client.responses.compact(model=model, input="Say hello")


def _compacted(used: Any) -> dict[str, Any]:
    answer = {
        "id": "resp_1",
        "object": "response.compaction",
        "created_at": 1,
        "output": [responding.message("Hello there, who asks?")],
    }
    return _with_usage(answer, used)


async def _moderate(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    return await client.moderations.create(model=model, input="Say hello")


def _moderated(used: Any) -> dict[str, Any]:
    verdict = {"flagged": False, "categories": {}, "category_scores": {}}
    return _with_usage({"id": "modr-1", "model": "sim-small-2024", "results": [verdict]}, used)


async def _translate(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    return await client.audio.translations.create(model=model, file=("speech.wav", b"RIFF" * 50, "audio/wav"))


async def _speak(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    form: Any = "sse" if streamed else "audio"
    return await client.audio.speech.create(model=model, input="Say hello", voice="alloy", stream_format=form)


def _spoken(used: Any) -> bytes:
    return b"ID3" + bytes(range(256)) * 4


def _spoken_events(used: Any) -> list[bytes]:
    return [
        *(_event("speech.audio.delta", audio="QUJD") for _ in range(4)),
        _event("speech.audio.done", used),
    ]


async def _count(client: openai.AsyncOpenAI, model: str, streamed: bool) -> Any:
    return await client.responses.input_tokens.count(model=model, input="Say hello")


def _counted(used: Any) -> dict[str, Any]:
    return _with_usage({"object": "response.input_tokens", "input_tokens": 10}, used)


ENDPOINTS = {
    one.name: one
    for one in (
        Endpoint("chat", "/chat/completions", _chat, _chat_whole, _chat_events),
        Endpoint(
            "responses",
            "/responses",
            _respond,
            _responded,
            _responded_events,
            usage=_media_usage,
            end=b"response.completed",
        ),
        Endpoint("compact", "/responses/compact", _compact, _compacted, usage=_media_usage),
        Endpoint("variations", "/images/variations", _vary, _drawn, usage=_media_usage),
        Endpoint(
            "moderations", "/moderations", _moderate, _moderated, usage=_embedding_usage, has_output=False
        ),
        Endpoint("translations", "/audio/translations", _translate, _heard, usage=_media_usage),
        Endpoint("embeddings", "/embeddings", _embed, _embedded, usage=_embedding_usage, has_output=False),
        Endpoint(
            "images",
            "/images/generations",
            _draw,
            _drawn,
            _drawn_events,
            usage=_media_usage,
            end=b"image_generation.completed",
        ),
        Endpoint(
            "edits",
            "/images/edits",
            _edit,
            _drawn,
            _edited_events,
            usage=_media_usage,
            end=b"image_edit.completed",
        ),
        Endpoint(
            "transcriptions",
            "/audio/transcriptions",
            _hear,
            _heard,
            _heard_events,
            usage=_media_usage,
            end=b"transcript.text.done",
        ),
        Endpoint(
            "speech",
            "/audio/speech",
            _speak,
            _spoken,
            _spoken_events,
            usage=_media_usage,
            end=b"speech.audio.done",
            kind="audio/mpeg",
        ),
        Endpoint("input_tokens", "/responses/input_tokens", _count, _counted, free=True),
    )
}
