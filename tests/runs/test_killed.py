"""``kill -9`` of a worker at each boundary, one that is suspended there until another has followed it, and two workers for one run: each turn is paid once, each tool carried out at most once,
and whoever follows brings the run to its end. On either database, with real processes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.runs.conftest import DataPlane, call, completion

SCRIPT = "from tests.runs.killing import main; main({url!r}, {effects!r})"


@pytest.fixture(autouse=True)
def still() -> None:
    """Nothing of this file is in this process but the stand-in for the data plane."""


def script(asked: dict[str, Any], n: int) -> tuple[int, Any]:
    """A refund, then the answer; a large one for the run that is to wait for a person."""
    if asked["messages"][-1]["role"] == "user":
        return 200, completion(
            {"content": None, "tool_calls": [call("refund", {"amount": 5, "customer": "Ada"})]}, "tool_calls"
        )
    return 200, completion({"content": "Done."})


def test_whatever_a_worker_dies_of_nothing_is_lost_or_done_twice(
    installation: Installation, tmp_path: Path
) -> None:
    plane, effects = DataPlane(), tmp_path / "effects"

    def one_that_waits(asked: dict[str, Any], n: int) -> tuple[int, Any]:
        status, body = script(asked, n)
        if plane.heads[-1].get("x-llmops-user") == "parked" and "tool_calls" in body["choices"][0]["message"]:
            body["choices"][0]["message"]["tool_calls"] = [call("refund", {"amount": 500, "customer": "Ada"})]
        return status, body

    plane.script = one_that_waits
    done = installation.manage("shell", "-c", SCRIPT.format(url=plane.url, effects=str(effects)))
    plane.server.shutdown()
    plane.server.server_close()
    told = json.loads(next(line[5:] for line in done.stdout.splitlines() if line.startswith("TOLD ")))
    runs = told.pop("runs")
    carried_out = Counter(line.split()[0] for line in effects.read_text().splitlines())
    paid = Counter(head["x-llmops-session"] for head in plane.heads)
    #: What a worker had begun with and nobody knows the end of is told as that, and not done again.
    unknowable = {"between_claim_and_tool": 0, "after_tool_before_its_record": 1}
    #: Who was only suspended says afterwards what came of it: nothing was called, or the tool had done it.
    said_later = {
        "suspended between_claim_and_tool": "failed",
        "suspended after_tool_before_its_record": "succeeded",
    }
    at_once = told.pop("at_once")
    for name, found in told.items():
        assert (found["state"], found["text"], found["turns"]) == ("succeeded", "Done.", 2), (name, found)
        assert paid[runs[name]] == 2, name
        boundary = name.removeprefix("suspended ")
        assert carried_out[runs[name]] == unknowable.get(boundary, 1), name
        result = "unknown" if boundary in unknowable else "succeeded"
        assert found["actions"] == [said_later.get(name, result)], (name, found)
        kinds = [step for step in found["steps"] if not step.startswith("note")]
        assert [step.split()[0] for step in kinds] == ["turn", "call", "result", "turn"], (name, found)
        assert kinds[2] == f"result refund {result}", (name, found)
        assert ("note followed" in found["steps"]) == (name not in ("parked", "two")), (name, found)
        assert found["trail"], name
    assert "succeeded" in at_once
    # The answers of those that died or stood still after the data plane had them came again, for nothing; and to the one that stood still
    # before it asked, unless it saw first that it was followed.
    assert plane.replayed in (2, 3)
