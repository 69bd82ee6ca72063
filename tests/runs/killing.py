"""What ``test_killed.py`` runs in a process of its own, in a whole installation: workers that are killed, and who follows them.

Each worker is a fork that ends itself with SIGKILL at one boundary. The process that forks never speaks to the database.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

DEAD = "kill -9"


def effect(arguments: Any, job: Any) -> dict[str, Any]:
    """A tool whose side effect can be counted: a line in a file."""
    with Path(os.environ["RUNS_EFFECTS"]).open("a") as file:
        file.write(f"{job.run} {job.key}\n")
    return {"refunded": arguments["amount"]}


#: What happens to a worker at its boundary, once.
_HALTS = {"with": signal.SIGKILL, "done": False}


def halt() -> None:
    if not _HALTS["done"]:
        _HALTS["done"] = True
        os.kill(os.getpid(), int(_HALTS["with"]))


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a child; ``DEAD`` where the child was killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return DEAD
    assert status == 0, "a worker failed; its traceback is above"
    return json.loads(said)


def made() -> dict[str, str]:
    from tests.playground.conftest import build
    from tests.runs.making import begun
    from tests.tools.making import a_service, a_tool

    lab = build()
    a_tool(lab.support, settings={"function": "effect"})
    lab.agent = a_service(lab.support, "runs", name="agent")
    names = [*BOUNDARIES, *(f"suspended {name}" for name in SUSPENDED), "parked", "two"]
    return {name: str(begun(lab, tools=["refund"], user=name).pk) for name in names}


def before_the_model() -> None:
    from llmops.runs.services import working

    real = working.ask
    working.ask = lambda *a, **k: (halt(), real(*a, **k))[1]


def after_the_model() -> None:
    from llmops.runs.services import working

    real = working.ask
    working.ask = lambda *a, **k: (real(*a, **k), halt())[0]


def between_proposal_and_step() -> None:
    from llmops.runs.services import leasing

    real = leasing.write_step
    leasing.write_step = lambda run, n, now, step: (
        halt() if step["kind"] == "call" else None,
        real(run, n, now, step),
    )[1]


def between_claim_and_tool() -> None:
    from llmops.tools.services import executing

    executing._FRESH_S = 600
    real = executing.claim
    executing.claim = lambda action_id: (real(action_id), halt())[0]


def after_tool_before_its_record() -> None:
    from llmops.tools.services import executing

    real = executing.finish
    executing.finish = lambda *a, **k: (halt(), real(*a, **k))[1]


def after_record_before_step() -> None:
    from llmops.runs.services import tooling

    real = tooling._write_down
    tooling._write_down = lambda *a: (halt(), real(*a))[1]


BOUNDARIES: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        before_the_model, after_the_model, between_proposal_and_step, between_claim_and_tool,
        after_tool_before_its_record, after_record_before_step,
    )
}  # fmt: skip


#: Who stands still in the middle of a transaction keeps its locks, and nobody can follow.
SUSPENDED = [name for name in BOUNDARIES if name != "between_proposal_and_step"]


def killed(name: str, run: str) -> None:
    from llmops.runs import services

    # So that whoever follows need not wait long.
    settings.RUN_LEASE_SECONDS = 0.2
    BOUNDARIES[name]()
    services.advance(UUID(run))


def suspended(name: str, run: str) -> None:
    """A worker that stands still at its boundary until another has brought the run to its end, and then goes on."""
    child = os.fork()
    if child == 0:
        try:
            _HALTS["with"] = signal.SIGSTOP
            killed(name, run)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1]), name
    assert in_a_fork(lambda: followed(run)) == "succeeded", name
    os.kill(child, signal.SIGCONT)
    assert os.waitpid(child, 0)[1] == 0, name


def followed(run: str) -> str:
    """Whoever comes next, as the schedule has it."""
    from datetime import timedelta

    from django.utils import timezone

    from llmops.runs import services
    from llmops.tools.services import settle_crashed

    until = time.monotonic() + 60
    while (state := services.advance(UUID(run))) in (
        "running",
        "parked",
        "queued",
    ) and time.monotonic() < until:
        settle_crashed(timezone.now() + timedelta(hours=1))
        time.sleep(0.02)
    return state


def parked(run: str) -> str:
    """A run whose call waits for a person; decided while nobody works on it."""
    from django.contrib.auth import get_user_model

    from llmops.runs import services
    from llmops.runs.models import Run
    from llmops.tools.models import Action
    from llmops.tools.services import execute
    from tests.runs.making import actions
    from tests.tools.making import decide

    assert services.advance(UUID(run)) == Run.PARKED
    (action,) = actions(Run.objects.get(pk=run))
    assert action.state == Action.WAITING
    decide(get_user_model().objects.get(username="rita"), action)
    assert execute(action.pk) == "succeeded"
    return action.state


def at_once(run: str) -> list[str]:
    """Two workers begin with one run in the same moment."""
    from threading import Barrier, Thread

    from django.db import connections

    from llmops.runs import services

    start, found = Barrier(4), list[str]()

    def work() -> None:
        start.wait()
        try:
            found.append(services.advance(UUID(run)))
        finally:
            connections.close_all()

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def story(run: str) -> dict[str, Any]:
    from llmops.audit.checking import check_database
    from llmops.runs.models import Run
    from tests.runs.making import actions, steps, text_of

    found = Run.objects.get(pk=run)
    return {
        "state": found.state,
        "error": found.error_message,
        "text": text_of(found),
        "turns": found.turns,
        "steps": steps(found),
        "actions": [one.state for one in actions(found)],
        "trail": check_database().intact,
    }


def main(url: str, effects: str) -> None:
    os.environ["RUNS_EFFECTS"] = effects
    Path(effects).touch()
    settings.GATEWAY_URL = url
    settings.TOOL_FUNCTIONS = {**settings.TOOL_FUNCTIONS, "effect": "tests.runs.killing.effect"}
    runs = in_a_fork(made)
    told: dict[str, Any] = {"runs": runs}
    for name in BOUNDARIES:
        assert in_a_fork(lambda name=name: killed(name, runs[name])) == DEAD, name
        in_a_fork(lambda name=name: followed(runs[name]))
        told[name] = in_a_fork(lambda name=name: story(runs[name]))
    for name in SUSPENDED:
        suspended(name, runs[f"suspended {name}"])
        told[f"suspended {name}"] = in_a_fork(lambda name=name: story(runs[f"suspended {name}"]))
    in_a_fork(lambda: parked(runs["parked"]))
    in_a_fork(lambda: followed(runs["parked"]))
    told["parked"] = in_a_fork(lambda: story(runs["parked"]))
    told["at_once"] = in_a_fork(lambda: at_once(runs["two"]))
    in_a_fork(lambda: followed(runs["two"]))
    told["two"] = in_a_fork(lambda: story(runs["two"]))
    print("TOLD", json.dumps(told))
