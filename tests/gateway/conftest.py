from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from openai import _base_client

from llmops.gateway.attempts import resilience
from llmops.gateway.kept import objects
from tests.gateway.keeping import MINE, configure
from tests.gateway.rig import Rig, Upstream

Found = TypeVar("Found")


@pytest.fixture(scope="session", autouse=True)
def platform_asked_at_once() -> Iterator[None]:
    """Every client of the SDK asks in a thread of its own what it runs on, and each loop of a test would start one for it."""

    def asked(look: Callable[[], Found]) -> Callable[[], Awaitable[Found]]:
        async def found() -> Found:
            return look()

        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_base_client, "asyncify", asked)
        yield


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream().serving() as running:
        yield running


@pytest.fixture
async def rig(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Rig]:
    made = Rig(tmp_path / "journal", upstream)
    yield made
    made.nothing_held()
    await made.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for the database or before the next try."""
    monkeypatch.setattr(objects, "PATIENCE_S", 0.1)
    monkeypatch.setattr(objects, "_LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(resilience, "BACKOFF_BASE_S", 0.001)


@pytest.fixture
async def kept(rig: Rig) -> AsyncIterator[Rig]:
    """Two projects with a key each, and a file of the first."""
    configure(rig)
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up", credential="c")
    rig.plane.objects.made("chat.completion", "chatcmpl-1", key=MINE, provider="up")
    rig.plane.objects.made("upload", "upload_1", key=MINE, provider="up")
    yield rig
