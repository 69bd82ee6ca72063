"""What most events of a stream of chat have in common, so that the next one need not be read as JSON.

One model's chunks differ in the text of their one delta, and perhaps in the letters that a provider adds to hide how long
it is. A ``Shape`` is learned from a chunk that was read as JSON. It knows the bytes around the text, and takes an event for
one of its kind when exactly they stand around something that a JSON string says literally. That such an event is the JSON of
the first with another text is tried out once, on an event with a text of our own: whatever reads JSON then reads them alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TEXT = re.compile(rb'"content": ?"([^"\\]+)"')
_PADDING = re.compile(rb'"obfuscation": ?"([A-Za-z0-9]*)"[^"\\]*\Z')
#: Stand where the text and the padding stand, and nowhere else.
_PROBE, _PADDED = b"~the text of a probe~", b"0000000000paddingofaprobe0000000000"


class Shape:
    """Of an event: ``before`` TEXT ``after``, or with padding ``before`` TEXT ``after`` PADDING ``end``."""

    __slots__ = ("_after", "_before", "_end", "_length", "_shown", "_start", "index")

    def __init__(
        self,
        around: tuple[bytes, bytes, bytes],
        index: int,
        shown: tuple[bytes, bytes, bytes],
    ) -> None:
        self._before, self._after, self._end = around
        self._start = len(self._before)
        self._length = self._start + len(self._after) + len(self._end)
        #: of the choice
        self.index = index
        #: the same of what is shown of such an event; None when it is shown as it is
        self._shown = shown if shown != around else None

    def text_in(self, event: bytes) -> str | None:
        """The text of an event that is of this kind and complete; None of any other."""
        if not event.startswith(self._before):
            return None
        start = self._start
        end = event.find(b'"', start)
        if not event.startswith(self._after, end):
            return None
        if len(event) - end + start != self._length:
            # What stands in the place of the padding, if there is one.
            padding = event[end + len(self._after) : -len(self._end)] if self._end else b""
            if not padding.isalnum() or not event.endswith(self._end):
                return None
        elif self._end and not event.endswith(self._end):
            return None
        try:
            text = event[start:end].decode()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() and "\\" not in text else None

    def shown(self, event: bytes) -> bytes:
        """What the client sees of an event of this kind."""
        if self._shown is None:
            return event
        end = event.find(b'"', self._start)
        return self._around(self._shown, event, event[self._start : end], end)

    def with_text(self, event: bytes, encoded: bytes) -> bytes:
        """What the client sees of it with another text, ``encoded`` as JSON has it between its quotation marks."""
        return self._around(
            self._shown or (self._before, self._after, self._end),
            event,
            encoded,
            event.find(b'"', self._start),
        )

    def _around(self, shown: tuple[bytes, bytes, bytes], event: bytes, text: bytes, end: int) -> bytes:
        before, after, last = shown
        if not self._end:
            return b"".join((before, text, after))
        padding = event[end + len(self._after) : -len(self._end)]
        return b"".join((before, text, after, padding, last))


def learned(event: bytes, index: int, read: Callable[[bytes, str], bytes | None], text: str) -> Shape | None:
    """The shape of ``event``, whose one text is ``text``; None when it has none that is certain.

    ``read`` is given an event that should be like this one but for its text, and that text. It reads it as JSON and returns
    what is shown of it, or None when anything else differs.
    """
    place = _TEXT.search(event)
    if place is None or place[1] != text.encode() or not text.isprintable():
        return None
    before, rest = event[: place.start(1)], event[place.end(1) :]
    padding = _PADDING.search(rest)
    if padding is None:
        around, padded = (before, rest, b""), b""
    else:
        around, padded = (before, rest[: padding.start(1)], rest[padding.end(1) :]), _PADDED
    probe = b"".join((before, _PROBE, around[1], padded, around[2]))
    shown = read(probe, _PROBE.decode())
    if shown is None or shown.count(_PROBE) != 1 or (padded and shown.count(padded) != 1):
        return None
    first, _, others = shown.partition(_PROBE)
    if not padded:
        return Shape(around, index, (first, others, b""))
    middle, _, last = others.partition(padded)
    return Shape(around, index, (first, middle, last))
