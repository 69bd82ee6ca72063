"""An answer that came, is paid for, and does not go out."""

from __future__ import annotations

from llmops.core.errors import ConsoleError
from llmops.gateway import settle
from llmops.gateway.attempts.failures import POLICY, Failure
from llmops.gateway.attempts.trial import Trial
from llmops.gateway.call import Call
from llmops.gateway.errors import error_body, error_headers
from llmops.gateway.settle import Said
from llmops.gateway.streaming.events import Relay
from llmops.usage.records import Tokens


async def refuse_answer(
    call: Call, trial: Trial, tokens: Tokens, said: Said, error: ConsoleError, *, charge_hold: bool
) -> None:
    """A policy keeps the answer back: what it cost is settled, the client is told why it gets none, or no more, of it."""
    trial.broke = Failure(POLICY, "a policy refused the answer", status=200)
    begun = call.begun
    event = said.error_event(error) if call.started_sending and isinstance(said, Relay) else b""
    call.bytes_out += len(event)
    settle.answered(
        call,
        trial,
        tokens,
        said,
        charge_hold=charge_hold,
        status=settle.INTERRUPTED if begun else settle.ERROR,
        code=error.code,
        message=error.message,
        http=200 if event else error.status,
    )
    call.bytes_out -= len(event)
    if event:
        await call.send_piece(event, last=True)
    else:
        await call.send_whole(error.status, error_body(error), headers=error_headers(error))
