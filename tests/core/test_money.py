"""Money: exact both ways, refuses what would lose a nanodollar, rounds a cost up once."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import InvalidRequest
from llmops.core.money import MAX_NANO, NANO, cost_nano, format_usd, parse_usd

amounts = st.integers(min_value=0, max_value=MAX_NANO // NANO * NANO)


@given(amounts)
def test_text_and_back_is_exact(nano: int) -> None:
    assert parse_usd(format_usd(nano)) == nano


@given(amounts, st.integers(min_value=0, max_value=8))
def test_rounding_for_display_is_half_up(nano: int, places: int) -> None:
    shown = Decimal(format_usd(nano, places=places))
    exact = Decimal(nano).scaleb(-9)
    assert -shown.as_tuple().exponent == places
    assert abs(shown - exact) * 2 <= Decimal(1).scaleb(-places)


def test_negative_amounts_keep_their_sign() -> None:
    assert format_usd(-1_500_000_000) == "-1.50"
    assert format_usd(-1, places=2) == "-0.00"


@pytest.mark.parametrize(
    "bad",
    [0.1, True, "", "abc", "-1", "NaN", "Infinity", "0.0000000001", "1e30", "1 000", "$5", Decimal("-0.5")],
)
def test_what_is_no_amount_is_refused_with_the_field(bad: object) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_usd(bad, field="limit_usd")  # type: ignore[arg-type]
    assert refusal.value.param == "limit_usd"
    assert "limit_usd" in refusal.value.message


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**12)), max_size=6))
def test_a_cost_is_rounded_up_once(parts: list[tuple[int, int]]) -> None:
    exact = sum(Fraction(tokens * price, 10**6) for tokens, price in parts)
    assert 0 <= cost_nano(parts) - exact < 1
