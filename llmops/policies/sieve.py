"""One look at a text that tells which checks need not look at it.

Nearly every text holds nothing that any check looks for. The expressions of all checks stand in one RE2 set, which reads a
text once and names those that match; only the checks of these look at the text themselves. An expression here may match
too much (that costs time), never too little: it is the wider one of ``Pattern.wide``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import re2

_MEMORY = 64 * 1024 * 1024
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


@lru_cache(maxsize=128)
def sieve_of(expressions: tuple[str, ...]) -> Sieve:
    """One set, whose automaton is warm, for all guards with the same checks, whatever snapshot they are of."""
    return Sieve(expressions)
