"""What caches and routing saved, from rollups and list prices. Amounts are nanodollars."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.db.models import Sum

from llmops.providers.models import Price, RouteTarget
from llmops.providers.pricing import PriceBook, Prices
from llmops.usage.selectors.spend import Span, SpendFilters, rollups_of


@dataclass(frozen=True, slots=True)
class Savings:
    """``answers_nano``: what answers of the response cache would have cost, as booked with each call.

    ``prompts_nano``: input that providers read from their own caches, at the list price of input less that of cached input.
    ``routing_nano``: the tokens of each route at the list prices of the dearest of its targets (as it stands today), less
    the same tokens at those of the models that were used; negative where fallbacks were dearer. The last two know list
    prices of the day only, not service tiers.
    """

    answers_nano: int = 0
    prompts_nano: int = 0
    routing_nano: int = 0

    @property
    def total_nano(self) -> int:
        return self.answers_nano + self.prompts_nano + self.routing_nano


class _Used(NamedTuple):
    input: int
    cached: int
    cache_write: int
    output: int
    reasoning: int
    media: None = None


class _Row(NamedTuple):
    token_class: str
    since: int
    nano_per_million: int


def savings(span: Span, filters: SpendFilters) -> Savings:
    """Three queries."""
    found: Any = (
        rollups_of(span, filters)
        .order_by()
        .values_list("bucket", "route", "model")
        .annotate(
            Sum("input_tokens"),
            Sum("cached_input_tokens"),
            Sum("cache_write_tokens"),
            Sum("output_tokens"),
            Sum("reasoning_tokens"),
            Sum("saved_nano"),
        )
    )
    books, targets = _books(), _targets()
    answers = prompts = routing = 0
    for bucket, route, model, tokens_in, cached, written, tokens_out, reasoned, saved in found:
        answers += saved
        used = _Used(int(tokens_in), int(cached), int(written), int(tokens_out), int(reasoned))
        at = bucket.timestamp()
        prices = _at(books, model, at)
        if prices is None:
            continue
        prompts += used.cached * max(0, prices.input - prices.cached_input) // 1_000_000
        others = [found for name in targets.get(route, ()) if (found := _at(books, name, at)) is not None]
        # With one target there was nothing to choose.
        if len(others) > 1 and (used.input or used.output):
            routing += max(one.cost(used) for one in others) - prices.cost(used)
    return Savings(int(answers), prompts, routing)


def _at(books: dict[str, PriceBook], model: str, at: float) -> Prices | None:
    book = books.get(model)
    return book.at(at) if book else None


def _books() -> dict[str, PriceBook]:
    rows: dict[str, list[_Row]] = defaultdict(list)
    for slug, token_class, since, nano in Price.objects.values_list(
        "model__slug", "token_class", "effective_from", "nano_per_million"
    ):
        rows[slug].append(_Row(token_class, int(since.timestamp()), nano))
    return {slug: PriceBook(dated) for slug, dated in rows.items()}


def _targets() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for route, model in RouteTarget.objects.filter(fallback=False).values_list("route__slug", "model__slug"):
        found[route].append(model)
    return found
