"""What a call is asked to do beyond answering: parsed from the model's name and from the ``x-simulator`` header.

A model name is ``base`` or ``base+modifier+modifier=value``; the header holds modifiers in the same grammar, separated
by ``+``, commas or blanks, and wins over the name. Nothing here performs anything: see ``README.md`` for the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

STATUSES = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504)
WRONG_USAGE = ("zero", "missing", "null", "double", "huge", "negative", "text")

_NAME = re.compile(r"[A-Za-z0-9._:/@-]{1,128}")
_TOOL = re.compile(r"[A-Za-z0-9_-]{1,64}")


class UnknownModifier(ValueError):
    """The message names the modifier and what would have been understood."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong in an otherwise good call; the default is nothing.

    ``drop``, ``hang`` and ``stall`` are numbers of content chunks; ``hang`` is before the first byte.
    """

    error: int | None = None
    retry_after: float | None = None
    quota: bool = False
    context_length: bool = False
    content_filter: bool = False
    hang: bool = False
    stall: int | None = None
    drop: int | None = None
    half_event: bool = False
    invalid_json: bool = False
    html: int | None = None
    empty: bool = False
    truncate: bool = False
    wrong_usage: str | None = None
    refusal: bool = False


NO_FAULT = Fault()


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One call's behaviour. ``None`` leaves a choice to the model's profile."""

    base: str
    latency: float | None = None
    tps: float | None = None
    instant: bool = False
    tokens: int | None = None
    toolcall: str | int | None = None
    toolturns: int | None = None
    cached: int = 0
    cache_write: int = 0
    reasoning: int | None = None
    flag: bool = False
    fail: int | None = None
    fail_rate: float | None = None
    fault: Fault = field(default=NO_FAULT)

    @property
    def sometimes(self) -> bool:
        """Whether calls of the same name differ: the fault is for some of them only."""
        return self.fail is not None or self.fail_rate is not None

    @property
    def repeatable(self) -> bool:
        """Whether every call of the same name gets the same, whole answer."""
        return not self.sometimes and self.fault == NO_FAULT

    def at(self, count: int, name: str) -> Behaviour:
        """The behaviour of the ``count``-th call (from 0) of this exact ``name``.

        ``fail=N`` and ``fail_rate`` decide which calls have the fault; without another one the fault is a 500.
        """
        if not self.sometimes:
            return self
        fails = self.fail is not None and count < self.fail
        if self.fail_rate is not None:
            fails = fails or _fraction(f"{name}#{count}") < self.fail_rate
        if not fails:
            return replace(self, fault=NO_FAULT)
        return self if self.fault != NO_FAULT else replace(self, fault=Fault(error=500))


def _fraction(text: str) -> float:
    return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big") / 2**56


@lru_cache(maxsize=2048)
def parse(model: str, header: str = "") -> Behaviour:
    """The behaviour that ``model`` and the ``x-simulator`` header ask for.

    Raises ``UnknownModifier`` for a modifier that is not in the table or has a bad value.
    """
    base, *modifiers = model.split("+")
    if not _NAME.fullmatch(base):
        raise UnknownModifier(f"{base[:128]!r} is not a model name.")
    modifiers += re.split(r"[+,\s]+", header.strip()) if header.strip() else []
    values: dict[str, Any] = {}
    faults: dict[str, Any] = {}
    for modifier in modifiers:
        name, equals, value = modifier.partition("=")
        read = MODIFIERS.get(name)
        if read is None:
            raise UnknownModifier(
                f"The simulator knows no modifier {name[:64]!r} (in {model[:200]!r}): it knows {', '.join(MODIFIERS)}."
            )
        try:
            result = read(value if equals else None)
        except ValueError as error:
            raise UnknownModifier(f"The simulator's modifier {modifier[:64]!r} is wrong: {error}.") from error
        for key, parsed in result.items():
            (faults if key in Fault.__dataclass_fields__ else values)[key] = parsed
    return Behaviour(base=base, fault=Fault(**faults) if faults else NO_FAULT, **values)


Reader = Callable[[str | None], dict[str, Any]]


def _flag(name: str) -> Reader:
    def read(value: str | None) -> dict[str, Any]:
        if value is not None:
            raise ValueError("it takes no value")
        return {name: True}

    return read


def _number(name: str, low: float, high: float, default: float | None = None, whole: bool = True) -> Reader:
    def read(value: str | None) -> dict[str, Any]:
        if value is None:
            if default is None:
                raise ValueError(f"it needs a number, such as {name}={low:g}")
            return {name: default}
        number = (int if whole else float)(value)
        if not low <= number <= high:
            raise ValueError(f"{number:g} is not between {low:g} and {high:g}")
        return {name: number}

    return read


def _status(value: str) -> int:
    if not value.isdecimal() or int(value) not in STATUSES:
        raise ValueError(f"the status is one of {', '.join(map(str, STATUSES))}")
    return int(value)


def _error(value: str | None) -> dict[str, Any]:
    status, colon, retry_after = (value or "500").partition(":")
    parsed: dict[str, Any] = {"error": _status(status)}
    if colon:
        parsed |= _number("retry_after", 0, 86_400, whole=False)(retry_after)
    return parsed


def _html(value: str | None) -> dict[str, Any]:
    return {"html": 200 if value in (None, "200") else _status(value or "")}


def _wrong_usage(value: str | None) -> dict[str, Any]:
    if value not in WRONG_USAGE:
        raise ValueError(f"it is one of {', '.join(WRONG_USAGE)}")
    return {"wrong_usage": value}


def _toolcall(value: str | None) -> dict[str, Any]:
    if value is None:
        return {"toolcall": 1}
    if value.isdecimal():
        return _number("toolcall", 1, 64)(value)
    if not _TOOL.fullmatch(value):
        raise ValueError("it is a number of calls or the name of a tool")
    return {"toolcall": value}


MODIFIERS: dict[str, Reader] = {
    "latency": _number("latency", 0, 600_000, whole=False),
    "tps": _number("tps", 0.1, 100_000, whole=False),
    "instant": _flag("instant"),
    "tokens": _number("tokens", 0, 200_000),
    "toolcall": _toolcall,
    "toolturns": _number("toolturns", 0, 100),
    "refusal": _flag("refusal"),
    "content_filter": _flag("content_filter"),
    "flag": _flag("flag"),
    "cached": _number("cached", 0, 1_000_000),
    "cache_write": _number("cache_write", 0, 1_000_000),
    "reasoning": _number("reasoning", 0, 1_000_000),
    "wrong_usage": _wrong_usage,
    "error": _error,
    "quota": _flag("quota"),
    "context_length": _flag("context_length"),
    "fail": _number("fail", 0, 1_000_000),
    "fail_rate": _number("fail_rate", 0, 1, whole=False),
    "hang": _flag("hang"),
    "stall": _number("stall", 0, 1_000_000, default=3),
    "drop": _number("drop", 0, 1_000_000, default=3),
    "half_event": _flag("half_event"),
    "truncate": _flag("truncate"),
    "invalid_json": _flag("invalid_json"),
    "html": _html,
    "empty": _flag("empty"),
}
