"""Somebody tidies up in the directory of the journals while calls are under way: nothing is lost and nobody is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from llmops.usage import journal
from tests.e2e.test_budget_under_fire import Answer, Fire, ask, client_session, fire, wait_for
from tests.installation import Installation


def _locks(directory: Path) -> None:
    for path in directory.glob("*.lock"):
        path.unlink()


def _segments(directory: Path) -> None:
    for path in directory.glob("*.jsonl"):
        path.unlink(missing_ok=True)


def _moved(directory: Path) -> None:
    away = directory.parent / "away"
    away.mkdir(exist_ok=True)
    for path in directory.glob("*.jsonl"):
        path.rename(away / path.name)


def _everything(directory: Path) -> None:
    # The data planes put back what is deleted while the rest still is.
    shutil.rmtree(directory, ignore_errors=True)


WAYS: list[Callable[[Path], None]] = [_locks, _segments, _moved, _everything]


@pytest.fixture(scope="module")
def found(module_installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fire]:
    # Answers take their time, so that many are under way while few are made.
    with fire(module_installation, tmp_path_factory.mktemp("fire"), limit="5", latency=400) as fired:
        yield fired


@pytest.mark.timeout(600)
async def test_journals_that_vanish_under_load(found: Fire) -> None:
    installation = found.installation
    directory = installation.data_dir / "journal"
    answers: list[Answer] = []
    async with client_session() as session:
        for vanish in WAYS:
            answers += await _served_meanwhile(found, session, directory, vanish)
            assert Counter(answer.status for answer in answers) == {200: len(answers)}, vanish.__name__
            served = found.served()
            assert {answer.call for answer in answers} == served.keys(), vanish.__name__
    wait_for(lambda: served.keys() <= found.calls().keys())
    assert found.calls() == {call: ("ok", cost) for call, (_, cost) in served.items()}
    wait_for(lambda: found.window()[2] == 0)
    assert found.window() == (5 * 10**9, sum(cost for _, cost in served.values()), 0, 0, 0)
    assert installation.rows("SELECT state, problem FROM usage_journal") == [("open", "")] * 2


async def _served_meanwhile(
    found: Fire, session: ClientSession, directory: Path, vanish: Callable[[Path], None]
) -> list[Answer]:
    """The answers of 12 clients while it vanishes three times, and of two after it vanished once more at rest."""
    answers: list[Answer] = []
    done = asyncio.Event()

    async def client(port: int) -> None:
        while not done.is_set():
            answers.append(await ask(session, port))
            # A steady load, which leaves the machine to what happens under it.
            await asyncio.sleep(0.2)

    async def attack() -> None:
        before = set(journal.found(directory))
        assert len(before) == 2, vanish.__name__
        for _ in range(3):
            enough = len(answers) + 20
            while len(answers) < enough:
                await asyncio.sleep(0.005)
            vanish(directory)
            # An ingester looks whether writers live about once a second, when it has nothing to book.
            until = time.monotonic() + 120
            while not all(journal.lock_path(directory, one).exists() for one in before):
                assert time.monotonic() < until, vanish.__name__
                await asyncio.sleep(0.05)
        done.set()

    await asyncio.gather(attack(), *(client(found.ports[n % 2]) for n in range(12)))
    # At rest, when ingesters try whether writers still live.
    vanish(directory)
    await asyncio.sleep(2.5)
    return answers + [await ask(session, port) for port in found.ports]


def readiness(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return str(json.load(answer)["status"])
    except urllib.error.HTTPError as answer:
        return str(json.load(answer)["status"])
    except OSError:
        return "gone"


@pytest.mark.timeout(600)
async def test_a_process_whose_journal_was_closed_ends_itself(found: Fire) -> None:
    """The last of this file: one of the data planes stays away."""
    async with client_session() as session:
        slow = [asyncio.create_task(ask(session, found.ports[0])) for _ in range(5)]
        assert {answer.status for answer in await asyncio.gather(*slow)} == {200}
        assert readiness(found.ports[0]) == "ready"
        found.installation.manage(
            "shell",
            "-c",
            "from llmops.usage.models import Journal; Journal.objects.update(state=Journal.CLOSED)",
        )
        seen = set()
        until = time.monotonic() + 120
        while found.planes[0].returncode is None or found.planes[1].returncode is None:
            seen.add(await asyncio.to_thread(readiness, found.ports[0]))
            assert time.monotonic() < until, seen
            await asyncio.sleep(0.02)
        assert "was closed while its process lives" in found.planes[0].log_tail()
        found.start(0)
        await asyncio.to_thread(found.ready, 0)
        assert (await ask(session, found.ports[0])).status == 200
