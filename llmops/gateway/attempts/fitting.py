"""What was done to an input that is too long for a context window, as the caller is told."""

from __future__ import annotations


class Fitting:
    """What was done to make a call's input fit."""

    __slots__ = ("dropped", "larger", "summarized", "tries")

    def __init__(self) -> None:
        self.tries = 0
        self.dropped = 0
        self.summarized = False
        self.larger = False

    @property
    def word(self) -> bytes:
        """The value of ``x-llmops-context``; empty when nothing was done."""
        if self.larger:
            return b"larger_model"
        if self.summarized:
            return b"summarized"
        return b"dropped=%d" % self.dropped if self.dropped else b""
