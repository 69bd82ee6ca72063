"""Bringing an answer to the client: whole or as a stream, settled before its last byte."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec

from llmops.core.errors import StreamInterrupted
from llmops.gateway import settle
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import tier_answered
from llmops.gateway.endpoints.chat import answer_text
from llmops.gateway.errors import error_event
from llmops.gateway.resilience import MALFORMED, STATUS, Failure
from llmops.gateway.settle import Trial
from llmops.gateway.streaming import Relay
from llmops.gateway.upstream import Response, clean, failure_of, read_whole
from llmops.usage.records import Tokens

#: After ``[DONE]`` a provider has this long to end its answer, or its connection is not used again.
_TAIL_S = 1.0


class _Head(msgspec.Struct):
    """What is read of an answer; the client gets its bytes as they are."""

    model: str = ""
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    choices: list[_HeadChoice] = []
    service_tier: str | None = None


class _HeadChoice(msgspec.Struct):
    finish_reason: str | None = None


_decode_head = msgspec.json.Decoder(_Head).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def relay_whole(call: Call, trial: Trial, response: Response) -> Failure | None:
    body = await read_whole(response)
    head = _head(body)
    if head is None:
        return Failure(MALFORMED, "the answer is not a JSON object", billed=None)
    if head.error and bytes(head.error) != b"null":
        return Failure(STATUS, "an error in place of an answer", status=502)
    tokens = call.endpoint.usage(bytes(head.usage))
    unknown = False
    if tokens is None:
        text = answer_text(body) if call.endpoint.has_output else ""
        tokens = await settle.count(call, trial, text)
        unknown = trial.step.target.reasons
    if head.service_tier is not None:
        tokens.tier = tier_answered(head.service_tier)
    call.bytes_out = len(body)
    finish = head.choices[0].finish_reason or "" if head.choices else ""
    settle.answered(call, trial, tokens, model=head.model, finish=finish, charge_hold=unknown)
    await call.send_whole(200, body)
    return None


def _head(body: bytes) -> _Head | None:
    try:
        return _decode_head(body)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    try:
        members = _decode_object(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    nothing = msgspec.Raw()
    return _Head(usage=members.get("usage", nothing), error=members.get("error", nothing))


# ---------------------------------------------------------------------- a stream


async def relay_stream(call: Call, trial: Trial, response: Response, relay: Relay) -> Failure | None:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        return Failure(MALFORMED, "the answer is not a stream of events", billed=None)
    content = response.content
    failure: Failure | None = None
    out = b""
    while True:
        try:
            data = await content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = failure_of(error)
            break
        if data:
            out = relay.feed(data)
        else:
            relay.end()
        if relay.done or relay.broken:
            break
        if out:
            if not call.started_sending:
                await begin_stream(call, trial)
            await call.send_piece(out)
            out = b""
    if relay.done:
        await finish_stream(call, trial, relay, out, response)
        return None
    if relay.broken:
        relay.broken = clean(relay.broken, trial.step.credential)
    if failure is None:
        failure = Failure(MALFORMED, relay.broken, billed=None)
    if not call.started_sending and not out:
        return failure
    if not call.started_sending:
        await begin_stream(call, trial)
    await break_off(call, trial, relay, out, failure)
    return None


async def begin_stream(call: Call, trial: Trial) -> None:
    """Something of the answer goes out: from here on nothing is tried again."""
    call.watch.open_end()
    trial.record.ttft_us = int((time.perf_counter() - trial.started) * 1_000_000)
    await call.start_events()


async def finish_stream(call: Call, trial: Trial, relay: Relay, out: bytes, response: Response) -> None:
    tokens = call.endpoint.usage(relay.usage)
    unknown = False
    if tokens is None:
        tokens = await settle.count(call, trial, relay.text())
        unknown = trial.step.target.reasons
    tokens.tier = relay.tier
    if trial.record.ttft_us is None:
        trial.record.ttft_us = int((time.perf_counter() - trial.started) * 1_000_000)
    last = out + relay.tail
    started = call.started_sending
    call.bytes_out += len(last)
    settle.answered(call, trial, tokens, model=relay.model, finish=relay.finish, charge_hold=unknown)
    call.bytes_out -= len(last)
    if not started:
        await call.start_events()
    await call.send_piece(last, last=True)
    if not response.content.at_eof():
        try:
            async with asyncio.timeout(_TAIL_S):
                await response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return


async def break_off(call: Call, trial: Trial, relay: Relay, out: bytes, failure: Failure) -> None:
    """The provider's stream ended before its end: say so, settle what came, and never send ``[DONE]``."""
    tokens = await partial_tokens(call, trial, relay)
    reason = relay.broken or failure.message
    error = StreamInterrupted(
        f"The answer of the provider {trial.record.provider!r} broke off: {reason}. "
        "What came before is not complete."
    )
    last = out + error_event(error)
    call.bytes_out += len(last)
    settle.answered(
        call,
        trial,
        tokens,
        model=relay.model,
        finish=relay.finish,
        charge_hold=tokens.estimated and trial.step.target.reasons,
        status=settle.INTERRUPTED,
        code=error.code,
        message=reason,
    )
    call.bytes_out -= len(last)
    await call.send_piece(last, last=True)


async def partial_tokens(call: Call, trial: Trial, relay: Relay) -> Tokens:
    tokens = call.endpoint.usage(relay.usage)
    if tokens is None:
        tokens = await settle.count(call, trial, relay.text())
    tokens.tier = relay.tier
    return tokens
