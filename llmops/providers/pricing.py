"""What calls cost: dated prices, worst cases before a call, exact costs after it. Pure; imports no framework.

Prices are nanodollars per million tokens (or characters, seconds, images), amounts nanodollars. A cost is rounded up once,
over the sum of its parts. A class of tokens without a price of its own falls back: cached input, cache writes, audio and
images of the input to input; reasoning, audio and images of the output to output. Characters, seconds and images without
a price cost nothing beside the tokens. A service tier has its own prices where they are given, the standard ones otherwise.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from llmops.core.money import MILLION, cost_nano
from llmops.providers.rules import (
    AUDIO_INPUT,
    AUDIO_OUTPUT,
    BATCH,
    CACHE_WRITE,
    CACHED_INPUT,
    CHARACTERS,
    FLEX,
    IMAGE_INPUT,
    IMAGE_OUTPUT,
    IMAGES,
    INPUT,
    OUTPUT,
    PRIORITY,
    REASONING,
    SECONDS,
    TIERED_CLASSES,
)

#: The names that prices of a tier have, and the classes they stand for.
_TIERED = {
    BATCH: {"batch_input": INPUT, "batch_output": OUTPUT},
    FLEX: {f"{name}_{FLEX}": name for name in TIERED_CLASSES},
    PRIORITY: {f"{name}_{PRIORITY}": name for name in TIERED_CLASSES},
}
#: Of these one is enough for a model to have a price at all.
BASE_CLASSES = (INPUT, CHARACTERS, SECONDS, IMAGES)

#: What a request can bring into play beside text, as flags that are added up.
AUDIO_IN, IMAGE_IN, AUDIO_OUT, IMAGE_OUT = 1, 2, 4, 8


class Dated(Protocol):
    """A price of a token class from ``since`` (Unix seconds) on; ``serving.snapshot.PriceRow`` is one."""

    @property
    def token_class(self) -> str: ...
    @property
    def since(self) -> int: ...
    @property
    def nano_per_million(self) -> int: ...


class Media(Protocol):
    """What of a call was not text: tokens that ``input`` and ``output`` include, and what is not billed in tokens."""

    @property
    def audio_input(self) -> int: ...
    @property
    def image_input(self) -> int: ...
    @property
    def audio_output(self) -> int: ...
    @property
    def image_output(self) -> int: ...
    @property
    def characters(self) -> int: ...
    @property
    def seconds(self) -> int: ...
    @property
    def images(self) -> int: ...


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
    @property
    def media(self) -> Media | None: ...


class Units(NamedTuple):
    """At most so much of what is not billed in tokens."""

    characters: int = 0
    seconds: int = 0
    images: int = 0


class Part(NamedTuple):
    """A class, how much of it was used, and its price."""

    token_class: str
    amount: int
    price: int


class Prices(NamedTuple):
    """The prices of one model at one moment, in one service tier.

    ``output`` is None for a model that is priced for its input alone; of the later members None means that the class has
    no price of its own. ``by_tokens``: whether tokens have a price at all, and not only what is made or heard.
    """

    input: int
    cached_input: int
    cache_write: int
    output: int | None
    reasoning: int
    audio_input: int | None = None
    image_input: int | None = None
    audio_output: int | None = None
    image_output: int | None = None
    characters: int | None = None
    seconds: int | None = None
    images: int | None = None
    by_tokens: bool = True
    #: prices of service tiers that have their own
    tiers: Mapping[str, Prices] = MappingProxyType({})
    #: by tier the dearer of its prices and the standard ones
    dearest: Mapping[str, Prices] = MappingProxyType({})

    @property
    def dearest_input(self) -> int:
        """The price of a token of text that goes in, whatever class it turns out to be."""
        return max(self.input, self.cached_input, self.cache_write)

    @property
    def dearest_output(self) -> int:
        return max(self.output or 0, self.reasoning)

    def has_output(self, uses: int) -> bool:
        """Whether output of these kinds has a price."""
        return (
            self.output is not None
            or bool(uses & AUDIO_OUT and self.audio_output is not None)
            or bool(uses & IMAGE_OUT and self.image_output is not None)
        )

    def of_tier(self, tier: str) -> Prices:
        """The prices in a service tier; those of the standard one where it has none of its own."""
        return self.tiers.get(tier, self) if self.tiers else self

    def holding(self, tier: str) -> Prices:
        """The prices to hold by when a request allows ``tier``: its answer may come from there or from the standard one."""
        return self.dearest.get(tier, self) if self.dearest else self

    def of_input(self, uses: int) -> int:
        """The dearest price of an input token of a request that ``uses`` these kinds (``AUDIO_IN`` and so on)."""
        dearest = self.dearest_input
        if uses & AUDIO_IN and self.audio_input is not None:
            dearest = max(dearest, self.audio_input)
        if uses & IMAGE_IN and self.image_input is not None:
            dearest = max(dearest, self.image_input)
        return dearest

    def of_output(self, uses: int) -> int:
        dearest = self.dearest_output
        if uses & AUDIO_OUT and self.audio_output is not None:
            dearest = max(dearest, self.audio_output)
        if uses & IMAGE_OUT and self.image_output is not None:
            dearest = max(dearest, self.image_output)
        return dearest

    def worst_cost(
        self, input_tokens: int, output_tokens: int, uses: int = 0, units: Units | None = None
    ) -> int:
        """The most that a call with at most so many tokens and units can cost, whatever class they turn out to be."""
        if not uses and units is None:
            total = input_tokens * self.dearest_input + output_tokens * self.dearest_output
            return -(-total // MILLION)
        parts = [(input_tokens, self.of_input(uses)), (output_tokens, self.of_output(uses))]
        if units is not None:
            parts += [(part.amount, part.price) for part in self._units(units)]
        return cost_nano(parts)

    def cost(self, used: Billed) -> int:
        """The cost of a finished call. Parts larger than their whole count as the whole: no class is ever negative."""
        if used.media is not None:
            return cost_nano([(part.amount, part.price) for part in self.parts(used)])
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

    def parts(self, used: Billed) -> list[Part]:
        """Each class of which something was used: the exact cost is the sum of amount times price.

        Audio and images are counted first, then what was cached and written, then text: what a provider's cache held of
        audio or images is not told apart, and costs their full price.
        """
        media = used.media
        left, made = used.input, used.output
        parts = []
        if media is not None:
            heard = min(media.audio_input, left)
            seen = min(media.image_input, left - heard)
            spoken = min(media.audio_output, made)
            drawn = min(media.image_output, made - spoken)
            left, made = left - heard - seen, made - spoken - drawn
            parts = [
                Part(AUDIO_INPUT, heard, self.input if self.audio_input is None else self.audio_input),
                Part(IMAGE_INPUT, seen, self.input if self.image_input is None else self.image_input),
            ]
        cached = min(used.cached, left)
        written = min(used.cache_write, left - cached)
        reasoned = min(used.reasoning, made)
        output = self.output or 0
        parts += [
            Part(INPUT, left - cached - written, self.input),
            Part(CACHED_INPUT, cached, self.cached_input),
            Part(CACHE_WRITE, written, self.cache_write),
            Part(OUTPUT, made - reasoned, output),
            Part(REASONING, reasoned, self.reasoning),
        ]
        if media is not None:
            parts += [
                Part(AUDIO_OUTPUT, spoken, output if self.audio_output is None else self.audio_output),
                Part(IMAGE_OUTPUT, drawn, output if self.image_output is None else self.image_output),
                *self._units(Units(media.characters, media.seconds, media.images)),
            ]
        return [part for part in parts if part.amount]

    def _units(self, units: Units) -> tuple[Part, ...]:
        return (
            Part(CHARACTERS, units.characters, self.characters or 0),
            Part(SECONDS, units.seconds, self.seconds or 0),
            Part(IMAGES, units.images, self.images or 0),
        )

    def affordable_output(self, amount: int, input_tokens: int, uses: int = 0) -> int | None:
        """How many output tokens ``amount`` pays for beside ``input_tokens``: None when output is free, -1 when not
        even the input is paid for."""
        left = amount * MILLION - input_tokens * self.of_input(uses)
        if left < 0:
            return -1
        dearest = self.of_output(uses)
        return left // dearest if dearest else None


class PriceBook:
    """All dated prices of a model. Lookups at ever later moments cost a comparison."""

    __slots__ = ("_changes", "_current", "_from", "_rows", "_until")

    def __init__(self, rows: Iterable[Dated]) -> None:
        self._rows = sorted(rows, key=lambda row: row.since)
        self._changes = sorted({row.since for row in self._rows})
        self._current: Prices | None = None
        self._from = self._until = 0.0

    def at(self, moment: float) -> Prices | None:
        """The prices in force at ``moment`` (Unix seconds); None when neither its input nor anything else that is made
        or heard has one by then."""
        if not self._from <= moment < self._until:
            self._turn_to(moment)
        return self._current

    def _turn_to(self, moment: float) -> None:
        index = bisect_right(self._changes, moment)
        self._from = self._changes[index - 1] if index else float("-inf")
        self._until = self._changes[index] if index < len(self._changes) else float("inf")
        latest = {row.token_class: row.nano_per_million for row in self._rows if row.since <= moment}
        if not any(name in latest for name in BASE_CLASSES):
            self._current = None
            return
        standard = _prices(latest)
        tiers = {}
        for tier, names in _TIERED.items():
            own = {name: latest[given] for given, name in names.items() if given in latest}
            if own:
                tiers[tier] = _prices(latest | own)
        if tiers:
            standard = standard._replace(
                tiers=tiers, dearest={tier: _dearer(standard, found) for tier, found in tiers.items()}
            )
        self._current = standard


def _prices(latest: Mapping[str, int]) -> Prices:
    asked, answered = latest.get(INPUT, 0), latest.get(OUTPUT)
    return Prices(
        input=asked,
        cached_input=latest.get(CACHED_INPUT, asked),
        cache_write=latest.get(CACHE_WRITE, asked),
        output=answered,
        reasoning=latest.get(REASONING, answered or 0),
        audio_input=latest.get(AUDIO_INPUT),
        image_input=latest.get(IMAGE_INPUT),
        audio_output=latest.get(AUDIO_OUTPUT),
        image_output=latest.get(IMAGE_OUTPUT),
        characters=latest.get(CHARACTERS),
        seconds=latest.get(SECONDS),
        images=latest.get(IMAGES),
        by_tokens=INPUT in latest,
    )


def _dearer(one: Prices, other: Prices) -> Prices:
    """Tiers differ in the prices of text alone; each is the dearer of the two."""
    return one._replace(
        input=max(one.input, other.input),
        cached_input=max(one.cached_input, other.cached_input),
        cache_write=max(one.cache_write, other.cache_write),
        output=None
        if one.output is None and other.output is None
        else max(one.output or 0, other.output or 0),
        reasoning=max(one.reasoning, other.reasoning),
    )
