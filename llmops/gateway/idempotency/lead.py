"""The call that answers first under a key: what its client gets is kept on the way, and it goes on when its client leaves.

That is what the key is for: whoever lost the connection asks again, and gets what was paid for. The answer is in the ledger before
its last byte goes out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from llmops.core.asgi import Message
from llmops.core.portions import Pieces
from llmops.gateway.bodies import portion
from llmops.gateway.errors import Headers
from llmops.gateway.idempotency.ledger import MAX_ANSWER_BYTES

if TYPE_CHECKING:
    from llmops.gateway.call import Call
    from llmops.gateway.idempotency.seal import Seal

#: Headers of the moment: those of the request that gets the answer again take their places, or none does.
_OF_THE_MOMENT = frozenset(
    (b"x-request-id", b"x-llmops-call-id", b"age", b"retry-after", b"x-should-retry", b"date")
)
_LIMITS = b"x-ratelimit-"


class First(msgspec.Struct, array_like=True):
    """An answer as a client got it. ``body`` None: it was too large; ``status`` 0: it has no end.

    ``call`` is the id of the call that brought it, the rest how that was recorded.
    """

    call: str
    status: int
    headers: Headers
    body: bytes | None
    outcome: str
    code: str = ""
    model: str = ""
    model_version: int | None = None
    provider: str = ""
    upstream_model: str = ""
    finish: str = ""
    #: that was live when it was answered
    revision: int = 0


_encode = msgspec.msgpack.Encoder().encode
decode_first = msgspec.msgpack.Decoder(First).decode


class Lead:
    __slots__ = ("_call", "_concluded", "_gone", "_head", "_pieces", "_seal", "_send")

    def __init__(self, call: Call, seal: Seal) -> None:
        self._call = call
        self._seal = seal
        self._send = call.send
        self._head: tuple[int, Headers] = 0, []
        self._pieces = Pieces(portion(call), MAX_ANSWER_BYTES)
        self._gone = False
        self._concluded = False
        call.send = self.send
        call.watch.stays = self.left

    @property
    def _too_large(self) -> bool:
        return self._pieces.over

    def left(self) -> bool:
        """The client hung up. Whether the call goes on all the same."""
        self._gone = True
        return not self._too_large

    async def send(self, message: Message) -> None:
        """In the place of the server's."""
        if message["type"] == "http.response.start":
            self._head = message["status"], message["headers"]
        else:
            self._pieces.add(message.get("body", b""))
            if not message.get("more_body", False):
                await self._conclude(self._head[0])
        if not self._gone:
            try:
                await self._send(message)
            except OSError:
                self._gone = True
        if self._gone and self._too_large and not self._concluded:
            # Nobody gets any of it any more.
            raise ConnectionResetError("the client is gone")

    async def _conclude(self, status: int) -> None:
        call, flights = self._call, self._call.plane.flights
        self._concluded = True
        if not call.reached:
            self._pieces.close()
            await flights.release(self._seal.name, call.id)
            return
        sealed = self._seal.seal(_encode(self._first(status)))
        self._pieces.close()
        await flights.conclude(self._seal.name, call.id, sealed)

    def _first(self, status: int) -> First:
        call, outcome = self._call, self._call.outcome
        headers = [
            (name, value)
            for name, value in self._head[1]
            if name not in _OF_THE_MOMENT and not name.startswith(_LIMITS)
        ]
        body = None if self._too_large else self._pieces.joined()
        revision = call.view.snapshot.revision
        if outcome is None:
            return First(call.id, status, headers, body, "ok", revision=revision)
        return First(
            call.id,
            status,
            headers,
            body,
            outcome.status,
            outcome.code,
            outcome.model,
            outcome.model_version,
            outcome.provider,
            outcome.upstream_model,
            outcome.finish,
            revision,
        )

    def close(self) -> None:
        """The call is over, its answer perhaps without an end."""
        if not self._concluded:
            self._call.plane.flights.later(self._conclude(0))
        else:
            self._pieces.close()
