"""Bytes of one process that keys and projects share.

After whatever it takes, what a key keeps and what its project keeps add up to no more than twice what is still free. So one key
alone may keep half of all, the keys of one project together two thirds, and whoever comes next always finds room (dynamic
thresholds: Choudhury and Hahne 1998, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches").
"""

from __future__ import annotations

#: How many times what is free a key and its project may keep.
TIMES = 2
#: What is smaller is not counted: most is, and what all of it takes at once is bounded by how many calls there may be.
UNCOUNTED = 16 * 1024
#: What comes in pieces is counted so many bytes ahead: to count every piece would cost more than it.
AHEAD = 64 * 1024


class Portion:
    """What one call keeps. ``size`` in bytes; ``close`` it."""

    __slots__ = ("_key", "_project", "_shared", "size")

    def __init__(self, shared: SharedBytes, key: str, project: str) -> None:
        self._shared = shared
        self._key = key
        self._project = project
        self.size = 0

    def keep(self, size: int) -> bool:
        """From now on it keeps ``size`` bytes in all; False, and all as before, when that is more than its share."""
        if not self._shared.move(self._key, self._project, size - self.size):
            return False
        self.size = size
        return True

    def close(self) -> None:
        self.keep(0)


class Pieces:
    """What comes in pieces and is kept to be put together, up to ``most`` bytes. ``over``: it was more than that, or than there was
    room for, and nothing of it is kept. ``close`` it."""

    __slots__ = ("_counted", "_kept", "_most", "_portion", "_size", "over")

    def __init__(self, portion: Portion, most: int) -> None:
        self._portion = portion
        self._most = most
        self._kept: list[bytes] = []
        self._size = 0
        self._counted = min(UNCOUNTED, most)
        self.over = False

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, data: bytes) -> None:
        if self.over:
            return
        self._size += len(data)
        if self._size > self._counted:
            self._counted = min(self._size + AHEAD, self._most)
            if self._size > self._most or not self._portion.keep(self._counted):
                self.over = True
                self.close()
                return
        self._kept.append(data)

    def joined(self) -> bytes:
        return b"".join(self._kept)

    def close(self) -> None:
        self._kept.clear()
        self._portion.close()


class SharedBytes:
    """``limit`` bytes. Belongs to one event loop."""

    __slots__ = ("_of_keys", "_of_projects", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._of_keys: dict[str, int] = {}
        self._of_projects: dict[str, int] = {}

    def portion(self, key: str, project: str) -> Portion:
        """Of a call with the key ``key`` of ``project``; both are ids. Nothing is kept yet."""
        return Portion(self, key, project)

    def of_key(self, key: str) -> int:
        return self._of_keys.get(key, 0)

    def of_project(self, project: str) -> int:
        return self._of_projects.get(project, 0)

    def move(self, key: str, project: str, more: int) -> bool:
        """Take ``more`` bytes, or give back where it is negative. Whether they were to be had."""
        of_key = self._of_keys.get(key, 0) + more
        of_project = self._of_projects.get(project, 0) + more
        used = self.used + more
        if more > 0 and of_key + of_project > TIMES * (self.limit - used):
            return False
        self.used = used
        _put(self._of_keys, key, of_key)
        _put(self._of_projects, project, of_project)
        return True


def _put(had: dict[str, int], whose: str, size: int) -> None:
    if size:
        had[whose] = size
    else:
        had.pop(whose, None)
