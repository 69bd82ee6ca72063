"""What the endpoints of images and audio have in common: bodies that may be forms, answers that may be no JSON, and bills in
other units than tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Protocol, cast

import msgspec

from llmops.core.errors import InvalidRequest, UnprocessableEntity
from llmops.gateway.endpoints.base import (
    MAX_MODEL,
    MAX_USAGE_TOKENS,
    MAX_USER,
    NULL,
    Asked,
    Endpoint,
    Members,
    asked_of,
    encode,
)
from llmops.gateway.forms.multipart import Form
from llmops.gateway.forms.spool import Upload
from llmops.gateway.policing.texts import Path, rewrite_members
from llmops.gateway.routing import Target
from llmops.gateway.streaming.events import DROP, NOT_JSON, PASS, Relay, payload_of
from llmops.providers.pricing import Prices, Units
from llmops.usage.records import Media, Tokens

#: What an answer in one piece is.
JSON, TEXT, SOUND = "json", "text", "sound"
#: Sizes of the members that say how much is to be made.
MAX_WORD = 64
#: An event may hold a whole image in base64.
MAX_MEDIA_EVENT_BYTES = 96 * 1024 * 1024


class Unbounded(Exception):
    """What a request may cost is not bounded; the text says why and ``field`` names the member."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field
        self.why = why


class AskedMedia(Asked):
    """``answer`` is what an answer in one piece is: ``JSON``, ``TEXT`` or ``SOUND``.

    ``details`` holds what the endpoint read of the members that bound the cost.
    """

    __slots__ = ("answer", "details", "form", "prompt_bytes", "replaced")

    def __init__(self, members: Members, size: int, *, model: str, user: str) -> None:
        super().__init__(members, size, model=model, user=user)
        self.answer = JSON
        self.form: Form | None = None
        self.details: dict[str, Any] = {}
        #: fields of the form that are sent with other values
        self.replaced: dict[str, bytes] = {}
        #: bytes of text that go in, at most
        self.prompt_bytes = size
        self.units = Units()


class MediaEndpoint(Endpoint, Protocol):
    """An endpoint whose calls are billed by what was made or heard.

    An ``answer`` is the body of one in one piece, how many bytes of sound came, or the reader of a stream.
    """

    def read_form(self, form: Form) -> AskedMedia:
        """Raises ``InvalidRequest`` naming the part that is wrong."""
        ...

    def output_bound(self, asked: AskedMedia, target: Target) -> int:
        """At least as many tokens as the provider can bill as output. Raises ``Unbounded``."""
        ...

    def estimate(self, asked: AskedMedia, target: Target, answer: Answer, asked_tokens: int) -> Tokens:
        """What an answer without usage was, rather more than less; ``asked_tokens`` went in, as they were counted."""
        ...

    def complete(self, asked: AskedMedia, tokens: Tokens, answer: Answer, prices: Prices | None) -> None:
        """Add what usage does not say, and the prices need: how many images came, characters were spoken, seconds heard."""
        ...


Answer = bytes | int | Relay


def output_bound(endpoint: Endpoint, asked: Asked, target: Target, *, under: str = "") -> int:
    """The most tokens that can come out; the model's window where nothing better bounds them.

    Under what has to be kept (``under`` says what, in words) what is not bounded is refused. Raises ``UnprocessableEntity``.
    """
    try:
        return cast(MediaEndpoint, endpoint).output_bound(cast(AskedMedia, asked), target)
    except Unbounded as unbounded:
        if under:
            raise UnprocessableEntity(
                f"{unbounded.field}: {unbounded.why}. So it cannot be held under {under}.",
                param=unbounded.field,
                code="not_metered",
            ) from None
        return target.entry.context_window


def asked_of_json(members: Members, size: int) -> AskedMedia:
    """Raises ``InvalidRequest``."""
    plain = asked_of(members, size)
    return AskedMedia(members, size, model=plain.model, user=plain.user)


