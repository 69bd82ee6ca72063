"""What stores over a network answered, remembered in this process: a data plane asks them beside its work, never in it.

A store that is away changes nothing: what it said last holds until it says something else. A key is asked for again every
``FRESH_S``, and at once when somebody has it read again (its ``generation`` is another then).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from llmops.core.errors import ConsoleError
from llmops.providers import secret_stores

FRESH_S = 300.0
#: What could not be read is tried again this often.
AGAIN_S = 10.0
#: What nobody asked for so long is forgotten.
FORGET_S = 900.0

Read = Callable[[str, str], str]


@dataclass(frozen=True)
class _Entry:
    source: str
    reference: str
    generation: str
    #: of which generation ``secret`` or ``error`` is
    read: str | None = None
    secret: str | None = None
    error: str = ""
    due: float = 0.0
    wanted: float = 0.0

    def __repr__(self) -> str:
        return f"_Entry({self.source}:{self.reference})"


class Memory:
    """Safe to use from several threads. ``changes`` rises whenever something reads differently than before."""

    def __init__(
        self, read: Read = secret_stores.read_secret, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self.changes = 0

    def value(self, key: str, *, source: str, reference: str, generation: str, wait: bool) -> str:
        """The secret behind a reference. Raises ``SecretUnavailable`` with what the store said, or that it is being asked."""
        now = self._clock()
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (entry.source, entry.reference) != (source, reference):
                entry = _Entry(source, reference, generation)
            entry = replace(entry, generation=generation, wanted=now)
            if entry.read != generation:
                entry = replace(entry, due=now)
            self._entries[key] = entry
        if wait and entry.read != generation:
            self._refresh(key)
            with self._lock:
                entry = self._entries[key]
        elif entry.due <= now:
            self._ask_beside()
        else:
            # The thread may be needed for what becomes due later.
            self._ask_beside(wake=False)
        if entry.secret is not None:
            return entry.secret
        raise secret_stores.SecretUnavailable(
            entry.error or f'"{source}:{reference}" is being read from its store.'
        )

    def refresh_due(self) -> None:
        """Read what is due, one after the other."""
        now = self._clock()
        with self._lock:
            for key in [key for key, one in self._entries.items() if now - one.wanted > FORGET_S]:
                del self._entries[key]
            due = [key for key, one in self._entries.items() if one.due <= now]
        for key in due:
            self._refresh(key)

    def forget(self) -> None:
        with self._lock:
            self._entries.clear()

    def _refresh(self, key: str) -> None:
        with self._lock:
            before = self._entries.get(key)
        if before is None:
            return
        secret, error, away = None, "", False
        try:
            secret = self._read(before.source, before.reference)
        except ConsoleError as refused:
            error, away = refused.message, isinstance(refused, secret_stores.StoreAway)
        except Exception as broken:
            error, away = f"Reading it failed ({type(broken).__name__}).", True
        if away and before.secret is not None:
            secret, error = before.secret, ""
        due = self._clock() + (AGAIN_S if away or secret is None else FRESH_S)
        with self._lock:
            present = self._entries.get(key)
            if present is None or (present.source, present.reference) != (before.source, before.reference):
                return
            if present.generation != before.generation:
                due = 0.0
            self._entries[key] = replace(present, read=before.generation, secret=secret, error=error, due=due)
            if (secret, error) != (before.secret, before.error):
                self.changes += 1

    def _ask_beside(self, *, wake: bool = True) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="secret-stores", daemon=True)
                self._thread.start()
        if wake:
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(1.0)
            self._wake.clear()
            with self._lock:
                if not self._entries:
                    self._thread = None
                    return
            self.refresh_due()


MEMORY = Memory()
