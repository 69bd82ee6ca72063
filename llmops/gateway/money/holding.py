"""What is held for one attempt, and the output cap that bounds it."""

from __future__ import annotations

from llmops.budgets.escrow import Hold
from llmops.gateway.endpoints.base import Asked
from llmops.gateway.routing import Budgets
from llmops.providers.pricing import Prices
from llmops.serving.snapshot import ModelEntry


class Holding:
    """Money held for one attempt. ``worst`` is its worst cost, that of ``bound`` tokens in and ``output`` tokens out; ``cap``
    the output cap to send (None: as asked)."""

    __slots__ = ("bound", "cap", "clamped", "hard", "hold", "output", "prices", "soft", "worst")

    def __init__(self, prices: Prices | None, hard: Budgets, soft: list[str]) -> None:
        self.prices = prices
        self.hard = hard
        self.soft = soft
        self.hold: Hold | None = None
        self.worst = 0
        self.bound = 0
        self.output = 0
        self.cap: int | None = None
        self.clamped = False


def output_cap(asked: Asked, entry: ModelEntry) -> int | None:
    """The output cap of one choice: what was asked for or the model's default, within the model's largest output."""
    cap = asked.cap or entry.default_max_output_tokens or None
    if cap is None or asked.uncapped:
        return None
    return min(cap, entry.max_output_tokens) if entry.max_output_tokens else cap


def output_bound(asked: Asked, entry: ModelEntry, cap: int | None) -> int:
    """The most output tokens of all choices together."""
    return asked.choices * (cap or entry.max_output_tokens or entry.context_window)
