"""Bringing answers of images and audio to the client: JSON and text untouched, sound as it comes, events by their own reader.

Sound is relayed as it streams, all but its last byte, which follows when the provider has ended in good order and the call is
settled. A sound that is cut off stays incomplete for the client as well: its connection is closed without that end.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from llmops.core.errors import StreamInterrupted
from llmops.core.sounds import HEAD_BYTES, TAIL_BYTES, seconds_said
from llmops.gateway import settle
from llmops.gateway.attempts.failures import MALFORMED, Failure
from llmops.gateway.attempts.refusals import failure_in_answer
from llmops.gateway.attempts.upstream import BROKE, Failed, Response, clean, failure_of, read_whole
from llmops.gateway.bodies import keep, read_body
from llmops.gateway.call import Call, ClientGone
from llmops.gateway.endpoints.audio import Hearing
from llmops.gateway.endpoints.base import ErrorInside, Whole, whole_of
from llmops.gateway.endpoints.making import JSON, SOUND, Answer, AskedMedia, MediaEndpoint
from llmops.gateway.forms.multipart import Form, read_form
from llmops.gateway.forms.spool import Spool
from llmops.gateway.masking import masked
from llmops.gateway.policing import calls as policing
from llmops.gateway.policing.refusing import refuse_answer
from llmops.gateway.streaming.events import Relay
from llmops.usage.records import Tokens

if TYPE_CHECKING:
    from llmops.gateway.attempts.trial import Trial

_HTML = (b"<!doctype", b"<html")
_TYPE_LONGEST = 100


async def read_media(call: Call) -> AskedMedia:
    """The request of an endpoint that takes forms. Raises ``InvalidRequest``."""
    endpoint = cast(MediaEndpoint, call.endpoint)
    kind = call.headers.get(b"content-type", b"")
    if not kind.lstrip().lower().startswith(b"multipart/"):
        return cast(AskedMedia, endpoint.read(await read_body(call)))
    plane = call.plane
    form: Form = await read_form(
        call.receive,
        call.headers,
        Spool(plane.off_loop, plane.spool_directory),
        plane.max_media,
        ClientGone,
        partial(keep, call),
    )
    call.form = form
    call.bytes_in = form.size
    asked = endpoint.read_form(form)
    if isinstance(endpoint, Hearing):
        part = form.named("file")[0]
        endpoint.hear(asked, seconds_said(*await form.edges(part, HEAD_BYTES, TAIL_BYTES), part.size))
    return asked


async def tokens_of(call: Call, trial: Trial, answer: Answer, said: Whole | None = None) -> Tokens:
    """What an answer is billed by: what it states, completed by what it shows, or an estimate."""
    endpoint, asked = cast(MediaEndpoint, call.endpoint), cast(AskedMedia, call.asked)
    target = trial.step.target
    stated = said.usage if said is not None else answer.usage if isinstance(answer, Relay) else None
    broke = isinstance(answer, Relay) and not answer.done
    tokens = None if broke else endpoint.usage(stated)
    if tokens is None:
        try:
            counted = await call.plane.off_loop(lambda: endpoint.count_input(asked, target))
        except (asyncio.CancelledError, RuntimeError):
            counted = endpoint.input_bound(asked, target)
        tokens = endpoint.estimate(asked, target, answer, counted)
    endpoint.complete(asked, tokens, answer, trial.holding.prices)
    return tokens


async def relay_media(call: Call, trial: Trial, response: Response) -> Failure | None:
    """An answer that is no stream of events."""
    if cast(AskedMedia, call.asked).answer == SOUND:
        return await _relay_sound(call, trial, response)
    return await _relay_whole(call, trial, response)


async def _relay_whole(call: Call, trial: Trial, response: Response) -> Failure | None:
    body = call.hide(await read_whole(response))
    kind = _said_type(call, response)
    if cast(AskedMedia, call.asked).answer == JSON or _is_json(kind):
        try:
            said = call.endpoint.whole(body)
        except ErrorInside as error:
            return failure_in_answer(error.raw, secret=trial.step.credential.secret)
        if said is None:
            return Failure(MALFORMED, "the answer is not a JSON object", billed=None)
        kind = "application/json"
    elif not body:
        return Failure(MALFORMED, "the answer is empty", billed=None)
    elif kind.lower().startswith("text/html") or body[:200].lstrip().lower().startswith(_HTML):
        return Failure(MALFORMED, "the answer is a page of HTML", billed=None)
    else:
        said = Whole()
    tokens = await tokens_of(call, trial, body, said)
    if call.policing is not None:
        body, refused = await policing.whole(call, body, plain=kind != "application/json")
        if refused is not None:
            refused.tokens = tokens
            return refused
        if call.policing.error is not None:
            await refuse_answer(call, trial, tokens, said, call.policing.error, charge_hold=False)
            return None
    call.bytes_out = len(body)
    settle.answered(call, trial, tokens, said)
    await call.send_whole(200, body, kind=_header(kind or "text/plain; charset=utf-8"))
    return None


async def _relay_sound(call: Call, trial: Trial, response: Response) -> Failure | None:
    kind = _said_type(call, response)
    if _is_json(kind) or kind.lower().startswith("text/"):
        return await _no_sound(trial, response, kind)
    content = response.content
    kept, size = b"", 0
    failure: Failure | None = None
    coming = masked(content, call.secret)
    while True:
        try:
            data = await anext(coming, b"")
        except BROKE as error:
            failure = failure_of(error)
            break
        if not data:
            break
        size += len(data)
        if not call.begun:
            _begin(call, trial)
            await call.start_sound(_header(kind or "application/octet-stream"), response.content_length)
        if out := kept + data[:-1]:
            await call.send_piece(out)
        kept = data[-1:]
    if not call.begun:
        return failure or Failure(MALFORMED, "the answer is empty", billed=None)
    tokens = await tokens_of(call, trial, size)
    if failure is None:
        call.bytes_out += len(kept)
        settle.answered(call, trial, tokens, None)
        call.bytes_out -= len(kept)
        await call.send_piece(kept, last=True)
        return None
    trial.broke = failure
    settle.answered(
        call,
        trial,
        tokens,
        None,
        status=settle.INTERRUPTED,
        code=StreamInterrupted.code,
        message=failure.message,
    )
    # Nothing more is sent: a body without its end tells the client that its sound is not complete.
    return None


async def _no_sound(trial: Trial, response: Response, kind: str) -> Failure:
    """JSON or text in place of a sound: an error, or a page that somebody between here and there made."""
    if _is_json(kind):
        try:
            whole_of(await read_whole(response))
        except ErrorInside as error:
            return failure_in_answer(error.raw, secret=trial.step.credential.secret)
        except Failed as failed:
            return failed.failure
    return Failure(
        MALFORMED,
        f"the answer is {clean(kind[:_TYPE_LONGEST], trial.step.credential)}, not a sound",
        billed=None,
    )


def _begin(call: Call, trial: Trial) -> None:
    """Something of the answer goes out: from here on nothing is tried again."""
    call.begun = True
    call.watch.open_end()
    trial.record.ttft_us = int((time.perf_counter() - trial.started) * 1_000_000)


def _said_type(call: Call, response: Response) -> str:
    kind = response.headers.get("content-type", "")
    return "" if call.hides(kind) else kind


def _is_json(kind: str) -> bool:
    """Whether a type is JSON, be it with a name of its own (RFC 6839, section 3.1)."""
    kind = kind.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _header(kind: str) -> tuple[bytes, bytes]:
    return (b"content-type", kind[:_TYPE_LONGEST].encode("latin-1", "replace"))
