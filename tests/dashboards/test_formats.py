"""Figures keep their meaning when they are shortened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.money import NANO
from llmops.dashboards import formats
from llmops.dashboards.templatetags.figures import moments

T = "\u2009"


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (999, "$0.000000999"),
        (380, "$0.00000038"),
        (1_000_000, "$0.001000"),
        (9_999_999, "$0.010000"),
        (10_000_000, "$0.01"),
        (162_900_000, "$0.1629"),
        (860_000_000, "$0.86"),
        (NANO, "$1.00"),
        (4_554_999_999, "$4.55"),
        (2_000 * NANO, f"$2{T}000.00"),
        (-1_500_000_000, "-$1.50"),
    ],
)
def test_money_has_the_places_that_say_something(nano: int, shown: str) -> None:
    assert formats.usd(nano) == shown


@given(st.integers(min_value=1, max_value=10**15))
def test_money_that_was_spent_never_reads_as_nothing(nano: int) -> None:
    assert formats.usd(nano).strip("$0." + T) != ""


@given(st.integers(min_value=0, max_value=10**18))
def test_exact_money_loses_nothing(nano: int) -> None:
    whole, rest = formats.usd_exact(nano)[1:].split(".")
    assert int(whole) * NANO + int(rest.ljust(9, "0")) == nano


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (None, "–"),
        (0, f"0{T}µs"),
        (999.4, f"999{T}µs"),
        (999.6, f"1.00{T}ms"),
        (42_000, f"42.0{T}ms"),
        (999_400, f"999{T}ms"),
        (999_600, f"1.00{T}s"),
        (1_236_000, f"1.24{T}s"),
        (119_400_000, f"119{T}s"),
        (125_000_000, f"2{T}min 5{T}s"),
        (9_000_000_000, f"2{T}h 30{T}min"),
    ],
)
def test_durations_carry_the_unit_that_fits(microseconds: float | None, shown: str) -> None:
    assert formats.duration(microseconds) == shown


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [
        (0, 0, "–"),
        (0, 10, f"0.0{T}%"),
        (1, 100_000, f"<{T}0.1{T}%"),
        (99_999, 100_000, f">{T}99.9{T}%"),
        (100_000, 100_000, f"100{T}%"),
        (150, 100, f"150{T}%"),
        (1, 3, f"33.3{T}%"),
    ],
)
def test_a_share_is_nothing_or_all_only_when_it_is(part: int, whole: int, shown: str) -> None:
    assert formats.percent(part, whole) == shown


def test_changes() -> None:
    assert formats.change(110, 100) == (f"+10{T}%", "up")
    assert formats.change(50, 100) == (f"−50{T}%", "down")
    assert formats.change(100, 100) == ("as before", "flat")
    assert formats.change(1_000, 10) == (f"×{T}100", "up")
    assert formats.change(0, 100) == (f"−100{T}%", "down")
    for nothing_to_compare in ((5, 0), (5, None), (None, 5)):
        assert formats.change(*nothing_to_compare) == ("", "flat")
    assert formats.points(3, 100, 1, 100) == (f"+2.0{T}points", "up")
    assert formats.points(0, 100, 0, 10) == ("as before", "flat")
    assert formats.points(1, 1, 0, 0) == ("", "flat")


def test_counts_and_sizes() -> None:
    assert formats.count(1_234_567) == f"1{T}234{T}567"
    assert formats.short_count(9_999) == f"9{T}999"
    assert formats.short_count(12_345) == f"12.3{T}k"
    assert formats.short_count(999_600) == f"1.00{T}M"
    assert formats.size(999) == f"999{T}B"
    assert formats.size(3_412) == f"3.41{T}kB"
    assert formats.span(59) == f"59{T}s"
    assert formats.span(90_000) == f"1{T}d 1{T}h"


def test_moments_in_a_sentence_are_put_into_the_viewers_zone() -> None:
    shown = moments(
        'Left alone since 2026-03-05 14:37:22 UTC: <b>"no"</b> until 2026-03-06 07:00 UTC, v2026-03-05'
    )
    assert shown == (
        'Left alone since <time datetime="2026-03-05T14:37:22Z" data-as="exact">2026-03-05 14:37:22 UTC</time>: '
        '&lt;b&gt;&quot;no&quot;&lt;/b&gt; until <time datetime="2026-03-06T07:00Z" data-as="moment">2026-03-06 07:00 UTC</time>, '
        "v2026-03-05"
    )
