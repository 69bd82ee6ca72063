"""What a benchmark found, as Markdown: printed, and with ``--write`` put into docs/benchmarks.md between its markers."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Options:
    """``rounds`` and ``seconds`` of each round, None for the benchmark's own."""

    rounds: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    def text(self) -> str:
        lines = [list(self.header), *(list(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        # The first column is words, the others are figures.
        shown = [
            "| "
            + " | ".join(
                _pad(cell, width, column)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            + " |"
            for line in lines
        ]
        rule = (
            "| "
            + " | ".join(
                "-" * width if not column else "-" * (width - 1) + ":" for column, width in enumerate(widths)
            )
            + " |"
        )
        return "\n".join(([self.caption, ""] if self.caption else []) + [shown[0], rule, *shown[1:]])


def _pad(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


@dataclass(frozen=True)
class Bar:
    """A figure that was asked for, and what was measured."""

    what: str
    asked: str
    measured: str
    met: bool


@dataclass
class Section:
    name: str
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def text(self, command: str) -> str:
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        parts = [f"`{command}`, {today}, {machine()}."]
        if self.bars:
            rows = [[bar.what, bar.asked, bar.measured, "yes" if bar.met else "**no**"] for bar in self.bars]
            parts.append(Table(["asked", "bar", "measured", "met"], rows).text())
        parts += [table.text() for table in self.tables]
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts)


def machine() -> str:
    """Its shape and nothing that names it."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{usable} {platform.machine()} cores, {memory:.0f} GiB of memory, {platform.system()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def write(section: Section, command: str) -> None:
    """Replace what stands between the section's markers. Raises ``ValueError`` when they are not there."""
    begin, end = f"<!-- begin {section.name} -->", f"<!-- end {section.name} -->"
    before, found, rest = PAGE.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"docs/benchmarks.md has no lines {begin!r} and {end!r}")
    PAGE.write_text(f"{before}{begin}\n{section.text(command)}\n{end}{after}")
