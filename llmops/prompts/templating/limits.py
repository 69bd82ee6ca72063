"""What a template and a rendering may take, and how it is said that they take more. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MOST_SOURCE = 100_000
MOST_NODES, DEEPEST_NODE, MOST_LOOPS_INSIDE, MOST_TOKENS = 4_000, 60, 3, 20_000
#: Rounds of all loops of a rendering together, and characters of all of it.
MOST_ROUNDS, MOST_RENDERED = 10_000, 2_000_000


class TemplateProblem(ValueError):
    """What is wrong with a template, as the rest of a sentence; ``line`` counts from 1, 0 where none is to blame."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


class RenderingStopped(ValueError):
    """A template cannot be rendered with these values; the text says why, and repeats none of them."""


@dataclass(slots=True)
class Budget:
    """What a rendering may still spend. Shared by all layers of a prompt."""

    rounds: int = MOST_ROUNDS
    chars: int = MOST_RENDERED

    def round(self) -> None:
        self.rounds -= 1
        if self.rounds < 0:
            raise RenderingStopped(f"its loops go more than {MOST_ROUNDS:,} rounds; send fewer items")

    def write(self, piece: str) -> None:
        self.chars -= len(piece)
        if self.chars < 0:
            raise RenderingStopped(f"it would become longer than {MOST_RENDERED:,} characters; send less")
