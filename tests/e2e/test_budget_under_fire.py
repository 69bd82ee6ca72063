"""A hard budget under many clients, two data planes and kill -9: never exceeded, and at the end exactly what was served.

The simulator's own ledger says what was served; the database is watched from outside all the time.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from llmops.usage import journal
from llmops.usage.journal import JournalReader
from llmops.usage.records import Ended, Held, Opened
from tests.installation import Installation, Process
from tests.simulator.running import RunningSimulator, running

KEY = "llmops_underfire_" + "f" * 40
INPUT_NANO, OUTPUT_NANO = 1_000, 10_000  # per token
ANSWER_TOKENS = 30
CONFIGURATION = """\
version: 1
projects: [{{slug: support, name: Support}}]
providers:
  - slug: sim
    kind: simulator
    base_url: {url}
    allow_private_network: true
    credentials: [{{name: only, secret: "plain:any"}}]
models:
  - {{slug: paced, provider: sim, model: "sim-gpt-4o+latency={latency}+tokens={tokens}", context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: {tokens}, prices: {{input: "1", output: "10"}}}}
routes:
  - {{slug: chat, targets: [{{model: paced}}]}}
budgets:
  - {{name: fire, scope: "project:support", limit_usd: "{limit}", period: once, hard: true}}
service_keys:
  - {{name: all, project: support, secret: "plain:{key}", routes: ["*"], models: ["*"]}}
"""
BODY = {
    "model": "chat",
    "messages": [{"role": "user", "content": "How much did support spend in May?"}],
}


WINDOW = "SELECT limit_nano, settled_nano, leased_nano, overrun_nano, unattributed_nano FROM budgets_window"


@dataclass
class Watch:
    """What was seen of the budget's window from outside."""

    samples: int = 0
    most: int = 0
    broken: list[tuple[Any, ...]] = field(default_factory=list)


@dataclass
class Fire:
    installation: Installation
    simulator: RunningSimulator
    ports: list[int]
    planes: list[Process]
    watch: Watch = field(default_factory=Watch)

    def start(self, index: int) -> None:
        port = self.ports[index]
        self.planes[index] = self.installation.spawn(
            [
                "granian",
                *("--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
                *(
                    "--loop",
                    "uvloop",
                    "--no-ws",
                    "--log-level",
                    "warning",
                    "console.asgi_gateway:application",
                ),
            ],
            name=f"plane-{index}",
        )

    def ready(self, index: int) -> None:
        url = f"http://127.0.0.1:{self.ports[index]}/readyz"
        self.installation.wait_ready(url, self.planes[index])

    def in_flight(self, index: int) -> Callable[[], int]:
        """Tells how many calls a data plane has held money for and not ended, from its journal."""
        directory = self.installation.data_dir / "journal"
        root = psutil.Process(self.planes[index].pid)
        family = {root.pid, *(child.pid for child in root.children(recursive=True))}
        for journal_id in journal.found(directory):
            reader = JournalReader(directory, journal_id)
            opened = reader.read(1)[0].record
            if isinstance(opened, Opened) and opened.pid in family:
                break
        else:
            pytest.fail("the data plane has no journal")
        kinds: Counter[type] = Counter()

        def count() -> int:
            while entries := reader.read(1000):
                kinds.update(type(entry.record) for entry in entries)
            return kinds[Held] - kinds[Ended]

        return count

    def window(self) -> tuple[int, int, int, int, int]:
        """(limit, settled, leased, overrun, unattributed)"""
        [row] = self.installation.rows(WINDOW) or [(0, 0, 0, 0, 0)]
        return row  # type: ignore[return-value]

    def calls(self) -> dict[str, tuple[str, int]]:
        """Call id -> (status, cost); fails when a call is there twice, which its key forbids anyway."""
        rows = self.installation.rows("SELECT id, status, cost_nano FROM usage_call")
        found = {str(key).replace("-", ""): (status, cost) for key, status, cost in rows}
        assert len(found) == len(rows)
        return found

    def served(self) -> dict[str, tuple[str, int]]:
        """Call id -> (outcome, cost) as the provider has it, from the file it wrote."""
        found: dict[str, tuple[str, int]] = {}
        for line in self.simulator.ledger.read_text().splitlines():
            record = json.loads(line)
            if record["endpoint"] != "chat.completions" and "chat" not in record["endpoint"]:
                continue
            call, _, attempt = str(record["attempt_id"]).rpartition(".")
            assert attempt == "1", "nothing here is retried"
            usage = record.get("usage", {})
            cost = usage.get("prompt", 0) * INPUT_NANO + usage.get("completion", 0) * OUTPUT_NANO
            assert call not in found, "served twice"
            found[call.replace("-", "")] = (record["outcome"], cost)
        return found


@contextmanager
def fire(installation: Installation, directory: Path, *, limit: str, latency: int = 100) -> Iterator[Fire]:
    """Two data planes and an ingester over a simulator that takes ``latency`` ms, with a watcher of the window."""
    with running(directory) as simulator:
        text = CONFIGURATION.format(
            url=simulator.url, key=KEY, limit=limit, tokens=ANSWER_TOKENS, latency=latency
        )
        installation.manage("apply", "-f", "-", stdin=text)
        ports = [installation.free_port(), installation.free_port()]
        installation.spawn(["manage.py", "ingest"])
        found = Fire(installation, simulator, ports, [None, None])  # type: ignore[list-item]
        for index in (0, 1):
            found.start(index)
        for index in (0, 1):
            found.ready(index)
        stop = threading.Event()

        def look() -> None:
            with installation.reader() as rows:
                while not stop.wait(0.01):
                    [(limit_nano, settled, leased, *_)] = rows(WINDOW) or [(0, 0, 0)]
                    found.watch.samples += 1
                    found.watch.most = max(found.watch.most, settled + leased)
                    if settled + leased > limit_nano or min(settled, leased) < 0:
                        found.watch.broken.append((limit_nano, settled, leased))

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield found
        finally:
            stop.set()
            watcher.join(30)
        assert found.watch.samples > 50 and found.watch.broken == []


@dataclass
class Answer:
    status: int
    call: str = ""
    code: str = ""
    message: str = ""
    tokens: int = 0


async def ask(session: aiohttp.ClientSession, port: int) -> Answer:
    """One call; status 0 when the connection died."""
    try:
        async with session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY) as response:
            body = await response.json()
            call = response.headers.get("x-llmops-call-id", "").replace("-", "")
            if response.status == 200:
                return Answer(200, call, tokens=body["usage"]["completion_tokens"])
            return Answer(response.status, call, body["error"]["code"], body["error"]["message"])
    except (aiohttp.ClientError, OSError):
        return Answer(0)