def asked_of_form(form: Form) -> AskedMedia:
    """Raises ``InvalidRequest``."""
    asked = AskedMedia(
        {},
        form.size,
        model=form.text("model", longest=MAX_MODEL, required=bool(form.named("model"))),
        user=form.text("user", longest=MAX_USER),
    )
    asked.form = form
    # Files are no text, whatever they are.
    asked.size = asked.prompt_bytes = sum(part.size for part in form.parts if not part.file)
    return asked


def reworded(endpoint: Endpoint, asked: AskedMedia, changes: Mapping[Path, str]) -> None:
    """Put other texts in the places of some, and read again what they decide: how much goes in and is charged. Raises
    ``InvalidRequest``."""
    if asked.form is None:
        rewrite_members(asked.members, changes)
        again = cast(AskedMedia, endpoint.read(encode(asked.members)))
        asked.size, asked.prompt_bytes = again.size, again.prompt_bytes
        asked.units, asked.details = again.units, again.details
        return
    for path, text in changes.items():
        name = str(path[0])
        value = asked.replaced[name] = text.encode()
        asked.form.check(name, value)
        grew = len(value) - asked.form.named(name)[0].size
        asked.size += grew
        asked.prompt_bytes += grew
        if name in asked.details:
            asked.details[name] = text


_FLAGS = {"true": True, "1": True, "": False, "false": False, "0": False}


def flag_of_form(form: Form, name: str) -> bool:
    """A field that is on. Raises ``InvalidRequest`` for what providers read in different ways."""
    given = form.text(name, longest=MAX_WORD).strip().lower()
    if given not in _FLAGS:
        raise InvalidRequest(f"{name}: must be true or false.", param=name, code="invalid_type")
    return _FLAGS[given]


#: Members that decide what comes out, how much of it and how it is bounded: a caller's own or none, never a default.
_DECIDED = frozenset(("output_format", "partial_images", "frame_count", "svg", "speed", "stream_format"))


def defaults_for(asked: AskedMedia, target: Target) -> dict[str, object]:
    """A model's default parameters that may stand in for what the caller left out."""
    return {
        name: value
        for name, value in target.entry.parameters.items()
        # What an answer looks like was read from the request already; of sounds only the bytes differ.
        if name not in _DECIDED and (name != "response_format" or asked.answer == SOUND)
    }


def encode_for(asked: AskedMedia, target: Target) -> bytes:
    """A JSON body for a target: its own model name, its default parameters where the caller gave none."""
    return encode({**defaults_for(asked, target), **asked.members, "model": target.entry.upstream_model})


def upload_for(asked: AskedMedia, target: Target) -> Upload:
    """The same of a form."""
    form = asked.form
    assert form is not None
    model = target.entry.upstream_model.encode()
    add: list[tuple[str, bytes]] = [] if form.named("model") else [("model", model)]
    for name, value in defaults_for(asked, target).items():
        if form.named(name) or form.named(f"{name}[]"):
            continue
        if isinstance(value, list):
            add += [(f"{name}[]", _field_of(one)) for one in value]
        else:
            add.append((name, _field_of(value)))
    return form.upload({**asked.replaced, "model": model}, add)


def _field_of(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else encode(value)


# ---------------------------------------------------------------------- usage

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_USAGE_TOKENS)]


class _Details(msgspec.Struct):
    text_tokens: _Count | None = None
    image_tokens: _Count | None = None
    audio_tokens: _Count | None = None
    cached_tokens: _Count | None = None
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    """Images call the details ``input_tokens_details``, transcriptions ``input_token_details``."""

    input_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_USAGE_TOKENS)]
    output_tokens: _Count = 0
    input_tokens_details: _Details | None = None
    input_token_details: _Details | None = None
    output_tokens_details: _Details | None = None
    output_token_details: _Details | None = None


class _Duration(msgspec.Struct):
    type: str
    seconds: Annotated[float, msgspec.Meta(gt=0, le=MAX_USAGE_TOKENS)]


_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_duration = msgspec.json.Decoder(_Duration).decode
_NOTHING = _Details()


