"""What policies know about one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmops.core.errors import ConsoleError
from llmops.core.verdicts import MAX_VERDICTS, Verdict
from llmops.gateway.policing.streams import Watcher
from llmops.policies.decisions import Placeholders
from llmops.policies.engine import Guard


class Policing:
    """What policies know about one call; in memory for as long as the call lasts."""

    __slots__ = ("error", "guard", "placeholders", "retries", "schema", "verdicts", "watcher")

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.placeholders = Placeholders()
        self.verdicts: list[Verdict] = []
        #: attempts that were made again because of a policy
        self.retries = 0
        #: why the answer may not go out
        self.error: ConsoleError | None = None
        self.schema: Any = None
        self.watcher: Watcher | None = None

    @property
    def looks_at_answers(self) -> bool:
        return bool(self.guard.after) or bool(self.placeholders.values)

    def add(self, verdicts: Sequence[Verdict]) -> None:
        self.verdicts += verdicts
        if len(self.verdicts) > MAX_VERDICTS:
            # The last ones decided.
            del self.verdicts[:-MAX_VERDICTS]

    def told(self) -> list[Verdict]:
        """All verdicts, those about a stream that is not over included."""
        if self.watcher is not None:
            self.add(self.watcher.decision().verdicts)
            self.watcher = None
        return self.verdicts
