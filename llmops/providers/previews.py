"""What a change of prices would have meant for the traffic there was. Shapes, and the way to who knows the traffic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime

from django.conf import settings
from django.utils.module_loading import import_string

from llmops.providers.models import Model

#: So many whole days (UTC), up to today, are what a change is tried on.
DAYS = 30


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A class of a model at a new price, nanodollars per million."""

    model: Model
    token_class: str
    nano_per_million: int
    effective_from: datetime


@dataclass(frozen=True, slots=True)
class PreviewLine:
    """Calls of a model by route and project; nanodollars at the prices before and after the change."""

    model: str
    route: str
    project: str
    calls: int
    before_nano: int
    after_nano: int

    @property
    def change_nano(self) -> int:
        return self.after_nano - self.before_nano


@dataclass(frozen=True, slots=True)
class Preview:
    """Of the calls that began on ``first`` to ``last``; ``recorded_nano`` is what they were charged. Dearest change first."""

    first: date
    last: date
    lines: list[PreviewLine] = field(default_factory=list)
    recorded_nano: int = 0

    @property
    def calls(self) -> int:
        return sum(line.calls for line in self.lines)

    @property
    def before_nano(self) -> int:
        return sum(line.before_nano for line in self.lines)

    @property
    def after_nano(self) -> int:
        return sum(line.after_nano for line in self.lines)

    @property
    def change_nano(self) -> int:
        return self.after_nano - self.before_nano

    @property
    def change_percent(self) -> float | None:
        return 100 * self.change_nano / self.before_nano if self.before_nano else None


def preview(prices: Sequence[NewPrice]) -> Preview:
    """Try new prices on the last days' traffic. ``settings.PRICE_PREVIEW`` names who does it: traffic is a room above."""
    work: Callable[[Sequence[NewPrice]], Preview] = import_string(settings.PRICE_PREVIEW)
    return work(prices)
