"""Who waits for a place that projects share: each project's calls in the order in which they came, and which project is next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator


class Waiting:
    """Projects stand in the order in which they were served, longest ago first."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def of(self, project: str) -> int:
        """How many of the project wait."""
        return len(self._lines.get(project, ()))

    def add(self, project: str, place: asyncio.Future[None]) -> None:
        self._lines.setdefault(project, deque()).append(place)

    def first(self, project: str) -> asyncio.Future[None]:
        """Who waited longest of the project, which was served then."""
        line = self._lines.pop(project)
        place = line.popleft()
        if line:
            self._lines[project] = line
        return place

    def last(self, project: str) -> asyncio.Future[None]:
        """Who came last of the project."""
        line = self._lines[project]
        place = line.pop()
        if not line:
            del self._lines[project]
        return place

    def forget(self, project: str, place: asyncio.Future[None]) -> bool:
        """Whether it waited, until now."""
        line = self._lines.get(project)
        if line is None or place not in line:
            return False
        line.remove(place)
        if not line:
            del self._lines[project]
        return True
