"""POST /v1/audio/speech, /v1/audio/transcriptions, /v1/audio/translations. Fields: OpenAI API reference, "Audio"; those not
named here go through untouched, and so do the files.

Speech is billed by ``characters`` or by tokens (``input``, ``audio_output``), hearing by ``seconds`` or by tokens
(``audio_input``, ``output``). Neither sound nor plain text says what it cost: then it is counted, rather more than fewer.
"""

from __future__ import annotations

import math
import re

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.tokens import count_text
from llmops.core.tokens.made import heard_tokens, seconds_of, spoken_tokens, spoken_tokens_of, written_tokens
from llmops.gateway.endpoints.base import (
    Asked,
    Whole,
    encode,
    member,
    read_members,
    text_member,
    voice_of,
    whole_of,
)
from llmops.gateway.endpoints.making import (
    JSON,
    MAX_WORD,
    SOUND,
    TEXT,
    Answer,
    AskedMedia,
    MediaRelay,
    asked_of_form,
    asked_of_json,
    encode_for,
    flag_of_form,
    media_usage,
    upload_for,
)
from llmops.gateway.forms.multipart import Form
from llmops.gateway.forms.spool import Upload
from llmops.gateway.routing import Target
from llmops.gateway.streaming.events import Relay
from llmops.providers.pricing import AUDIO_IN, AUDIO_OUT, Prices, Units
from llmops.usage.records import Media, Tokens

MAX_SPEECH = 128 * 1024
#: Far above what any voice can do; a number without a bound is none that can be reckoned with.
MAX_SPEED = 100
#: Nothing that lasts longer is heard, whatever it says of itself.
MAX_SECONDS = 30 * 24 * 3600
_SPOKEN = frozenset(("speech.audio.done",))
_HEARD = frozenset(("transcript.text.done",))
_FORMATS_OF_TEXT = ("text", "srt", "vtt")
_MARGIN_TOKENS = 16
_TIMES = re.compile(rb"--> *(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})")


class Speech:
    name = "audio.speech"
    path = "/audio/speech"
    has_output = False
    forms = False
    capability = "speech"

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        asked = asked_of_json(members, len(body))
        said = text_member(members, "input", longest=MAX_SPEECH, required=True)
        told = text_member(members, "instructions", longest=MAX_SPEECH)
        speed = member(members, "speed")
        if speed is not None and (isinstance(speed, bool) or not isinstance(speed, int | float)):
            raise InvalidRequest("speed: must be a number.", param="speed", code="invalid_type")
        if speed is not None and not 0 < speed <= MAX_SPEED:
            raise InvalidRequest(f"speed: must be above 0 and at most {MAX_SPEED}.", param="speed")
        asked.stream = text_member(members, "stream_format", longest=MAX_WORD) == "sse"
        asked.answer = SOUND
        asked.uses = AUDIO_OUT
        asked.units = Units(characters=len(said))
        if "voice" in members:
            asked.refers = voice_of(member(members, "voice"), "voice.id")
        asked.prompt_bytes = len(said.encode("utf-8", "replace")) + len(told.encode("utf-8", "replace"))
        asked.details = {
            "texts": (said, told),
            "speed": float(speed or 1),
            "format": text_member(members, "response_format", longest=MAX_WORD),
        }
        return asked

    def read_form(self, form: Form) -> AskedMedia:
        raise NotImplementedError("speech is asked for in JSON")

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        assert isinstance(asked, AskedMedia)
        return encode_for(asked, target)

    def input_bound(self, asked: Asked, target: Target) -> int:
        assert isinstance(asked, AskedMedia)
        return asked.prompt_bytes + _MARGIN_TOKENS

    def count_input(self, asked: Asked, target: Target) -> int:
        assert isinstance(asked, AskedMedia)
        model = target.entry.upstream_model
        return sum(count_text(text, model) for text in asked.details["texts"] if text) + _MARGIN_TOKENS

    def output_bound(self, asked: AskedMedia, target: Target) -> int:
        assert asked.units is not None
        bound = spoken_tokens(asked.units.characters, asked.details["speed"])
        return min(bound, target.entry.max_output_tokens or bound)

    def usage(self, raw: bytes | None) -> Tokens | None:
        return media_usage(raw, output="audio")

    def estimate(self, asked: AskedMedia, target: Target, answer: Answer, asked_tokens: int) -> Tokens:
        made = self.output_bound(asked, target)
        if isinstance(answer, int) and answer:
            kind = asked.details["format"] or str(target.entry.parameters.get("response_format", "mp3"))
            made = min(made, spoken_tokens_of(answer, kind))
        return Tokens(input=asked_tokens, output=made, media=Media(audio_output=made), estimated=True)

    def complete(self, asked: AskedMedia, tokens: Tokens, answer: Answer, prices: Prices | None) -> None:
        assert asked.units is not None
        media = tokens.media = tokens.media or Media()
        media.characters = asked.units.characters
        if prices is not None and not prices.by_tokens:
            tokens.input = tokens.output = media.audio_output = 0
            tokens.estimated = False

    def whole(self, body: bytes) -> Whole | None:
        return Whole()

    def text(self, body: bytes) -> str:
        return ""

    def relay(self, asked: Asked) -> Relay:
        return MediaRelay(_SPOKEN)


