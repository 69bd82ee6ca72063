"""Sketches as numbers agree with sketches as rows, and with what was measured."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmops.core.histogram import bucket_of, quantile
from llmops.core.sketches import calls_in, decode, encode, quantiles, sketch_of

COUNTS = st.lists(st.tuples(st.integers(0, 2205), st.integers(1, 2**40)), max_size=40)
WANTED = (0.0, 0.5, 0.95, 0.99, 1.0)


@given(COUNTS)
def test_what_is_stored_comes_back(counts: list[tuple[int, int]]) -> None:
    sketch = sketch_of(counts)
    assert decode(encode(sketch)) == sketch == decode(memoryview(encode(sketch)))
    assert calls_in(sketch) == sum(count for _, count in counts)


@given(st.lists(COUNTS, max_size=6))
def test_adding_numbers_is_adding_counts(parts: list[list[tuple[int, int]]]) -> None:
    together: Counter[int] = Counter()
    for part in parts:
        for bucket, count in part:
            together[bucket] += count
    merged = sum(sketch_of(part) for part in parts)
    assert merged == sketch_of(together.items())
    assert quantiles(merged, WANTED) == [quantile(together.items(), q) for q in WANTED]


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200))
def test_any_quantile_is_within_a_percent(durations: list[int]) -> None:
    ordered = sorted(durations)
    for q, told in zip(
        (0.5, 0.95), quantiles(sketch_of((bucket_of(one), 1) for one in durations), (0.5, 0.95)), strict=True
    ):
        exact = ordered[max(1, -(-round(q * 100) * len(ordered) // 100)) - 1]
        assert told is not None and abs(told - exact) <= 0.01 * exact + 1


def test_small_counts_take_little_room() -> None:
    assert encode(0) == b"" and decode(b"") == 0
    assert len(encode(sketch_of([(700, 255), (701, 3)]))) == 3 + 2
    assert len(encode(sketch_of([(700, 256), (701, 3)]))) == 3 + 4
    assert len(encode(sketch_of([(700, 1), (701, 2**33)]))) == 3 + 16
