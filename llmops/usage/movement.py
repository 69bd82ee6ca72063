"""Why a cost changed between two periods, as parts that add up to the change exactly. Pure; amounts nanodollars.

A cost is calls x tokens per call x price per token, and the price per token follows from which models were used and from
what each of them costs. The factors are changed one after another, in that order (a sequential decomposition, as in a
price-volume-mix analysis), and each step is rounded once: what one part loses by rounding, the next one has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PARTS = ("calls", "tokens", "mix", "price")


@dataclass(frozen=True, slots=True)
class Volume:
    """What one period of a group had. ``models`` is model -> (tokens, cost); ``calls`` are those that were not refused."""

    calls: int = 0
    tokens: int = 0
    cost_nano: int = 0
    models: Mapping[str, tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class Movement:
    """``calls`` + ``tokens`` + ``mix`` + ``price`` == ``change``.

    ``calls``: more or fewer calls, each as dear as before. ``tokens``: longer or shorter calls. ``mix``: dearer or cheaper
    models. ``price``: the same model dearer or cheaper per token: other prices, or another share of output, cached and
    other tokens. ``new``: there was nothing before to compare with, so that all of it counts as calls.
    """

    before_nano: int
    now_nano: int
    calls: int
    tokens: int
    mix: int
    price: int
    new: bool = False

    @property
    def change(self) -> int:
        return self.now_nano - self.before_nano

    @property
    def reason(self) -> str:
        """The largest part that goes the way of the change: one of ``PARTS``; empty without a change."""
        if not self.change:
            return ""
        sign = 1 if self.change > 0 else -1
        return max(PARTS, key=lambda name: sign * getattr(self, name))


def movement(before: Volume, now: Volume) -> Movement:
    if not before.calls or not before.cost_nano or not now.calls:
        return Movement(
            before.cost_nano,
            now.cost_nano,
            calls=now.cost_nano - before.cost_nano,
            tokens=0,
            mix=0,
            price=0,
            new=not before.cost_nano,
        )
    by_calls = _share(before.cost_nano, now.calls, before.calls)
    if not before.tokens or not now.tokens:
        # Not billed in tokens (images, speech): what is not calls is the price of one.
        return Movement(
            before.cost_nano,
            now.cost_nano,
            calls=by_calls - before.cost_nano,
            tokens=0,
            mix=0,
            price=now.cost_nano - by_calls,
        )
    by_tokens = _share(before.cost_nano, now.tokens, before.tokens)
    by_mix = _at_prices_before(before, now) if before.models and now.models else by_tokens
    return Movement(
        before.cost_nano,
        now.cost_nano,
        calls=by_calls - before.cost_nano,
        tokens=by_tokens - by_calls,
        mix=by_mix - by_tokens,
        price=now.cost_nano - by_mix,
    )


def total(movements: list[Movement]) -> Movement:
    """The sum of several, part by part."""
    return Movement(
        sum(one.before_nano for one in movements),
        sum(one.now_nano for one in movements),
        calls=sum(one.calls for one in movements),
        tokens=sum(one.tokens for one in movements),
        mix=sum(one.mix for one in movements),
        price=sum(one.price for one in movements),
    )


def _at_prices_before(before: Volume, now: Volume) -> int:
    """The tokens of now at what each model cost per token before; a model without a before, at what it costs now."""
    known, found = before.models or {}, 0
    for model, (tokens, cost) in (now.models or {}).items():
        tokens_before, cost_before = known.get(model, (0, 0))
        found += _share(cost_before, tokens, tokens_before) if tokens_before else cost
    return found


def _share(amount: int, part: int, whole: int) -> int:
    """``amount * part / whole``, rounded half up."""
    return (2 * amount * part + whole) // (2 * whole)
