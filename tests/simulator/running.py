"""A simulator in a process of its own, for any test that needs a provider: ``with running(tmp_path) as simulator:``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import launcher

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 20.0


class RunningSimulator:
    """``url`` ends in /v1. ``ledger`` is the file with one JSON line for each request."""

    def __init__(self, process: launcher.Started, url: str, ledger: Path) -> None:
        self.process = process
        self.url = url
        self.ledger = ledger

    def own(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """One of the simulator's own pages, decoded."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url.removesuffix("/v1") + path,
            data=data,
            method=method,
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return json.load(answer)

    def records(self) -> list[dict[str, Any]]:
        """What it served since the last ``reset``, oldest first."""
        records: list[dict[str, Any]] = []
        while True:
            since = records[-1]["sequence"] if records else 0
            page = self.own(f"/simulator/ledger?since={since}")
            records += page["records"]
            if not page["more"]:
                return records

    def wait_for(self, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The records as soon as ``enough`` holds for them: a hang-up is seen a moment after it happened."""
        deadline = time.monotonic() + DEADLINE
        while not enough(records := self.records()):
            assert time.monotonic() < deadline, f"not so after {DEADLINE} s: {records}"
            time.sleep(0.01)
        return records

    def reset(self) -> None:
        self.own("/simulator/ledger", "DELETE")
        self.own("/simulator/keys", "PUT", {"keys": None})


@contextmanager
def running(directory: Path, *options: str) -> Iterator[RunningSimulator]:
    ledger = directory / "simulator.jsonl"
    said, says = os.pipe()
    with (directory / "simulator.log").open("w") as log:
        try:
            process = launcher.start(
                [sys.executable, "-m", "llmops.simulator", "--port", "0", "--ledger", ledger, *options],
                cwd=ROOT,
                env=os.environ,
                stdout=says,
                stderr=log,
            )
        finally:
            os.close(says)
    # Open to the end: it may have more to say.
    output = os.fdopen(said)
    try:
        ready = output.readline()
        assert ready.startswith("simulator ready on "), (directory / "simulator.log").read_text()
        yield RunningSimulator(process, ready.split()[3], ledger)
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            output.close()
