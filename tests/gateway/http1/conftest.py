"""Tests of connections run on both loops: asyncio's own, and the one of production."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import uvloop

from tests.gateway.http1.wire import Provider

LOOPS: dict[str, asyncio.AbstractEventLoopPolicy] = {
    "asyncio": asyncio.DefaultEventLoopPolicy(),
    "uvloop": uvloop.EventLoopPolicy(),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # pytest-asyncio's newer way would turn to every test of the run.
    for item in items:
        if "event_loop_policy" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture"))


@pytest.fixture(params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return LOOPS[request.param]


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    await made.start()
    yield made
    await made.stop()
