"""A plane with those of its parts that make calls themselves, and so know what a call is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from llmops.core.asgi import Message, Receive, Send
from llmops.gateway.endpoints.moderations import MODERATIONS
from llmops.gateway.kept.background import Background
from llmops.gateway.kept.metering import Metering
from llmops.gateway.pipeline import serve
from llmops.gateway.plane import Plane


@dataclass(eq=False)
class DataPlane(Plane):
    background: Background = field(init=False)
    metering: Metering = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.background = Background(self)
        self.metering = Metering(self)
        self.moderate = self._moderate

    async def _moderate(
        self, scope: Message, receive: Receive, send: Send, cost: Callable[[int], None]
    ) -> None:
        await serve(self, MODERATIONS, scope, receive, send, lambda call: cost(call.cost))
