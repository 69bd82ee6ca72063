"""What a plane has of others, as far as it knows them, and what it serves before there is anything to serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from llmops.gateway.stalling import Stallable
from llmops.serving.snapshot import EMPTY_DOCUMENT, KeyEntry, LiveState, Snapshot
from llmops.usage.records import Attempt, Ended, Record

if TYPE_CHECKING:
    from llmops.gateway.routing import View


class Journal(Protocol):
    """``usage.journal.JournalWriter``."""

    @property
    def healthy(self) -> bool: ...
    @property
    def sequence(self) -> int: ...
    def append(self, record: Record) -> None: ...
    def tend(self) -> str: ...


class UnderWay(Stallable, Protocol):
    """``call.Call``, as far as a plane knows its calls."""

    headers: dict[bytes, bytes]
    attempts: list[Attempt]
    view: View
    key: KeyEntry | None


class Tracing(Protocol):
    """``telemetry.tracing.Tracing``."""

    def enter(self, call: UnderWay) -> None: ...
    def leave(self, call: UnderWay) -> None: ...
    def tell(self, ended: Ended) -> None: ...
    def close(self) -> None: ...


class Following(Protocol):
    """``kept.background.Background``; a call and its attempt are known there."""

    def room(self, project: str) -> None: ...
    def follow(self, call: Any, trial: Any, response_id: str) -> None: ...
    def saw(self, provider: str, response_id: str, body: bytes) -> None: ...
    def gone(self, provider: str, response_id: str) -> None: ...
    def credentials(self) -> list[str]: ...
    def __len__(self) -> int: ...


class Tended(Protocol):
    """``kept.metering.Metering``."""

    def tick(self) -> None: ...
    async def close(self) -> None: ...


def nothing() -> Snapshot:
    """Before the first snapshot is loaded: nobody may do anything."""
    return Snapshot(
        revision=0,
        digest="",
        document=EMPTY_DOCUMENT,
        live=LiveState(keys={}, budgets=(), credentials={}),
        revision_version=-1,
        live_version=-1,
    )
