"""``kill -9`` between claim and call, after the call and before it is recorded, and after the record: on either database, with
real workers and the broker that belongs to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from threading import Event
from typing import Any

from tests.installation import Installation
from tests.tools.services import says, service

SET_UP = """
import json
from tests.cast import make_cast
from tests.tools.making import a_service, a_tool, decide, proposed
from llmops.tools import services
cast = make_cast()
tool = a_tool(cast.support, executor="webhook", timeout_s=60, settings={{
    "url": "http://127.0.0.1:{port}/", "allow_private_network": True}})
services.rotate_secret(cast_actor := a_service(cast.support, name="agent"), tool=tool)
made = {{}}
for name in "ABC":
    action = proposed(cast_actor, cast.support, 500, arguments={{"amount": 500, "customer": name}})
    decide(cast.rita, action)
    made[name] = str(action.pk)
print("MADE", json.dumps(made))
"""

#: A worker that dies after it has claimed and before it calls.
STOPPED = """
import sys, time, django
django.setup()
from pathlib import Path
from uuid import UUID
from llmops.tools import services
assert services.claim(UUID(sys.argv[1])) is not None
Path(sys.argv[2]).touch()
time.sleep(600)
"""

#: A worker whose machine is suspended after it has claimed: its clocks stand still with it. It goes on when it is woken.
SUSPENDED = """
import os, signal, sys, django
django.setup()
from pathlib import Path
from uuid import UUID
from llmops.tools import services
from llmops.tools.services import executing
executing._FRESH_S = 3600.0
claimed = services.claim(UUID(sys.argv[1]))
Path(sys.argv[2]).touch()
os.kill(os.getpid(), signal.SIGSTOP)
print("BECAME", services.carry_out(claimed))
"""
#: Meanwhile its time runs out; of A a person finds out that it did not happen, and it is asked for, and done, anew.
MEANWHILE = """
import json, sys
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.utils import timezone
from llmops.access.models import Project
from llmops.base.requests import user_actor
from llmops.tools import services
from llmops.tools.models import Action
from tests.tools.making import decide, proposed
Action.objects.filter(state="claimed").update(deadline_at=timezone.now() - timedelta(hours=1))
assert services.settle_crashed() == 2
rita, bob = (get_user_model().objects.get(username=name) for name in ("rita", "bob"))
found_out = Action.objects.get(pk="{found_out}")
services.resolve(user_actor(rita), action=found_out, happened=False, reason="It is not in the books.")
again = proposed(user_actor(bob), found_out.project, arguments=found_out.given)
decide(rita, again)
print("MADE", json.dumps({{"again": services.execute(again.pk)}}))
"""

AFTERWARDS = """
import json
from datetime import timedelta
from django.contrib.auth import get_user_model
from django.utils import timezone
from llmops.access.models import Project
from llmops.base.requests import user_actor
from llmops.base.tasks import send
from llmops.tools import services
from llmops.tools.models import Action
from tests.tools.making import decide, proposed
for _ in range(2):
    for pk in Action.objects.values_list("pk", flat=True):
        send("tools.execute", str(pk))
settled = services.settle_crashed(timezone.now() + timedelta(hours=1))
services.expire_unbegun(timezone.now() + timedelta(hours=1))
for pk in Action.objects.values_list("pk", flat=True):
    services.execute(pk)
project, bob = Project.objects.get(slug="support"), get_user_model().objects.get(username="bob")
last = proposed(user_actor(bob), project, arguments={"amount": 500, "customer": "D"})
decide(get_user_model().objects.get(username="rita"), last)
print("MADE", json.dumps({"D": str(last.pk), "settled": settled}))
"""
WORKER = ["celery", "-A", "console", "worker", "-P", "threads", "--concurrency", "2"]


def told(done: Any) -> dict[str, Any]:
    line = next(one for one in done.stdout.splitlines() if one.startswith("MADE "))
    found: dict[str, Any] = json.loads(line.removeprefix("MADE "))
    return found


def wait_for(condition: Any, what: str, installation: Installation) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        logs = "\n".join(one.log_tail() for one in installation.processes)
        assert time.monotonic() < deadline, f"{what} did not come to be\n{logs}"
        time.sleep(0.05)


def test_killed_at_each_step_it_is_done_once_or_known_to_be_unknown(
    installation: Installation, tmp_path: Path
) -> None:
    held = Event()

    def answer(client: socket.socket) -> None:
        if json.loads(receiver.mine.body)["arguments"]["customer"] == "C":
            held.wait(120)
        says("200 OK", b'{"ok": true}')(client)

    with service(answer) as receiver:
        made = told(installation.manage("shell", "-c", SET_UP.format(port=receiver.port)))

        def states() -> dict[str, str]:
            rows = installation.rows("SELECT arguments, state FROM tools_action")
            return {json.loads(arguments)["customer"]: state for arguments, state in rows}

        def calls() -> Counter[str]:
            return Counter(json.loads(body)["arguments"]["customer"] for _, body in receiver.requests)

        # Between claim and call.
        claimed = tmp_path / "claimed"
        stopped = installation.spawn(["python", "-c", STOPPED, made["B"], str(claimed)])
        wait_for(claimed.exists, "the claim of B", installation)
        stopped.kill()
        # After the call of C and before its record; after the record of A.
        first = installation.spawn(WORKER, name="first")
        wait_for(lambda: calls()["C"] and states()["A"] == "succeeded", "the calls of A and C", installation)
        first.kill()
        assert states() == {"A": "succeeded", "B": "claimed", "C": "claimed"}

        found = told(installation.manage("shell", "-c", AFTERWARDS))
        assert found["settled"] == 2
        installation.spawn(WORKER, name="second")
        wait_for(lambda: states()["D"] == "succeeded", "the call of D", installation)
        held.set()
        assert states() == {"A": "succeeded", "B": "unknown", "C": "unknown", "D": "succeeded"}
        assert calls() == {"A": 1, "C": 1, "D": 1}


def test_a_worker_that_was_suspended_calls_nothing_once_its_time_is_over(
    installation: Installation, tmp_path: Path
) -> None:
    with service(says("200 OK", b'{"ok": true}')) as receiver:
        made = told(installation.manage("shell", "-c", SET_UP.format(port=receiver.port)))
        workers = {}
        for name in "AB":
            claimed = tmp_path / name
            workers[name] = installation.spawn(
                ["python", "-c", SUSPENDED, made[name], str(claimed)], name=name
            )
            wait_for(lambda worker=workers[name]: stopped(worker.pid), f"the worker of {name}", installation)
            assert claimed.exists()
        assert told(installation.manage("shell", "-c", MEANWHILE.format(found_out=made["A"]))) == {
            "again": "succeeded"
        }
        for worker in workers.values():
            os.kill(worker.pid, signal.SIGCONT)
            assert worker.wait(60) == 0
        rows = installation.rows("SELECT arguments, state, resolution, message FROM tools_action")
        states = sorted((json.loads(one[0])["customer"], *one[1:3]) for one in rows)
        # What nobody has decided about is known by now: nothing was sent.
        assert states == [
            ("A", "failed", "did_not"),
            ("A", "succeeded", ""),
            ("B", "failed", ""),
            ("C", "approved", ""),
        ]
        sent = Counter(json.loads(body)["arguments"]["customer"] for _, body in receiver.requests)
        assert sent == {"A": 1}


def stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
