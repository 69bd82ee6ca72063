"""One look at a text that tells which checks need not look at it.

Nearly every text holds nothing that any check looks for. The expressions of all checks stand in one RE2 set, which reads a
text once and names those that match; only the checks of these look at the text themselves. An expression here may match
too much (that costs time), never too little: it is the wider one of ``Pattern.wide``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import re2

if TYPE_CHECKING:
    from llmops.policies.checks.base import TextCheck

_MEMORY = 64 * 1024 * 1024
_UNANCHORED = re2._Anchor.UNANCHORED
#: Longer expressions, lists of more than a thousand words, would make the set slow to compile and too large to be kept.
MAX_EXPRESSION = 16_000
MAX_ALL = 64_000
ALL = -1
#: Matches every text, at its end. When a set does not name it, the automaton found no room, and the set says nothing.
_ALWAYS = rb"\z"


class Sieve:
    """A compiled set. Where an expression is empty, too long or cannot stand in a set, every text is looked at for it."""

    __slots__ = ("_always", "_bits", "_match", "_nothing", "bits")

    def __init__(self, expressions: Sequence[str], memory: int = _MEMORY) -> None:
        options = re2.Options()
        options.max_mem = memory
        options.log_errors = False
        options.never_capture = True
        found = re2.Set.SearchSet(options)
        #: for each expression the bit that stands for it in what ``find`` answers; 0 for one that is not sieved
        self.bits: list[int] = []
        #: the bits by place in the set
        self._bits: list[int] = []
        room = MAX_ALL
        for expression in expressions:
            bit = 0
            if 0 < len(expression) <= min(room, MAX_EXPRESSION):
                room -= len(expression)
                try:
                    found.Add(expression.encode())
                except re2.error:
                    pass
                else:
                    bit = 1 << len(self._bits)
                    self._bits.append(bit)
            self.bits.append(bit)
        self._always = found.Add(_ALWAYS)
        self._nothing = [self._always]
        # The wrapper around this only turns an empty answer into None.
        self._match = found._set.Match
        if self._bits:
            try:
                found.Compile()
            except re2.error:
                self._bits = []
                self.bits = [0] * len(self.bits)

    def find(self, data: bytes) -> int:
        """The bits of all expressions that match somewhere in a text."""
        if not self._bits:
            return 0
        found = self._match(data)
        if found == self._nothing:
            return 0
        if self._always not in found:
            return ALL
        bits = 0
        for place in found:
            if place != self._always:
                bits |= self._bits[place]
        return bits


@lru_cache(maxsize=512)
def sieve_of(expressions: tuple[str, ...]) -> Sieve:
    """One set, whose automaton is warm, for all guards with the same checks, whatever snapshot they are of."""
    return Sieve(expressions)


#: A place is asked for exactly when this many bytes or more would be held.
_MUCH = 64


class Openings:
    """From where on a text must wait for several checks together, in one look for nearly all texts."""

    __slots__ = ("_checks", "_others", "_search")

    def __init__(self, checks: Sequence[TextCheck]) -> None:
        self._checks = checks
        known = tuple(check.opening for check in checks if 0 < len(check.opening) <= MAX_EXPRESSION)
        self._search = _opening_of(known) if sum(map(len, known)) <= MAX_ALL else None
        #: those that must be asked themselves
        self._others = [
            check for check in checks if self._search is None or not 0 < len(check.opening) <= MAX_EXPRESSION
        ]

    def __bool__(self) -> bool:
        return bool(self._checks)

    def open_at(self, data: bytes, start: int) -> int:
        """The first place, from ``start`` on, from which more text could make a match; ``len(data)`` when there is none."""
        end = len(data)
        place = end
        if self._search is not None:
            ((found, _),) = self._search(_UNANCHORED, data, start, end)
            if found >= 0:
                place = found
            if end - place >= _MUCH:
                # Does not count repetitions, and so may hold too much.
                return min(check.open_at(data, start) for check in self._checks)
        for check in self._others:
            place = min(place, check.open_at(data, start))
        return place


@lru_cache(maxsize=512)
def _opening_of(expressions: tuple[str, ...]) -> Any:
    """A search for the earliest opening at the end of a text; None when there are too many for an automaton."""
    if not expressions:
        return None
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    options.never_capture = True
    try:
        found = re2.compile(f"(?:{'|'.join(expressions)})\\z".encode(), options)
    except re2.error:
        return None
    # Without the wrapper, which makes objects of what is nearly always nothing.
    return found._regexp.Match
