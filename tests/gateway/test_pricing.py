"""Prices: dated, falling back between classes, rounded up once, and never below what a call turns out to cost."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from llmops.providers.pricing import AUDIO_IN, AUDIO_OUT, IMAGE_IN, IMAGE_OUT, PriceBook, Prices, Units
from llmops.providers.rules import TOKEN_CLASSES
from llmops.serving.snapshot import PriceRow
from llmops.usage.records import Media, Tokens

prices = st.integers(0, 10**12)
counts = st.integers(0, 10**7)
# ``builds`` would make up the tiers of a table as well, each a table of its own with tiers.
tables = st.tuples(*[prices] * 5).map(lambda row: Prices(*row))
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


# ---------------------------------------------------------------------- beside text

maybe = st.none() | prices
full_tables = st.tuples(prices, prices, prices, maybe, prices, *[maybe] * 7).map(lambda row: Prices(*row))
media = st.builds(Media, counts, counts, counts, counts, counts, counts, counts)
anything = st.builds(
    lambda i, c, w, o, r, m: Tokens(input=i, cached=c, cache_write=w, output=o, reasoning=r, media=m),
    counts,
    counts,
    counts,
    counts,
    counts,
    st.none() | media,
)


def uses_of(found: Media | None) -> int:
    if found is None:
        return 0
    flags = (
        (AUDIO_IN, found.audio_input),
        (IMAGE_IN, found.image_input),
        (AUDIO_OUT, found.audio_output),
        (IMAGE_OUT, found.image_output),
    )
    return sum(flag for flag, amount in flags if amount)


@given(full_tables, anything)
def test_the_worst_cost_covers_whatever_is_used_of_what_the_request_allows(
    table: Prices, tokens: Tokens
) -> None:
    found = tokens.media or Media()
    units = Units(found.characters, found.seconds, found.images) if tokens.media else None
    worst = table.worst_cost(tokens.input, tokens.output, uses_of(tokens.media), units)
    assert 0 <= table.cost(tokens) <= worst


@given(full_tables, anything)
def test_the_parts_add_up_to_the_cost_and_no_class_is_negative_or_more_than_its_whole(
    table: Prices, tokens: Tokens
) -> None:
    parts = table.parts(tokens)
    assert all(part.amount > 0 for part in parts)
    assert table.cost(tokens) == ceil(Fraction(sum(part.amount * part.price for part in parts), 10**6))
    units = {"characters", "seconds", "images"}
    assert sum(part.amount for part in parts if part.token_class not in units) == tokens.input + tokens.output


@given(full_tables, used)
def test_text_costs_the_same_whether_or_not_anything_else_has_a_price(table: Prices, tokens: Tokens) -> None:
    plain = Prices(*table[:5])
    with_nothing = Tokens(
        tokens.input, tokens.cached, tokens.cache_write, tokens.output, tokens.reasoning, media=Media()
    )
    assert table.cost(tokens) == plain.cost(tokens) == table.cost(with_nothing)
    assert table.worst_cost(tokens.input, tokens.output) == plain.worst_cost(tokens.input, tokens.output)


def test_each_class_has_its_own_price_and_falls_back_to_its_side() -> None:
    tokens = Tokens(input=100, cached=30, output=50, reasoning=5, media=Media(20, 40, 10, 15, 7, 8, 9))
    rows = [("input", 0, 10**6), ("output", 0, 2 * 10**6)]
    table = book(*rows).at(1)
    assert table is not None
    assert table.cost(tokens) == 100 + 2 * 50
    own = [
        ("audio_input", 0, 3 * 10**6),
        ("image_input", 0, 5 * 10**6),
        ("audio_output", 0, 7 * 10**6),
        ("image_output", 0, 11 * 10**6),
        ("cached_input", 0, 0),
        ("characters", 0, 13 * 10**6),
        ("seconds", 0, 17 * 10**6),
        ("images", 0, 19 * 10**6),
    ]
    table = book(*rows, *own).at(1)
    assert table is not None
    assert table.cost(tokens) == (10 + 20 * 3 + 40 * 5 + 25 * 2 + 10 * 7 + 15 * 11 + 7 * 13 + 8 * 17 + 9 * 19)


def test_what_a_cache_held_of_audio_costs_its_full_price() -> None:
    table = book(("input", 0, 10**6), ("cached_input", 0, 0), ("audio_input", 0, 3 * 10**6)).at(1)
    assert table is not None
    assert table.cost(Tokens(input=10, cached=8, media=Media(audio_input=6))) == 6 * 3


def test_a_model_may_be_priced_by_what_it_makes_alone() -> None:
    for name in ("characters", "seconds", "images"):
        table = book((name, 0, 15 * 10**9)).at(1)
        assert table is not None
        assert not table.by_tokens
        assert table.output is None
        assert table.cost(Tokens(media=Media(**{name: 3}))) == 3 * 15_000
    assert book(("audio_input", 0, 1), ("image_output", 0, 1), ("input_flex", 0, 1)).at(1) is None


# ---------------------------------------------------------------------- tiers


def test_a_tier_has_the_prices_that_are_given_for_it_and_the_standard_ones_otherwise() -> None:
    table = book(
        ("input", 0, 100), ("output", 0, 200), ("input_flex", 0, 50), ("batch_output", 0, 90),
        ("output_priority", 0, 400), ("input_priority", 10, 180), ("cached_input", 0, 10),
    ).at(5)  # fmt: skip
    assert table is not None
    assert table.of_tier("flex")[:5] == (50, 10, 50, 200, 200)
    assert table.of_tier("priority")[:5] == (100, 10, 100, 400, 400)
    assert table.of_tier("batch")[:5] == (100, 10, 100, 90, 90)
    assert table.of_tier("scale") is table
    assert table.holding("flex")[:5] == (100, 10, 100, 200, 200)
    assert table.holding("priority")[:5] == (100, 10, 100, 400, 400)
    assert table.holding("") is table


@given(
    st.dictionaries(st.sampled_from([name for name, _ in TOKEN_CLASSES]), prices),
    anything,
    st.sampled_from(["flex", "priority", "batch"]),
)
def test_what_is_held_for_a_tier_covers_that_tier_and_the_standard_one(
    rows: dict[str, int], tokens: Tokens, tier: str
) -> None:
    table = PriceBook([PriceRow(name, 0, price) for name, price in rows.items()]).at(1)
    if table is None:
        return
    found = tokens.media or Media()
    held = table.holding(tier).worst_cost(
        tokens.input,
        tokens.output,
        uses_of(tokens.media),
        Units(found.characters, found.seconds, found.images),
    )
    assert table.cost(tokens) <= held
    assert table.of_tier(tier).cost(tokens) <= held
