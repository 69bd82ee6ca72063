"""Prices: dated, falling back between classes, rounded up once, and never below what a call turns out to cost."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from llmops.providers.pricing import PriceBook, Prices
from llmops.serving.snapshot import PriceRow
from llmops.usage.records import Tokens

prices = st.integers(0, 10**12)
counts = st.integers(0, 10**7)
tables = st.builds(Prices, prices, prices, prices, prices, prices)
used = st.builds(
    lambda i, c, w, o, r: Tokens(
        input=i, cached=min(c, i), cache_write=min(w, i - min(c, i)), output=o, reasoning=min(r, o)
    ),
    counts,
    counts,
    counts,
    counts,
    counts,
)


def book(*rows: tuple[str, int, int]) -> PriceBook:
    return PriceBook([PriceRow(*row) for row in rows])


def test_a_price_holds_from_its_moment_until_the_next() -> None:
    dated = book(("output", 100, 7), ("input", 200, 2), ("input", 100, 1), ("output", 300, 8))
    seen = [(moment, dated.at(moment)) for moment in (99.9, 100, 199.9, 200, 250, 300, 10**12, 150, 50)]
    assert [(moment, found and (found.input, found.output)) for moment, found in seen] == [
        (99.9, None),
        (100, (1, 7)),
        (199.9, (1, 7)),
        (200, (2, 7)),
        (250, (2, 7)),
        (300, (2, 8)),
        (10**12, (2, 8)),
        (150, (1, 7)),
        (50, None),
    ]


def test_classes_without_a_price_fall_back() -> None:
    assert book(("input", 0, 5), ("output", 0, 9)).at(1) == Prices(5, 5, 5, 9, 9)
    assert book(("input", 0, 5), ("cached_input", 0, 1), ("output", 0, 9), ("reasoning", 0, 11)).at(
        1
    ) == Prices(5, 1, 5, 9, 11)
    assert book(("input", 0, 5), ("cache_write", 0, 6)).at(1) == Prices(5, 5, 6, None, 0)
    assert book(("output", 0, 5)).at(1) is None
    assert book().at(1) is None


@given(tables, used)
def test_a_cost_is_exact_and_rounded_up_once(table: Prices, tokens: Tokens) -> None:
    plain = tokens.input - tokens.cached - tokens.cache_write
    exact = Fraction(
        plain * table.input
        + tokens.cached * table.cached_input
        + tokens.cache_write * table.cache_write
        + (tokens.output - tokens.reasoning) * (table.output or 0)
        + tokens.reasoning * table.reasoning,
        10**6,
    )
    assert table.cost(tokens) == ceil(exact)


@given(tables, used)
def test_the_worst_cost_covers_every_mix_of_classes(table: Prices, tokens: Tokens) -> None:
    assert table.cost(tokens) <= table.worst_cost(tokens.input, tokens.output)


@given(tables, st.integers(0, 10**15), counts)
def test_what_is_affordable_is_the_most_that_fits(table: Prices, amount: int, input_tokens: int) -> None:
    output = table.affordable_output(amount, input_tokens)
    if output is None:
        assert table.worst_cost(input_tokens, 10**9) <= amount
    elif output < 0:
        assert table.worst_cost(input_tokens, 0) > amount
    else:
        assert table.worst_cost(input_tokens, output) <= amount < table.worst_cost(input_tokens, output + 1)


@given(
    st.integers(0, 100), st.integers(0, 200), st.integers(0, 200), st.integers(0, 100), st.integers(0, 200)
)
def test_parts_larger_than_their_whole_never_make_a_class_negative(
    asked: int, cached: int, written: int, answered: int, reasoned: int
) -> None:
    table = Prices(10**6, 10**6, 10**6, 10**6, 10**6)
    tokens = Tokens(input=asked, cached=cached, cache_write=written, output=answered, reasoning=reasoned)
    assert table.cost(tokens) == asked + answered
