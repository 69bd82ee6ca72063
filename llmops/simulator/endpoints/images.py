"""POST /v1/images/generations, /v1/images/edits, /v1/images/variations: a picture of one colour, whose tokens are those of
OpenAI's table for its size and quality. ``sim-image-flat`` is billed by the image and states no usage."""

from __future__ import annotations

import base64
import time
from typing import Any

import msgspec

from llmops.core.tokens.made import PARTIAL_IMAGE, image_tokens
from llmops.simulator.asking import behaviour_of
from llmops.simulator.behaviour import Behaviour
from llmops.simulator.counting import counted
from llmops.simulator.delivery import Pace, Stream, before_answering, plain
from llmops.simulator.endpoints import forms
from llmops.simulator.endpoints.made import Made, picture
from llmops.simulator.errors import wrong
from llmops.simulator.exchange import Exchange
from llmops.simulator.generation import Answer, Choice, Delta
from llmops.simulator.ledger import Usage

_QUALITIES = ("low", "medium", "high", "auto", "standard", "hd")
#: Tokens of an image that goes in.
_INPUT_IMAGE = 323
_FLAT = "sim-image-flat"
_encode = msgspec.json.Encoder().encode


async def generate(exchange: Exchange) -> None:
    await _answer(exchange, await forms.read(exchange), "image_generation")


async def edit(exchange: Exchange) -> None:
    sent = await forms.read(exchange)
    images = sent.fields.get("images") or sent.fields.get("image") or []
    await _answer(exchange, sent, "image_edit", images=len(sent.files) + len(images))


async def vary(exchange: Exchange) -> None:
    sent = await forms.read(exchange, json=False)
    await _answer(exchange, sent, "image_variation", images=len(sent.files))


async def _answer(exchange: Exchange, sent: forms.Sent, kind: str, images: int = 0) -> None:
    model = forms.model_of(exchange, sent)
    exchange.stream = sent.flag("stream")
    behaviour, profile = behaviour_of(exchange, model, "images")
    prompt = sent.text("prompt")
    if kind != "image_generation" and not images:
        raise wrong("Missing required parameter: 'image'.", "image", "missing_required_parameter")
    if kind != "image_variation" and not prompt:
        raise wrong("Missing required parameter: 'prompt'.", "prompt", "missing_required_parameter")
    quality, size = sent.text("quality", "auto"), sent.text("size", "auto")
    if quality not in _QUALITIES:
        raise wrong(f"Invalid 'quality': it is one of {', '.join(_QUALITIES)}.", "quality", "invalid_value")
    count, partial = sent.number("n", 1, 1, 10), sent.number("partial_images", 0, 0, 3)
    flat = profile.name == _FLAT
    made = _made(
        behaviour,
        prompt,
        count,
        partial if exchange.stream else 0,
        images,
        flat,
        image_tokens("sim-image", size, quality),
    )
    pace = Pace.of(behaviour, profile, len(prompt))
    if await before_answering(exchange, behaviour, pace):
        return
    dialect = ImageDialect(kind, prompt.encode("utf-8", "surrogatepass"), count, images, flat)
    if exchange.stream:
        await Stream(exchange, behaviour, pace, made, dialect).run()
    else:
        await plain(exchange, behaviour, pace, made, dialect)


def _made(
    behaviour: Behaviour, prompt: str, count: int, partial: int, images: int, flat: bool, each: int | None
) -> Made:
    tokens = (each or 0) if behaviour.tokens is None else behaviour.tokens
    total = Usage(images=count) if flat else Usage(
        prompt=max(1, counted(prompt)) + images * _INPUT_IMAGE,
        completion=count * (tokens + partial * PARTIAL_IMAGE),
    )  # fmt: skip
    deltas = [Delta("partial", str(number)) for number in range(partial)]
    choice = Choice(deltas=deltas, finish="stop", plain=False)
    return Made(
        choices=[choice], prompt_tokens=total.prompt, cached=0, cache_write=0, reasoning=0, total=total
    )


class ImageDialect:
    """An images response, and the events ``image_generation.*`` or ``image_edit.*``."""

    id = ""

    def __init__(self, kind: str, said: bytes, count: int, images: int, flat: bool) -> None:
        self.kind, self.said, self.count, self.images, self.flat = kind, said, count, images, flat
        self.created = int(time.time())

    def streams_usage(self) -> bool:
        return not self.flat

    def usage(self, usage: Usage) -> dict[str, Any]:
        seen = self.images * _INPUT_IMAGE
        return {
            "total_tokens": usage.prompt + usage.completion,
            "input_tokens": usage.prompt,
            "output_tokens": usage.completion,
            "input_tokens_details": {"text_tokens": usage.prompt - seen, "image_tokens": seen},
        }

    def whole(self, answer: Answer, usage: dict[str, Any] | None) -> bytes:
        shown: dict[str, Any] = {
            "created": self.created,
            "data": [{"b64_json": self._shown(number)} for number in range(self.count)],
        }
        return _encode(shown if usage is None or self.flat else shown | {"usage": usage})

    def opening(self, answer: Answer) -> bytes:
        return b""

    def piece(self, index: int, delta: Delta) -> bytes:
        number = int(delta.text)
        return self._event(
            "partial_image", {"partial_image_index": number, "b64_json": self._shown(-1 - number)}
        )

    def closing(self, answer: Answer, usage: dict[str, Any] | None) -> bytes:
        more = {} if usage is None else {"usage": usage}
        # What several images cost stands with the last of them.
        return b"".join(
            self._event(
                "completed",
                {"b64_json": self._shown(number)} | (more if number == self.count - 1 else {}),
            )
            for number in range(self.count)
        )

    def _event(self, kind: str, members: dict[str, Any]) -> bytes:
        name = f"{self.kind}.{kind}"
        event = {"type": name, "created_at": self.created, "size": "1024x1024", "output_format": "png"}
        event |= {"quality": "low", "background": "opaque"} | members
        return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode(event))

    def _shown(self, number: int) -> str:
        return base64.b64encode(picture(self.said, number)).decode()
