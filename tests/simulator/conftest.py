from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.simulator.running import RunningSimulator, running


@pytest.fixture(scope="session")
def one_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSimulator]:
    with running(tmp_path_factory.mktemp("simulator")) as simulator:
        yield simulator


@pytest.fixture
def simulator(one_simulator: RunningSimulator) -> RunningSimulator:
    one_simulator.reset()
    return one_simulator


@pytest.fixture
def client(simulator: RunningSimulator) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=simulator.url, api_key="sk-test-alice", max_retries=0) as client:
        yield client