def media_usage(raw: bytes | None, *, output: str) -> Tokens | None:
    """Billed tokens, or seconds, of a ``usage`` member, or the sum of a list of them; ``output`` is the class of output that
    it does not name: ``text``, ``image`` or ``audio``. None when there is none that can be believed."""
    if not raw or raw == NULL:
        return None
    if raw.startswith(b"["):
        stated = [bytes(one) for one in _decode_list(raw)]
        return _sum([None if one[:1] == b"[" else media_usage(one, output=output) for one in stated])
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _duration(raw)
    asked = usage.input_tokens_details or usage.input_token_details or _NOTHING
    answered = usage.output_tokens_details or usage.output_token_details
    if answered is None:
        made = {"image": 0, "audio": 0} | {output: usage.output_tokens}
    else:
        made = {"image": answered.image_tokens or 0, "audio": answered.audio_tokens or 0}
        if output != "text" and answered.text_tokens is None and not (made["image"] or made["audio"]):
            made[output] = usage.output_tokens
    return Tokens(
        input=usage.input_tokens,
        cached=min(asked.cached_tokens or 0, usage.input_tokens),
        output=usage.output_tokens,
        reasoning=min((answered or _NOTHING).reasoning_tokens or 0, usage.output_tokens),
        media=Media(
            audio_input=min(asked.audio_tokens or 0, usage.input_tokens),
            image_input=min(asked.image_tokens or 0, usage.input_tokens),
            audio_output=min(made["audio"], usage.output_tokens),
            image_output=min(made["image"], usage.output_tokens),
        ),
    )


def _sum(stated: list[Tokens | None]) -> Tokens | None:
    total: Tokens | None = None
    for one in stated:
        if one is None:
            return None
        if total is None:
            total = one
            continue
        total.input += one.input
        total.cached += one.cached
        total.output += one.output
        total.reasoning += one.reasoning
        assert total.media is not None
        assert one.media is not None
        for name in one.media.__struct_fields__:
            setattr(total.media, name, getattr(total.media, name) + getattr(one.media, name))
    return total


def _duration(raw: bytes) -> Tokens | None:
    try:
        heard = _decode_duration(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return Tokens(media=Media(seconds=math.ceil(heard.seconds))) if heard.type == "duration" else None


# ---------------------------------------------------------------------- events


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


_decode_event = msgspec.json.Decoder(_Event).decode


class MediaRelay(Relay):
    """Ends with the last of ``wanted`` events whose type is one of ``ends``; an ``error`` event breaks it.

    ``usage`` is the list of what those events state. ``media_bytes``: bytes of sound or images in what came so far.
    """

    __slots__ = ("_ends_with", "_wanted", "ended", "media_bytes")
    largest = MAX_MEDIA_EVENT_BYTES

    def __init__(self, ends: frozenset[str], wanted: int = 1) -> None:
        super().__init__()
        self._ends_with = ends
        self._wanted = wanted
        self.ended = 0
        self.media_bytes = 0

    def end(self) -> bytes:
        over = self.done or bool(self.broken)
        unfinished = b"".join(self._buffer).strip()
        held = super().end()
        if not over and self.ended and not unfinished:
            # Fewer came than were asked for, and the provider ended in good order.
            self.broken, self.done = "", True
        return held

    def _ends(self, event: bytes) -> bool:
        self._event(event)
        if self.done and not event.endswith((b"\n", b"\r")):
            self.tail = event + b"\n\n"
        return self.done

    def _event(self, event: bytes) -> object:
        payload = payload_of(event)
        if payload is None or payload == b"[DONE]":
            return PASS
        try:
            read = _decode_event(payload)
        except msgspec.ValidationError:
            return self._odd(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.broken = NOT_JSON
            return DROP
        failed = bool(read.error) and bytes(read.error) != NULL
        if read.type == "error" or failed:
            self._provider_error(bytes(read.error) if failed else payload)
            return DROP
        self.events += 1
        if read.type in self._ends_with:
            self.ended += 1
            if read.usage and bytes(read.usage) != NULL:
                stated = bytes(read.usage)
                self.usage = (
                    b"[" + stated + b"]" if self.usage is None else self.usage[:-1] + b"," + stated + b"]"
                )
            if self.ended >= self._wanted:
                self.done, self.tail = True, event
                return DROP
        elif isinstance(read.delta, str):
            self._said(read.delta)
        else:
            self.media_bytes += len(payload) * 3 // 4
        return PASS
