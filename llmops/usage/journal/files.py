"""Where a journal's files lie and what they are called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

_SEGMENT_NAME = re.compile(r"([0-9a-f-]{36})\.(\d+)\.jsonl")


def segment_path(directory: Path, journal_id: UUID, number: int) -> Path:
    return directory / f"{journal_id}.{number}.jsonl"


def lock_path(directory: Path, journal_id: UUID) -> Path:
    return directory / f"{journal_id}.lock"


def found(directory: Path) -> dict[UUID, list[int]]:
    """Journals with segments in ``directory``: their segment numbers, ascending; empty when it does not exist."""
    journals: dict[UUID, list[int]] = {}
    for name in names_in(directory):
        if match := _SEGMENT_NAME.fullmatch(name):
            with suppress(ValueError):
                journals.setdefault(UUID(match[1]), []).append(int(match[2]))
    for numbers in journals.values():
        numbers.sort()
    return journals


def same_file(fd: int, path: Path) -> bool:
    """Whether ``path`` names the open file ``fd``."""
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return os.path.samestat(os.fstat(fd), there)


def names_in(directory: Path) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            yield from sorted(entry.name for entry in entries)
    except FileNotFoundError:
        return
