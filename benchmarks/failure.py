"""The one error of the benchmarks."""

from __future__ import annotations


class BenchmarkFailed(Exception):
    """What was measured is not what should have been; the text says what happened. No figures are given then."""