def client_session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        headers={"authorization": f"Bearer {KEY}"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=60),
    )


def wait_for(what: Callable[[], Any], *, seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


@pytest.mark.timeout(600)
async def test_200_clients_on_a_budget_for_50_of_their_calls(
    installation: Installation, tmp_path: Path
) -> None:
    with fire(installation, tmp_path, limit="0.017") as found:
        async with client_session() as session:
            answers = await asyncio.gather(*(ask(session, found.ports[n % 2]) for n in range(200)))
            # How much the purse of one data plane holds while the other refuses depends on who came when. At rest it comes
            # back, and whoever asks then is served to the last call that fits.
            await asyncio.to_thread(wait_for, lambda: found.window()[2] == 0)
            while answers[-1].status == 200 or len(answers) == 200:
                answers.append(await ask(session, found.ports[0]))
        by_status = Counter(answer.status for answer in answers)
        assert set(by_status) == {200, 429}, by_status
        refused = [answer for answer in answers if answer.status == 429]
        assert {answer.code for answer in refused} == {"insufficient_quota"}
        assert all("fire" in answer.message for answer in refused)
        served = found.served()
        assert len(served) == by_status[200] and {outcome for outcome, _ in served.values()} == {"completed"}
        assert {answer.call for answer in answers if answer.status == 200} == served.keys()
        limit = 17_000_000
        spent = sum(cost for _, cost in served.values())
        dearest = max(cost for _, cost in served.values())
        assert limit - 2 * dearest < spent <= limit, (
            "the budget allows about 50 of the calls, and never more than itself"
        )

        # Every call is in the ledger once, and what is left has come back.
        wait_for(lambda: len(found.calls()) == len(answers))
        calls = found.calls()
        assert {call: calls[call] for call in served} == {
            call: ("ok", cost) for call, (_, cost) in served.items()
        }
        assert Counter(status for status, _ in calls.values()) == {"ok": len(served), "refused": len(refused)}
        wait_for(lambda: found.window()[2] == 0)
        assert found.window() == (limit, spent, 0, 0, 0)


@pytest.mark.timeout(600)
async def test_kill_9_of_a_data_plane_under_load(installation: Installation, tmp_path: Path) -> None:
    with fire(installation, tmp_path, limit="5") as found:
        answers: list[Answer] = []
        killed = asyncio.Event()

        async def client(session: aiohttp.ClientSession, port: int) -> None:
            after = 0
            while after < 4:
                answer = await ask(session, port)
                if answer.status == 0:
                    await asyncio.sleep(0.1)
                    continue
                answers.append(answer)
                after += killed.is_set()

        async def kill() -> None:
            in_flight = found.in_flight(0)
            while len(answers) < 150:
                await asyncio.sleep(0.001)
            # Stopped first: what is under way then still is when it dies, however long finding its processes takes.
            while True:
                os.killpg(found.planes[0].pid, signal.SIGSTOP)
                if in_flight() >= 5:
                    break
                os.killpg(found.planes[0].pid, signal.SIGCONT)
                await asyncio.sleep(0.001)
            found.planes[0].kill()
            killed.set()
            found.start(0)
            await asyncio.to_thread(found.ready, 0)

        async with client_session() as session:
            await asyncio.gather(kill(), *(client(session, found.ports[n % 2]) for n in range(60)))

        assert {answer.status for answer in answers} == {200}
        served = found.served()
        journals = "SELECT COUNT(*) FROM usage_journal WHERE state = 'closed'"
        wait_for(lambda: installation.rows(journals) == [(1,)])
        wait_for(lambda: served.keys() <= found.calls().keys())
        wait_for(lambda: found.window()[2] == 0)
        calls = found.calls()
        unknown = {call for call, (status, _) in calls.items() if status == "unknown"}
        completed = {call for call, (outcome, _) in served.items() if outcome == "completed"}

        # What clients were answered is there as it was served; what the dead process had under way is there as unknown.
        assert {answer.call for answer in answers} <= completed & calls.keys() - unknown
        assert {status for status, _ in calls.values()} <= {"ok", "unknown"}
        assert 1 <= len(unknown) <= 30
        for call, (_, cost) in served.items():
            if call in unknown:
                assert calls[call][1] >= cost, "the hold covers what it may have cost"
            else:
                assert calls[call] == ("ok", cost)
        # A call that no provider has seen died before it was sent: it is charged at its hold all the same.
        assert calls.keys() - served.keys() <= unknown
        spent = sum(cost for _, cost in calls.values())
        assert found.window() == (5 * 10**9, spent, 0, 0, 0)

        # Booked again from the beginning by whoever comes: nothing changes.
        installation.manage("ingest", "--once")
        assert found.calls() == calls and found.window()[1] == spent
