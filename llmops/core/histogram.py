"""Mergeable latency sketches: logarithmic buckets with gamma 1.02, so that any quantile is within 1 % of the truth.

The bucket of ``x`` microseconds is ``ceil(log_gamma(x))``; its representative ``2 * gamma**i / (gamma + 1)`` has a
relative error of at most ``(gamma - 1) / (gamma + 1)`` (Masson, Rim and Lee 2019, "DDSketch"). Merging two sketches is
adding counts bucket by bucket, which plain SQL does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

GAMMA = 1.02
_LOG_GAMMA = math.log(GAMMA)


def bucket_of(microseconds: int) -> int:
    """Bucket index of a duration in microseconds; zero and less fall into bucket 0."""
    return 0 if microseconds <= 1 else math.ceil(math.log(microseconds) / _LOG_GAMMA)


def value_of(bucket: int) -> float:
    """Representative duration of a bucket in microseconds."""
    return 1.0 if bucket <= 0 else 2.0 * GAMMA**bucket / (GAMMA + 1.0)


def quantile(buckets: Iterable[tuple[int, int]], q: float) -> float | None:
    """The ``q`` quantile (0..1) in microseconds of ``(bucket, count)`` pairs in any order; None when empty.

    Nearest-rank: the smallest value such that at least ``ceil(q * n)`` samples are at or below it.
    """
    ordered = sorted(buckets)
    total = sum(count for _, count in ordered)
    if total == 0:
        return None
    rank = max(1, math.ceil(q * total))
    seen = 0
    for bucket, count in ordered:
        seen += count
        if seen >= rank:
            return value_of(bucket)
    return value_of(ordered[-1][0])
