"""One attempt under way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmops.gateway.attempts.failures import Failure
from llmops.gateway.attempts.resilience import Step
from llmops.gateway.money.holding import Holding
from llmops.usage.records import Attempt

if TYPE_CHECKING:
    from llmops.gateway.call import Call


class Trial:
    """What is known of it until it is settled."""

    __slots__ = (
        "broke",
        "complete",
        "doubts",
        "followed",
        "holding",
        "output_tokens",
        "record",
        "sent",
        "settled",
        "started",
        "stated",
        "step",
    )

    def __init__(self, call: Call, step: Step, holding: Holding) -> None:
        self.step = step
        self.holding = holding
        self.started = time.perf_counter()
        self.settled = False
        #: it is settled by ``background``, when the provider has done its work
        self.followed = False
        #: there was a connection: the provider may have got the request
        self.sent = False
        #: how an answer broke off that had begun
        self.broke: Failure | None = None
        #: the client got a whole answer of so many tokens
        self.complete = False
        self.output_tokens = 0
        #: what it would have cost by the provider's own figures, where they are not believed
        self.stated: int | None = None
        #: why not
        self.doubts: list[str] = []
        target = step.target
        self.record = Attempt(
            n=len(call.attempts) + 1,
            model=target.slug,
            provider=target.provider.slug,
            credential=step.credential.id,
            started_us=int((self.started - call.started) * 1_000_000),
            why=step.why,
        )

    @property
    def whose(self) -> str:
        """The project that calls."""
        return self.step.breaker.project
