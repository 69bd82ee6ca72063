"""What the deltas of a streamed response have in common, so that the next one need not be read as JSON.

As ``shape`` for chunks of chat, with one thing more that differs from event to event: its number. A ``DeltaShape`` is learned from
an event that was read as JSON, and tried out on one with a text, a number and a padding of our own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TEXT = re.compile(rb'"delta": ?"([^"\\]+)"')
_NUMBER = re.compile(rb'"sequence_number": ?(\d{1,15})(?=[,}\s])')
_PADDING = re.compile(rb'"obfuscation": ?"([A-Za-z0-9]*)"')
#: Stand where the text, the number and the padding stand, and nowhere else.
_PROBES = (b"~the text of a probe~", b"987654321012345", b"0000000000paddingofaprobe0000000000")
TEXT, NUMBER, PADDING = range(3)


class DeltaShape:
    """Of an event: what stands before the first hole, then of each hole what it is and what stands behind it."""

    __slots__ = ("_first", "_start", "_steps")

    def __init__(self, first: bytes, steps: tuple[tuple[int, bytes], ...]) -> None:
        self._first = first
        self._start = len(first)
        #: what a hole is, the byte that ends it, what follows, and how long that is
        self._steps = tuple((kind, after[:1], after, len(after)) for kind, after in steps)

    def read(self, event: bytes) -> tuple[str, int] | None:
        """Text and number of an event that is of this kind and complete; None of any other."""
        if not event.startswith(self._first):
            return None
        at = self._start
        text, number = "", -1
        for kind, ends, after, length in self._steps:
            end = event.find(ends, at)
            if not event.startswith(after, end) or end <= at:
                return None
            found = event[at:end]
            at = end + length
            if kind == TEXT:
                try:
                    text = found.decode()
                except UnicodeDecodeError:
                    return None
                if not text.isprintable() or "\\" in text:
                    return None
            elif kind == NUMBER:
                if not found.isdigit() or len(found) > 15 or (found[0] == 48 and len(found) > 1):
                    return None
                number = int(found)
            elif not found.isalnum():
                return None
        return (text, number) if at == len(event) else None

    def with_text(self, event: bytes, encoded: bytes) -> bytes:
        """An event of this kind with another text, ``encoded`` as JSON has it between its quotation marks."""
        at = self._start
        for kind, ends, _, length in self._steps:
            end = event.find(ends, at)
            if kind == TEXT:
                return event[:at] + encoded + event[end:]
            at = end + length
        raise AssertionError("every shape has a text")


def learned(
    event: bytes, text: str, number: int, reads_alike: Callable[[bytes, str, int], bool]
) -> DeltaShape | None:
    """The shape of ``event``, which says ``text`` and has this number; None when it has none that is certain.

    ``reads_alike`` is given an event that should be like this one but for its text, its number and its padding, and the text and
    the number: whether it says so when it is read as JSON, and nothing else differs.
    """
    if not text.isprintable():
        return None
    holes: list[tuple[int, int, int]] = []
    for kind, pattern in enumerate((_TEXT, _NUMBER, _PADDING)):
        found = list(pattern.finditer(event))
        if kind == PADDING and not found:
            continue
        if len(found) != 1:
            return None
        start, end = found[0].span(1)
        if start < end:
            holes.append((start, end, kind))
    holes.sort()
    said = {kind: event[start:end] for start, end, kind in holes}
    if said.get(TEXT) != text.encode() or said.get(NUMBER) != b"%d" % number:
        return None
    edges = [end for _, end, _ in holes]
    nexts = [start for start, _, _ in holes[1:]] + [len(event)]
    first = event[: holes[0][0]]
    steps = tuple(
        (kind, event[end:following]) for (_, _, kind), end, following in zip(holes, edges, nexts, strict=True)
    )
    probe = first + b"".join(_PROBES[kind] + after for kind, after in steps)
    if not reads_alike(probe, _PROBES[TEXT].decode(), int(_PROBES[NUMBER])):
        return None
    return DeltaShape(first, steps)
