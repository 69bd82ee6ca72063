"""POST /v1/audio/transcriptions and /v1/audio/translations: prose that depends on the bytes of the sound alone.

``sim-whisper`` is billed by the second and does not stream; other models by tokens, 10 for each second.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgspec

from llmops.simulator.asking import behaviour_of
from llmops.simulator.counting import counted
from llmops.simulator.delivery import Pace, Stream, before_answering, in_one_piece, plain, wait
from llmops.simulator.endpoints import forms
from llmops.simulator.endpoints.made import Made, seconds_in
from llmops.simulator.errors import wrong
from llmops.simulator.exchange import Exchange
from llmops.simulator.generation import Answer, Ask, Delta, answer
from llmops.simulator.ledger import Usage

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
_TOKENS_A_SECOND = 10
_WHISPER = "sim-whisper"
_encode = msgspec.json.Encoder().encode


async def transcribe(exchange: Exchange) -> None:
    await _answer(exchange, "transcribe")


async def translate(exchange: Exchange) -> None:
    await _answer(exchange, "translate")


async def _answer(exchange: Exchange, task: str) -> None:
    sent = await forms.read(exchange, json=False)
    model = forms.model_of(exchange, sent)
    behaviour, profile = behaviour_of(exchange, model, "transcription")
    sounds = [content for name, content in sent.files if name == "file"]
    if len(sounds) != 1 or not sounds[0]:
        raise wrong("Missing required parameter: 'file'.", "file", "missing_required_parameter")
    kind = sent.text("response_format", "json")
    if kind not in _FORMATS:
        raise wrong(
            f"Invalid 'response_format': it is one of {', '.join(_FORMATS)}.",
            "response_format",
            "invalid_value",
        )
    by_seconds = profile.name == _WHISPER
    exchange.stream = sent.flag("stream") and not by_seconds and task == "transcribe"
    seconds = seconds_in(sounds[0])
    prompt = counted(sent.text("prompt")) if sent.text("prompt") else 0
    ask = Ask(
        prompt=blake2b(sounds[0]).digest() + task.encode(),
        prompt_tokens=prompt + seconds * _TOKENS_A_SECOND,
        last="",
        last_role="user",
    )
    heard = answer(ask, behaviour, profile)
    usage = Usage(seconds=seconds) if by_seconds else heard.usage()
    made = Made(**{name: getattr(heard, name) for name in heard.__struct_fields__}, total=usage)
    pace = Pace.of(behaviour, profile, len(sounds[0]))
    if await before_answering(exchange, behaviour, pace):
        return
    dialect = HearingDialect(kind, task, seconds, prompt, by_seconds)
    if exchange.stream:
        await Stream(exchange, behaviour, pace, made, dialect).run()
    elif kind in ("text", "srt", "vtt"):
        if await wait(exchange, pace.whole(behaviour, usage.completion), lambda share: made.usage(0)):
            await in_one_piece(exchange, behaviour.fault, dialect.shown(made), usage, None, content=_TEXT)
    else:
        await plain(exchange, behaviour, pace, made, dialect)


class HearingDialect:
    """Transcripts in the formats that OpenAI has, and the events ``transcript.text.*``."""

    id = ""

    def __init__(self, kind: str, task: str, seconds: int, prompt: int, by_seconds: bool) -> None:
        self.kind, self.task, self.seconds = kind, task, seconds
        self.prompt, self.by_seconds = prompt, by_seconds

    def streams_usage(self) -> bool:
        return True

    def usage(self, usage: Usage) -> dict[str, Any]:
        if self.by_seconds:
            return {"type": "duration", "seconds": self.seconds}
        return {
            "type": "tokens",
            "input_tokens": usage.prompt,
            "output_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            "input_token_details": {"text_tokens": self.prompt, "audio_tokens": usage.prompt - self.prompt},
        }

    def whole(self, answer: Answer, usage: dict[str, Any] | None) -> bytes:
        said = _said(answer)
        shown: dict[str, Any] = {"text": said}
        if self.kind == "verbose_json":
            segment = {
                "id": 0,
                "seek": 0,
                "start": 0.0,
                "end": float(self.seconds),
                "text": said,
                "tokens": [],
            }
            segment |= {
                "temperature": 0.0,
                "avg_logprob": -0.1,
                "compression_ratio": 1.0,
                "no_speech_prob": 0.0,
            }
            shown |= {"task": self.task, "language": "english", "duration": float(self.seconds)}
            shown["segments"] = [segment]
        if self.kind == "diarized_json":
            speech = {"type": "transcript.text.segment", "id": "seg_0", "speaker": "A", "text": said}
            shown |= {"task": "transcribe", "duration": float(self.seconds)}
            shown["segments"] = [speech | {"start": 0.0, "end": float(self.seconds)}]
        return _encode(shown if usage is None else shown | {"usage": usage})

    def shown(self, answer: Answer) -> bytes:
        """As text with or without times."""
        said = _said(answer)
        hours, rest = divmod(self.seconds, 3600)
        end = f"{hours:02}:{rest // 60:02}:{rest % 60:02}"
        if self.kind == "srt":
            return f"1\n00:00:00,000 --> {end},000\n{said}\n\n".encode()
        if self.kind == "vtt":
            return f"WEBVTT\n\n00:00:00.000 --> {end}.000\n{said}\n\n".encode()
        return said.encode() + b"\n"

    def opening(self, answer: Answer) -> bytes:
        return b""

    def piece(self, index: int, delta: Delta) -> bytes:
        return _event("delta", {"delta": delta.text})

    def closing(self, answer: Answer, usage: dict[str, Any] | None) -> bytes:
        more = {} if usage is None else {"usage": usage}
        return _event("done", {"text": _said(answer)} | more)


def _said(answer: Answer) -> str:
    return answer.choices[0].text or answer.choices[0].refusal or ""


def _event(kind: str, members: dict[str, Any]) -> bytes:
    name = f"transcript.text.{kind}"
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _encode({"type": name} | members))