class Hearing:
    """Transcriptions and translations."""

    has_output = False
    forms = True
    capability = "transcription"

    def __init__(self, what: str) -> None:
        self.name = f"audio.{what}"
        self.path = f"/audio/{what}"

    def read(self, body: bytes) -> Asked:
        raise InvalidRequest(
            "Send the body as multipart/form-data, with the sound as a file.",
            param="Content-Type",
            code="invalid_content_type",
        )

    def read_form(self, form: Form) -> AskedMedia:
        asked = asked_of_form(form)
        files = form.named("file")
        if not files or not files[0].file:
            raise InvalidRequest(
                "file: missing; it is needed, as a file with a name.",
                param="file",
                code="missing_required_parameter",
            )
        if len(files) > 1:
            raise InvalidRequest(f"file: given {len(files)} times; once is enough.", param="file")
        if not files[0].size:
            raise InvalidRequest("file: it is empty.", param="file")
        kind = form.text("response_format", longest=MAX_WORD)
        asked.stream = flag_of_form(form, "stream")
        asked.answer = TEXT if kind in _FORMATS_OF_TEXT else JSON
        asked.uses = AUDIO_IN
        # Samples of voices may stand in fields, so that every byte may be sound.
        asked.units = Units(seconds=seconds_of(form.size))
        asked.details = {"format": kind}
        return asked

    def hear(self, asked: AskedMedia, said: float | None) -> None:
        """Note how long the sound says that it is: silence takes fewer bytes than anything that is said."""
        assert asked.units is not None
        asked.details["seconds"] = said
        longest = math.ceil(min(said or 0, MAX_SECONDS))
        asked.units = Units(seconds=max(asked.units.seconds, longest))

    def encode(self, asked: Asked, target: Target, cap: int | None) -> Upload:
        assert isinstance(asked, AskedMedia)
        return upload_for(asked, target)

    def input_bound(self, asked: Asked, target: Target) -> int:
        assert isinstance(asked, AskedMedia)
        assert asked.units is not None
        return asked.prompt_bytes + heard_tokens(asked.units.seconds)

    def count_input(self, asked: Asked, target: Target) -> int:
        return self.input_bound(asked, target)

    def output_bound(self, asked: AskedMedia, target: Target) -> int:
        assert asked.units is not None
        bound = written_tokens(asked.units.seconds)
        return min(bound, target.entry.max_output_tokens or bound)

    def usage(self, raw: bytes | None) -> Tokens | None:
        return media_usage(raw, output="text")

    def estimate(self, asked: AskedMedia, target: Target, answer: Answer, asked_tokens: int) -> Tokens:
        assert asked.units is not None
        heard = asked.units.seconds
        told = math.ceil(asked.details.get("seconds") or 0)
        if isinstance(answer, bytes) and (last := _last_moment(answer)):
            # Silence at the end is not in the titles.
            told = max(told, last + 1)
        if told:
            heard = min(heard, told)
        sound = heard_tokens(heard)
        return Tokens(
            input=min(asked_tokens, asked.prompt_bytes + sound),
            output=self._written(asked, target, answer),
            media=Media(audio_input=min(sound, asked_tokens), seconds=heard),
            estimated=True,
        )

    def _written(self, asked: AskedMedia, target: Target, answer: Answer) -> int:
        """A byte-level tokenizer never makes more tokens than there are bytes."""
        bound = self.output_bound(asked, target)
        if isinstance(answer, bytes):
            return min(bound, len(answer))
        if isinstance(answer, Relay):
            return min(bound, len(answer.text().encode("utf-8", "replace")))
        return bound

    def complete(self, asked: AskedMedia, tokens: Tokens, answer: Answer, prices: Prices | None) -> None:
        media = tokens.media = tokens.media or Media()
        if prices is None:
            return
        if prices.seconds is not None and not media.seconds:
            # The usage is in tokens, the price for seconds.
            assert asked.units is not None
            media.seconds, tokens.estimated = asked.units.seconds, True
        elif prices.by_tokens and prices.seconds is None and not tokens.input:
            # The other way round.
            tokens.input = media.audio_input = heard_tokens(media.seconds)
            tokens.output, tokens.estimated = min(written_tokens(media.seconds), _size(answer)), True

    def whole(self, body: bytes) -> Whole | None:
        said = whole_of(body)
        if said is not None and not said.usage:
            said.usage = _duration_in(body)
        return said

    def text(self, body: bytes) -> str:
        return ""

    def relay(self, asked: Asked) -> Relay:
        return MediaRelay(_HEARD)


def _size(answer: Answer) -> int:
    if isinstance(answer, Relay):
        return len(answer.text().encode("utf-8", "replace"))
    return len(answer) if isinstance(answer, bytes) else answer


class _Verbose(msgspec.Struct):
    duration: float | None = None


_decode_verbose = msgspec.json.Decoder(_Verbose).decode


def _duration_in(body: bytes) -> bytes | None:
    """A verbose answer says how long the sound is; as usage in seconds."""
    try:
        seconds = _decode_verbose(body).duration
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return encode({"type": "duration", "seconds": seconds}) if seconds else None


def _last_moment(body: bytes) -> int:
    """The end of the last title of SRT or WebVTT, in seconds rounded up; 0 when there is none."""
    found = _TIMES.findall(body)
    if not found:
        return 0
    hours, minutes, seconds, parts = (int(one or 0) for one in found[-1])
    return hours * 3600 + minutes * 60 + seconds + math.ceil(parts / 1000)


SPEECH = Speech()
TRANSCRIPTIONS = Hearing("transcriptions")
TRANSLATIONS = Hearing("translations")
