"""POST /v1/images/generations, /v1/images/edits, /v1/images/variations. Fields: OpenAI API reference, "Images"; those not
named here go through untouched.

A model is billed by tokens (``image_output`` and so on; the sizes and qualities of published tables bound them, or the
model's largest output for each image) or by the image (``images``: the price of the dearest size that it may make).
"""

from __future__ import annotations

from typing import Any

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.tokens import count_text
from llmops.core.tokens.made import INPUT_IMAGE, PARTIAL_IMAGE, image_tokens
from llmops.gateway.endpoints.base import (
    MAX_TOKENS,
    Asked,
    Members,
    Reference,
    Whole,
    count_member,
    flag_member,
    member,
    read_members,
    text_member,
    whole_of,
)
from llmops.gateway.endpoints.making import (
    MAX_WORD,
    Answer,
    AskedMedia,
    MediaRelay,
    Unbounded,
    asked_of_form,
    asked_of_json,
    encode_for,
    flag_of_form,
    media_usage,
    upload_for,
)
from llmops.gateway.forms.multipart import Form
from llmops.gateway.forms.spool import Upload
from llmops.gateway.kept.owners import FILE
from llmops.gateway.routing import Target
from llmops.gateway.streaming.events import Relay
from llmops.providers.pricing import IMAGE_IN, IMAGE_OUT, Prices, Units
from llmops.usage.records import Media, Tokens

MAX_IMAGES = 128
MAX_PARTIAL = 16
MAX_PROMPT = 256 * 1024
_PICTURES = ("images", "image", "mask")
_WORDS = ("size", "quality", "output_format")
_ENDS = frozenset(("image_generation.completed", "image_edit.completed"))
#: A few tokens that a provider puts around a prompt.
_MARGIN_TOKENS = 64


