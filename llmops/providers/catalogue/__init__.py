"""Price lists as files: what a provider charges, with the date and the source of each figure. Pure.

``openai.yaml`` beside this page is the one that ships. A file of the same shape replaces it for one command.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

from llmops.core.errors import InvalidRequest

SHIPPED = Path(__file__).with_name("openai.yaml")
MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Listed:
    """What a class of a model costs, nanodollars per million; ``line`` of the file, from 1 on."""

    model: str
    token_class: str
    nano_per_million: int
    source: str
    since: datetime | None
    line: int


@dataclass(frozen=True, slots=True)
class PriceList:
    """``provider`` is the kind of provider whose models are meant, ``dated`` the day the list was made."""

    provider: str
    dated: date
    prices: tuple[Listed, ...]

    def of(self, upstream_model: str) -> list[Listed]:
        """The prices of a model by its name at the provider, one a class."""
        return [price for price in self.prices if price.model == upstream_model]


class BadPriceList(InvalidRequest):
    """The file cannot be used; its message has every problem with its line. Nothing was changed."""

    code = "bad_price_list"

    def __init__(self, problems: list[tuple[int, str]]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(f"line {line}: {reason}" for line, reason in self.problems))


@lru_cache(maxsize=1)
def shipped() -> PriceList:
    return parse(SHIPPED.read_text(encoding="utf-8"))


def parse(text: str) -> PriceList:
    """Raises ``BadPriceList`` with every problem found, each with its line."""
    if len(text) > MAX_BYTES:
        raise BadPriceList([(1, f"the file is larger than {MAX_BYTES:,} characters")])
    # Reads YAML, which processes that import this page for its shapes never do.
    from llmops.providers.catalogue.reading import read

    return read(text)
