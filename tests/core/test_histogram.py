"""Latency sketches: within one per cent of the truth, and merging is adding."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from llmops.core.histogram import bucket_of, quantile, value_of

durations = st.integers(min_value=1, max_value=3_600_000_000)


@given(durations)
def test_a_bucket_represents_its_values_within_one_per_cent(microseconds: int) -> None:
    assert abs(value_of(bucket_of(microseconds)) - microseconds) <= 0.01 * microseconds


@given(st.lists(durations, min_size=1, max_size=300), st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_one_per_cent_of_the_sorted_list(values: list[int], q: float) -> None:
    truth = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    found = quantile(Counter(map(bucket_of, values)).items(), q)
    assert found is not None
    assert abs(found - truth) <= 0.01 * truth


@given(st.lists(durations, max_size=100), st.lists(durations, max_size=100))
def test_merged_sketches_are_the_sketch_of_both(left: list[int], right: list[int]) -> None:
    merged = Counter(map(bucket_of, left)) + Counter(map(bucket_of, right))
    assert merged == Counter(map(bucket_of, left + right))


def test_no_samples_have_no_quantile() -> None:
    assert quantile([], 0.5) is None
