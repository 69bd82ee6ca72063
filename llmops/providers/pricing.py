"""What tokens cost: dated prices, worst cases before a call, exact costs after it. Pure; imports no framework.

Prices are nanodollars per million tokens, amounts nanodollars. A cost is rounded up once, over the sum of its parts.
A class without a price of its own falls back: cached input and cache writes to input, reasoning to output.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from llmops.core.money import MILLION, cost_nano
from llmops.providers.rules import CACHE_WRITE, CACHED_INPUT, INPUT, OUTPUT, REASONING


class Dated(Protocol):
    """A price of a token class from ``since`` (Unix seconds) on; ``serving.snapshot.PriceRow`` is one."""

    @property
    def token_class(self) -> str: ...
    @property
    def since(self) -> int: ...
    @property
    def nano_per_million(self) -> int: ...


class Billed(Protocol):
    """Tokens of a finished call: ``input`` includes ``cached`` and ``cache_write``, ``output`` includes ``reasoning``."""

    @property
    def input(self) -> int: ...
    @property
    def cached(self) -> int: ...
    @property
    def cache_write(self) -> int: ...
    @property
    def output(self) -> int: ...
    @property
    def reasoning(self) -> int: ...


class Prices(NamedTuple):
    """The prices of one model at one moment. ``output`` is None for a model that is priced for its input alone."""

    input: int
    cached_input: int
    cache_write: int
    output: int | None
    reasoning: int

    @property
    def dearest_input(self) -> int:
        return max(self.input, self.cached_input, self.cache_write)

    @property
    def dearest_output(self) -> int:
        return max(self.output or 0, self.reasoning)

    def worst_cost(self, input_tokens: int, output_tokens: int) -> int:
        """The most that a call with at most so many tokens can cost, whatever class they turn out to be."""
        return cost_nano([(input_tokens, self.dearest_input), (output_tokens, self.dearest_output)])

    def cost(self, used: Billed) -> int:
        """The cost of a finished call. Parts larger than their whole count as the whole: no class is ever negative."""
        cached = min(used.cached, used.input)
        written = min(used.cache_write, used.input - cached)
        reasoned = min(used.reasoning, used.output)
        total = (
            (used.input - cached - written) * self.input
            + cached * self.cached_input
            + written * self.cache_write
            + (used.output - reasoned) * (self.output or 0)
            + reasoned * self.reasoning
        )
        return -(-total // MILLION)

    def affordable_output(self, amount: int, input_tokens: int) -> int | None:
        """How many output tokens ``amount`` pays for beside ``input_tokens``: None when output is free, -1 when not
        even the input is paid for."""
        left = amount * MILLION - input_tokens * self.dearest_input
        if left < 0:
            return -1
        return left // self.dearest_output if self.dearest_output else None


class PriceBook:
    """All dated prices of a model. Lookups at ever later moments cost a comparison."""

    __slots__ = ("_changes", "_current", "_from", "_rows", "_until")

    def __init__(self, rows: Iterable[Dated]) -> None:
        self._rows = sorted(rows, key=lambda row: row.since)
        self._changes = sorted({row.since for row in self._rows})
        self._current: Prices | None = None
        self._from = self._until = 0.0

    def at(self, moment: float) -> Prices | None:
        """The prices in force at ``moment`` (Unix seconds); None when the input has none by then."""
        if not self._from <= moment < self._until:
            self._turn_to(moment)
        return self._current

    def _turn_to(self, moment: float) -> None:
        index = bisect_right(self._changes, moment)
        self._from = self._changes[index - 1] if index else float("-inf")
        self._until = self._changes[index] if index < len(self._changes) else float("inf")
        latest = {row.token_class: row.nano_per_million for row in self._rows if row.since <= moment}
        if INPUT not in latest:
            self._current = None
            return
        asked, answered = latest[INPUT], latest.get(OUTPUT)
        self._current = Prices(
            input=asked,
            cached_input=latest.get(CACHED_INPUT, asked),
            cache_write=latest.get(CACHE_WRITE, asked),
            output=answered,
            reasoning=latest.get(REASONING, answered or 0),
        )
