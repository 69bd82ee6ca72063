"""Whole latency sketches (``core.histogram``) as numbers, for adding up hundreds of them at once.

A sketch is an integer in base 2**64 whose digit ``i`` counts the durations of logarithmic bucket ``i``; 0 is the empty one.
Adding sketches is adding integers, whatever is in them, as long as no bucket counts 2**64.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from llmops.core.histogram import value_of

#: Bytes a count takes -> the code of ``array`` for it.
_WIDTHS = {array(code).itemsize: code for code in "BHIQ"}
_HEAD = struct.Struct("<HB")


def sketch_of(counts: Iterable[tuple[int, int]]) -> int:
    """The sketch of ``(bucket, count)`` pairs, each bucket any number of times."""
    digits: array[int] = array(_WIDTHS[8])
    for bucket, count in counts:
        if bucket >= len(digits):
            digits.extend([0] * (bucket + 1 - len(digits)))
        digits[bucket] += count
    return int.from_bytes(_little(digits), "little")


def encode(sketch: int) -> bytes:
    """For storing: the first bucket (2 bytes), the width of a count (1), and the counts from there on; empty for none."""
    first, digits = _digits(sketch)
    if not digits:
        return b""
    most = max(digits)
    width = next(width for width in sorted(_WIDTHS) if most < 1 << 8 * width)
    return _HEAD.pack(first, width) + _little(array(_WIDTHS[width], digits))


def decode(stored: bytes | memoryview) -> int:
    """What ``encode`` was given."""
    if not stored:
        return 0
    first, width = _HEAD.unpack_from(stored)
    counts = array(_WIDTHS[width])
    counts.frombytes(stored[_HEAD.size :])
    if sys.byteorder == "big":
        counts.byteswap()
    return int.from_bytes(_little(array(_WIDTHS[8], counts)), "little") << 64 * first


def calls_in(sketch: int) -> int:
    return sum(_digits(sketch)[1])


def calls_within(sketch: int, bucket: int) -> int:
    """How many durations lie in logarithmic buckets up to and with ``bucket``."""
    return calls_in(sketch & ((1 << 64 * (bucket + 1)) - 1))


def quantiles(sketch: int, wanted: Sequence[float]) -> list[float | None]:
    """Each ``q`` (0..1) of ``wanted`` in microseconds, as ``histogram.quantile`` has it; None when the sketch is empty."""
    first, digits = _digits(sketch)
    upto = list(accumulate(digits))
    if not upto:
        return [None] * len(wanted)
    return [value_of(first + bisect_left(upto, max(1, math.ceil(q * upto[-1])))) for q in wanted]


def _digits(sketch: int) -> tuple[int, array[int]]:
    """The first bucket that counts anything, and the counts from there to the last one that does."""
    digits: array[int] = array(_WIDTHS[8])
    if not sketch:
        return 0, digits
    first = ((sketch & -sketch).bit_length() - 1) // 64
    sketch >>= 64 * first
    digits.frombytes(sketch.to_bytes((sketch.bit_length() + 63) // 64 * 8, "little"))
    if sys.byteorder == "big":
        digits.byteswap()
    return first, digits


def _little(digits: array[int]) -> bytes:
    if sys.byteorder == "big":
        digits = array(digits.typecode, digits)
        digits.byteswap()
    return digits.tobytes()
