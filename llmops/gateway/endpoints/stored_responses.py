"""Responses that a provider keeps: read (also as a stream), cancel, delete, list their input. OpenAI API reference,
"Responses"."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import parse_qs

from llmops.core.errors import StreamInterrupted
from llmops.gateway import settle
from llmops.gateway.addresses import Handler, Visit
from llmops.gateway.attempts.failures import MALFORMED, Failure
from llmops.gateway.attempts.upstream import BROKE, Failed, Response, clean, failure_of
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import ErrorInside
from llmops.gateway.endpoints.responses import RESPONSES
from llmops.gateway.forwarding.calls import handler, of_object, owner_of, provider_path
from llmops.gateway.forwarding.errands import Errand, Fetched, attempts, fetch, record, reply
from llmops.gateway.kept.owners import RESPONSE, Owner
from llmops.gateway.kept.places import Place, place_of
from llmops.gateway.policing.kept import check, check_stream
from llmops.gateway.streaming.responses import ResponsesRelay
from llmops.usage.records import Attempt


async def retrieve(call: Call, visit: Visit) -> None:
    owner = await owner_of(call, RESPONSE, visit.arguments["response"])
    place = place_of(call, owner)
    errand = Errand("GET", provider_path(visit), visit.query)
    if parse_qs(visit.query.decode("latin-1")).get("stream", [""])[-1].lower() in ("true", "1"):
        check_stream(call, owner)
        await tell_again(call, place, owner, errand)
        return
    fetched = await fetch(call, place, errand)
    await _seen(call, place, owner, fetched)
    await reply(call, fetched)


async def tell_again(call: Call, place: Place, owner: Owner, errand: Errand) -> None:
    """The events of a response, from the beginning or after a given one; whole ones only, and never a good end that was none."""

    async def events(response: Response, attempt: Attempt) -> None:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            raise Failed(Failure(MALFORMED, "the answer is not a stream of events"))
        relay = call.relay = ResponsesRelay()
        problem = ""
        while not (relay.done or relay.broken):
            try:
                data = await response.content.readany()
            except BROKE as error:
                failure = failure_of(error)
                if not call.started_sending:
                    raise Failed(failure) from error
                problem = failure.message
                break
            out = relay.feed(data) if data else relay.end()
            if out:
                if not call.started_sending:
                    call.watch.open_end()
                    await call.start_events()
                await call.send_piece(out)
        problem = problem or relay.broken
        if problem and not call.started_sending:
            raise Failed(Failure(MALFORMED, problem))
        last = relay.tail
        if problem:
            credential = next(one for one in place.credentials if one.id == attempt.credential)
            problem = clean(problem, credential)
            last = relay.error_event(
                StreamInterrupted(
                    f"The answer of the provider {place.provider.slug!r} broke off: {problem}. Ask again for what "
                    f"follows event {relay.sequence}."
                )
            )
        call.plane.objects.holds(owner, relay.items)
        if not problem and relay.last:
            call.plane.background.saw(owner.provider, owner.id, relay.last)
        call.bytes_out += len(last)
        if problem:
            attempt.code = StreamInterrupted.code
            record(call, status=settle.INTERRUPTED, http=200, code=StreamInterrupted.code, message=problem)
        else:
            record(call, status=settle.OK, http=200)
        call.bytes_out -= len(last)
        if not call.started_sending:
            await call.start_events()
        await call.send_piece(last, last=True)

    await attempts(call, place, errand, events)


async def _seen(call: Call, place: Place, owner: Owner, fetched: Fetched) -> None:
    """If it goes on in the background and has ended, it is settled now, whatever policies say."""
    call.plane.background.saw(owner.provider, owner.id, fetched.body)
    with suppress(ErrorInside):
        if (said := RESPONSES.whole(fetched.body)) is not None:
            call.plane.objects.holds(owner, said.items)
    await check(call, place, owner, fetched)


def _gone(call: Call, place: Place, owner: Owner, fetched: Fetched) -> None:
    call.plane.background.gone(owner.provider, owner.id)


ADDRESSES: dict[str, dict[str, Handler]] = {
    "/v1/responses/{response}": {
        "GET": handler("responses.retrieve", retrieve),
        "DELETE": of_object("responses.delete", RESPONSE, deletes=True, after=_gone),
    },
    "/v1/responses/{response}/cancel": {"POST": of_object("responses.cancel", RESPONSE, after=_seen)},
    "/v1/responses/{response}/input_items": {
        "GET": of_object("responses.input_items", RESPONSE, after=check)
    },
}
