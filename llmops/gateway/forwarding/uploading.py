"""A request body on its way to a provider: read from the client only as fast as the provider takes it, never held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from llmops.core.errors import ConsoleError, InvalidRequest, RequestTooLarge
from llmops.core.texts import size_words
from llmops.gateway.attempts.failures import TIMEOUT, Failure
from llmops.gateway.attempts.upstream import Failed
from llmops.gateway.bodies import BODY_TIMEOUT_S
from llmops.gateway.call import Call, ClientGone
from llmops.gateway.forms.spool import declared_length
from llmops.serving.snapshot import ProviderEntry


class Upload:
    """``pieces`` is what is sent. ``problem``: why it broke off, when that was not the provider's doing."""

    def __init__(self, call: Call, provider: ProviderEntry, *, largest: int) -> None:
        self._call = call
        self._largest = largest
        self._write_s = provider.write_timeout_ms / 1000
        self._read_s = provider.read_timeout_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._waits_for_client = False
        #: bounds every wait: for the client's next piece, for the provider to take it, for its answer
        self.clock = asyncio.timeout(None)
        self.problem: Exception | None = None
        self.complete = False
        self.size = 0
        declared = declared_length(call.headers)
        self.length = declared if declared >= 0 else None
        if self.length is not None and self.length > largest:
            raise self._too_large()

    async def pieces(self) -> AsyncIterator[bytes]:
        call = self._call
        try:
            while True:
                self._wait(BODY_TIMEOUT_S, for_client=True)
                message = await call.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                piece: bytes = message.get("body", b"")
                self.size += len(piece)
                if self.size > self._largest:
                    raise self._too_large()
                self._wait(self._write_s)
                if piece:
                    yield piece
                if not message.get("more_body"):
                    break
        except (ClientGone, ConsoleError) as problem:
            self.problem = problem
            raise
        self.complete = True
        call.bytes_in = self.size
        # From here on only the provider's answer is waited for, and the client may be listened to.
        self._wait(self._read_s)
        call.watch.start(self._read_s + 1.0)

    def _wait(self, seconds: float, *, for_client: bool = False) -> None:
        self._waits_for_client = for_client
        if not self.clock.expired():
            self.clock.reschedule(self._loop.time() + seconds)

    def over(self) -> Exception:
        """What it means that the clock ran out."""
        if self._waits_for_client:
            return InvalidRequest(
                f"Nothing more of the body came for {BODY_TIMEOUT_S:g} s.", code="request_timeout"
            )
        said = "did not answer" if self.complete else "did not take the body"
        return Failed(Failure(TIMEOUT, f"it {said} within the time-out"))

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(
            f"The body is larger than the {size_words(self._largest)} that may be uploaded here. Send less, or "
            "several files; whoever runs the gateway can allow more."
        )
