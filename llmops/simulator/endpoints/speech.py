"""POST /v1/audio/speech: a tone as long as the text takes to say, always as WAV, in pieces as it is made or as events.

``sim-tts`` is billed by the character, other models by tokens: 21 for each second.
"""

from __future__ import annotations

import asyncio
import base64
import math

import msgspec

from llmops.core.tokens.made import spoken_tokens_of
from llmops.simulator.asking import behaviour_of
from llmops.simulator.behaviour import Fault
from llmops.simulator.counting import counted
from llmops.simulator.delivery import Pace, before_answering, falsified
from llmops.simulator.endpoints.made import seconds_to_say, sound
from llmops.simulator.errors import wrong, wrong_shape
from llmops.simulator.exchange import EVENTS, Departure, Exchange
from llmops.simulator.ledger import COMPLETED, DROPPED, Usage

_LONGEST = 4_096
_WAV = (b"content-type", b"audio/wav")
_PIECE = 2_000
_A_SECOND = 48_000
_encode = msgspec.json.Encoder().encode


class SpeechRequest(msgspec.Struct):
    model: str
    input: str
    voice: str | dict[str, str]
    instructions: str | None = None
    response_format: str | None = None
    speed: float | None = None
    stream_format: str | None = None


_decode = msgspec.json.Decoder(SpeechRequest).decode


async def create(exchange: Exchange) -> None:
    try:
        request = _decode(await exchange.body())
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    exchange.model, exchange.stream = request.model, request.stream_format == "sse"
    behaviour, profile = behaviour_of(exchange, request.model, "speech")
    if not request.input or len(request.input) > _LONGEST:
        raise wrong(
            f"Invalid 'input': it has 1 to {_LONGEST} characters.", "input", "string_above_max_length"
        )
    pace = Pace.of(behaviour, profile, len(request.input))
    if await before_answering(exchange, behaviour, pace):
        return
    made = sound(request.input)
    pieces = [made[at : at + _PIECE] for at in range(0, len(made), _PIECE)]
    if profile.name == "sim-tts":
        usage, served = Usage(characters=len(request.input)), None
    else:
        tokens = spoken_tokens_of(math.ceil(seconds_to_say(len(request.input)) * _A_SECOND), "pcm")
        usage = Usage(prompt=counted(request.input) + counted(request.instructions or ""), completion=tokens)
        stated = {
            "input_tokens": usage.prompt,
            "output_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
        }
        served = falsified(stated, behaviour.fault.wrong_usage)
    last = b""
    if exchange.stream:
        pieces = [_event("delta", audio=base64.b64encode(piece).decode()) for piece in pieces]
        last = _event("done", **({} if served is None else {"usage": served}))
    await _send(exchange, behaviour.fault, pace, [*pieces, last] if last else pieces, usage)


def _event(kind: str, **members: object) -> bytes:
    return b"event: speech.audio.%s\ndata: %s\n\n" % (
        kind.encode(),
        _encode({"type": f"speech.audio.{kind}"} | members),
    )


async def _send(exchange: Exchange, fault: Fault, pace: Pace, pieces: list[bytes], usage: Usage) -> None:
    """Piece by piece, as far as the fault lets it come. Whoever asked pays for the whole, however much of it came."""
    total = len(pieces)
    halved = fault.truncate or fault.half_event or fault.invalid_json
    stop = min(one for one in (total // 2 if halved else total, fault.stall, fault.drop) if one is not None)
    departure = Departure(exchange.receive)
    sent = 0
    try:
        gone = await departure.sleep(pace.first)
        if not gone:
            await exchange.start(200, EVENTS if exchange.stream else _WAV, [], None)
        for piece in pieces[:stop]:
            if gone:
                break
            if sent + 1 < total:
                await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
                sent += 1
            gone = await departure.sleep(pace.gap)
        if gone or (fault.stall is not None and await departure.sleep(None)):
            exchange.gone(usage, chunks=sent)
        elif fault.drop is not None:
            # The server closes a connection whose answer was begun and not ended.
            exchange.record(DROPPED, usage=usage, chunks=sent, error="dropped")
        elif halved:
            exchange.record(DROPPED, usage=usage, chunks=sent, error="truncated")
            await exchange.send({"type": "http.response.body", "body": b""})
        else:
            exchange.record(COMPLETED, usage=usage, chunks=total, size=sum(map(len, pieces)))
            await exchange.send({"type": "http.response.body", "body": pieces[-1]})
    except asyncio.CancelledError:
        exchange.record(DROPPED, usage=usage, chunks=sent, error="stopped")
        raise
    finally:
        departure.close()