class Images:
    """One of the three; ``forms``: whether its bodies may be forms, ``only_forms``: whether they must be."""

    has_output = False
    capability = "images"

    def __init__(self, what: str, *, forms: bool, only_forms: bool = False) -> None:
        self.name = f"images.{what}"
        self.path = f"/images/{what}"
        self.forms = forms
        self._only_forms = only_forms

    def read(self, body: bytes) -> Asked:
        if self._only_forms:
            raise InvalidRequest(
                "Send the body as multipart/form-data, with the image as a file.",
                param="Content-Type",
                code="invalid_content_type",
            )
        members = read_members(body)
        asked = asked_of_json(members, len(body))
        asked.stream = flag_member(members, "stream")
        asked.choices = count_member(members, "n", largest=MAX_IMAGES) or 1
        partial = member(members, "partial_images")
        if partial:
            partial = count_member(members, "partial_images", largest=MAX_PARTIAL)
        asked.details = {name: text_member(members, name, longest=MAX_WORD) for name in _WORDS}
        asked.details["partial"] = partial or 0
        asked.details["prompt"] = text_member(members, "prompt", longest=MAX_PROMPT)
        images, data, files = _images_of(members)
        asked.refers = tuple(files)
        self._see(asked, images, data)
        return asked

    def read_form(self, form: Form) -> AskedMedia:
        asked = asked_of_form(form)
        asked.stream = flag_of_form(form, "stream")
        asked.choices = _count_of(form, "n", MAX_IMAGES) or 1
        asked.details = {name: form.text(name, longest=MAX_WORD) for name in _WORDS}
        asked.details["partial"] = _count_of(form, "partial_images", MAX_PARTIAL)
        asked.details["prompt"] = form.text("prompt", longest=MAX_PROMPT)
        # To some readers a field is an image as well as a file is, by its name.
        images = sum(part.file or part.name.partition("[")[0] in _PICTURES for part in form.parts)
        if not any(part.file for part in form.parts):
            raise InvalidRequest(
                "image: missing; it is needed.", param="image", code="missing_required_parameter"
            )
        self._see(asked, images, 0)
        return asked

    @staticmethod
    def _see(asked: AskedMedia, images: int, data: int) -> None:
        """Note how many images go in, of which ``data`` bytes lie in the body as text."""
        asked.details["images"] = images
        asked.prompt_bytes -= data
        asked.size = asked.prompt_bytes
        asked.uses = IMAGE_OUT | (IMAGE_IN if images else 0)
        asked.units = Units(images=asked.choices)

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes | Upload:
        assert isinstance(asked, AskedMedia)
        return encode_for(asked, target) if asked.form is None else upload_for(asked, target)

    def input_bound(self, asked: Asked, target: Target) -> int:
        assert isinstance(asked, AskedMedia)
        return int(asked.prompt_bytes + asked.details["images"] * INPUT_IMAGE)

    def count_input(self, asked: Asked, target: Target) -> int:
        assert isinstance(asked, AskedMedia)
        text = count_text(asked.details["prompt"], target.entry.upstream_model)
        counted = text + _MARGIN_TOKENS + asked.details["images"] * INPUT_IMAGE
        return int(min(counted, self.input_bound(asked, target)))

    def output_bound(self, asked: AskedMedia, target: Target) -> int:
        found, entry = asked.details, target.entry
        if found["output_format"] in ("svg", "gif"):
            raise Unbounded(
                "output_format",
                f"how many tokens an image as {found['output_format']} takes is not published",
            )
        size, quality = (found[name] or str(entry.parameters.get(name, "")) for name in ("size", "quality"))
        each = image_tokens(entry.upstream_model, size, quality)
        if entry.max_output_tokens:
            each = min(each or MAX_TOKENS, entry.max_output_tokens)
        if each is None:
            raise Unbounded(
                "quality" if quality in ("xhigh", "max") else "model",
                f"how many tokens an image of {entry.upstream_model!r} takes is not published; give the model a maximum "
                "output in the console, the most tokens of one image",
            )
        return int(asked.choices * (each + found["partial"] * PARTIAL_IMAGE))

    def usage(self, raw: bytes | None) -> Tokens | None:
        return media_usage(raw, output="image")

    def estimate(self, asked: AskedMedia, target: Target, answer: Answer, asked_tokens: int) -> Tokens:
        try:
            made = self.output_bound(asked, target)
        except Unbounded:
            made = target.entry.context_window
        seen = min(asked_tokens, asked.details["images"] * INPUT_IMAGE)
        return Tokens(
            input=asked_tokens, output=made, media=Media(image_input=seen, image_output=made), estimated=True
        )

    def complete(self, asked: AskedMedia, tokens: Tokens, answer: Answer, prices: Prices | None) -> None:
        media = tokens.media = tokens.media or Media()
        if isinstance(answer, bytes):
            media.images = _images_in(answer)
        else:
            # What a provider that broke off made beyond what it sent, nobody knows.
            media.images = answer.ended if isinstance(answer, MediaRelay) and answer.done else asked.choices
        if prices is not None and not prices.by_tokens:
            tokens.input = tokens.output = media.image_input = media.image_output = 0
            tokens.estimated = not isinstance(answer, bytes) and not (
                isinstance(answer, Relay) and answer.done
            )

    def whole(self, body: bytes) -> Whole | None:
        return whole_of(body)

    def text(self, body: bytes) -> str:
        return ""

    def relay(self, asked: Asked) -> Relay:
        return MediaRelay(_ENDS, asked.choices)


def _count_of(form: Form, name: str, largest: int) -> int:
    """A whole number from 0 to ``largest`` in a field; 0 when it is not there."""
    given = form.text(name, longest=MAX_WORD).strip()
    if not given:
        return 0
    if not given.isascii() or not given.isdecimal():
        raise InvalidRequest(f"{name}: must be a whole number.", param=name, code="invalid_type")
    if int(given) > largest:
        raise InvalidRequest(f"{name}: {given} is more than the {largest} that are possible.", param=name)
    return int(given)


def _images_of(members: Members) -> tuple[int, int, list[Reference]]:
    """How many images a JSON body names, the characters of those that it holds, and the files that the provider keeps."""
    found, data = 0, 0
    files: list[Reference] = []
    given = [member(members, name) for name in _PICTURES if name in members]
    for one in [inner for outer in given for inner in (outer if isinstance(outer, list) else [outer])]:
        if one is None:
            continue
        found += 1
        url: Any = one
        if isinstance(one, dict):
            if isinstance(file := one.get("file_id"), str):
                files.append(Reference(FILE, file, "file_id", "not_found", "file"))
            url = one.get("image_url")
        if isinstance(url, str) and url.startswith("data:"):
            data += len(url)
    return found, data, files


class _Answer(msgspec.Struct):
    data: list[msgspec.Raw] | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def _images_in(body: bytes) -> int:
    try:
        return len(_decode_answer(body).data or ())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 0


GENERATIONS = Images("generations", forms=False)
EDITS = Images("edits", forms=True)
VARIATIONS = Images("variations", forms=True, only_forms=True)
