from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.rig import Rig, Upstream


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
