"""The reviewers' inbox with 10,000 actions that wait: the pages, and the question that a live page asks every second."""

from __future__ import annotations

import http.client
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from benchmarks.failure import BenchmarkFailed
from benchmarks.installation import Installation
from benchmarks.processes import stage
from benchmarks.report import Bar, Options, Section, Table
from tests import servers

WAITING = int(os.environ.get("BENCH_ACTIONS", "10000"))
ROUNDS = 20
ASKED_MS = 300
PAGES = {
    "Waiting": "/inbox/",
    "Waiting, live": "/inbox/live/",
    "Waiting, live, nothing new": "/inbox/live/?marker={marker}",
    "Waiting, of a tool": "/inbox/?tool=tool-3",
    "Waiting, of a tool and a class": "/inbox/?tool=tool-3&risk=destructive&project=p3",
    "Waiting, of a class that is rare": "/inbox/?risk=irreversible",
    "Unknown outcome": "/inbox/?show=unknown",
    "Decided": "/inbox/?show=decided",
    "Decided, a later page": "/inbox/?show=decided&before={before}",
    "Decided, of a tool": "/inbox/?show=decided&tool=tool-3",
    "One that waits": "/inbox/{request}/",
    "One that waits, live": "/inbox/{request}/live/",
    "API: waiting": "/api/v1/approvals/?state=open",
    "API: actions of a run": "/api/v1/actions/?run=run-77",
    "Overview": "/",
}
#: Rows as proposals leave them, made at once: through the service each would lock the chain of the trail.
_FILL = """
import json, random
from datetime import timedelta
from importlib import import_module
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
from django.utils import timezone
from llmops.access.models import Membership, Project
from llmops.access.services import create_service_key
from llmops.approvals.models import Decision, Request
from llmops.core.actors import command_actor
from llmops.core.digests import canonical_json, digest, sha256_hex
from llmops.core.ids import uuid7
from llmops.tools import services
from llmops.tools.models import Action
from llmops.tools.services.approving import content_of

WAITING = %(waiting)d
random.seed(7)
now, actor = timezone.now(), command_actor("bench")
definition = {"description": "Gives money back.", "says": "Refund {amount} USD to {customer}", "risk": "destructive",
              "parameters": {"type": "object", "properties": {"amount": {"type": "number"}, "customer": {"type": "string"}}},
              "execution": "service"}
user = get_user_model().objects.create_user("reviewer", is_staff=True)
tools, agents = [], []
for number in range(20):
    project = Project.objects.create(slug=f"p{number}", name=f"Project {number}")
    tools.append(services.create_tool(actor, project=project, slug=f"tool-{number}", definition=definition))
    agents.append(str(create_service_key(actor, project=project, name="agent", scopes=["actions"]).key.pk))
    if number < 15:
        Membership.objects.create(user=user, project=project, role="reviewer")

def made(count, state, of_action, required=1):
    requests, actions, decisions = [], [], []
    for number in range(count):
        tool = tools[number %% len(tools)]
        given = {"amount": number, "customer": f"Customer {number}"}
        action = Action(project=tool.project, tool=tool, version=tool.current, arguments=canonical_json(given).decode(),
                        run=f"run-{number // 5}", says=f"Refund {number} USD to Customer {number}", requested_by_kind="service_key",
                        requested_by_id=agents[number %% len(agents)], requested_by_name="agent (sk-1)", reason="The parcel arrived broken.",
                        risk="irreversible" if number %% 500 == 0 else "destructive", risk_rule="the tool's own class", state=of_action,
                        digest=sha256_hex(f"{of_action}{number}".encode()))
        if of_action in ("unknown", "succeeded"):
            action.claimed_at, action.claim_id, action.approved_at = now, uuid7(), now
        content = content_of(action, "the tool's own class")
        request = Request(kind="tool.action", title=action.says, content=content, digest=digest(content), object_type="tools.action",
                          object_id=str(action.pk), object_name=action.says, project=tool.project, reason=action.reason,
                          requested_by_kind="service_key", requested_by_id=action.requested_by_id, requested_by_name="agent (sk-1)",
                          required=required, state=state, expires_at=now + timedelta(hours=24, seconds=random.random() * 80000), told_at=now,
                          closed_at=None if state == "open" else now - timedelta(minutes=count - number))
        action.request = request
        requests.append(request)
        actions.append(action)
        if state == "executed":
            decisions.append(Decision(request=request, approves=True, digest=request.digest, decided_by_id="1", decided_by_name="rita"))
    Request.objects.bulk_create(requests, 500)
    Action.objects.bulk_create(actions, 500)
    Decision.objects.bulk_create(decisions, 500)
    return requests

decided = made(3 * WAITING, "executed", "succeeded")
made(WAITING // 50, "executed", "unknown")
waiting = made(WAITING, "open", "waiting", required=2)
session = import_module(settings.SESSION_ENGINE).SessionStore()
session[SESSION_KEY], session[BACKEND_SESSION_KEY] = str(user.pk), settings.AUTHENTICATION_BACKENDS[-1]
session[HASH_SESSION_KEY] = user.get_session_auth_hash()
session.save()
print(json.dumps({"cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}", "request": str(waiting[0].pk),
                  "before": str(decided[len(decided) // 2].pk)}))
"""


def run(options: Options) -> Section:
    rounds = options.rounds or ROUNDS
    found = {
        name: _measured(postgres, rounds) for name, postgres in (("SQLite", False), ("PostgreSQL", True))
    }
    bars, rows = [], []
    for name, pages in found.items():
        worst = max(pages, key=lambda page: page[2])
        bars.append(
            Bar(
                f"inbox with {WAITING:,} that wait, {name}, p95",
                f"<= {ASKED_MS} ms",
                f"{worst[2]:.0f} ms ({worst[0]})",
                worst[2] <= ASKED_MS,
            )
        )
        rows += [
            [f"{label}, {name}", f"{middle:.0f}", f"{p95:.0f}", f"{first:.0f}"]
            for label, middle, p95, first in pages
        ]
    return Section(
        "inbox",
        bars=bars,
        tables=[Table(["page", "median, ms", "p95, ms", "first, ms"], rows)],
        notes=[
            f"{WAITING:,} actions that wait, {3 * WAITING:,} that were decided and {WAITING // 50:,} of unknown outcome, of 20 tools in 20 "
            "projects, of which the reviewer sees 15.",
            f"Pages over HTTP, signed in, one at a time, {rounds} times each after a first one.",
        ],
    )


@contextmanager
def _database(postgres: bool) -> Iterator[str | None]:
    with servers.postgres() if postgres else nullcontext() as url:
        yield url


def _measured(postgres: bool, rounds: int) -> list[tuple[str, float, float, float]]:
    engine = "PostgreSQL" if postgres else "SQLite"
    with stage() as here, _database(postgres) as url:
        _say(f"{engine}: migrating")
        installation = Installation(here, here.directory / "data", database_url=url)
        _say(f"{engine}: making {WAITING:,} actions that wait, and {3 * WAITING:,} that were decided")
        script = _FILL % {"waiting": WAITING}
        made = json.loads(installation.manage("shell", "-v0", "-c", script).splitlines()[-1])
        installation.tidy()
        console, port = here.serve(
            "console", "console.asgi_console:application", ready="/readyz", env=installation.env
        )
        made["marker"] = json.loads(_get(port, "/inbox/live/", made)[1])["marker"]
        found = []
        for name, address in PAGES.items():
            took = [_get(port, address.format(**made), made)[0] for _ in range(rounds + 1)]
            later = sorted(took[1:])
            found.append((name, statistics.median(later), later[math.ceil(0.95 * len(later)) - 1], took[0]))
            _say(f"{engine}: {name}: median {found[-1][1]:.0f} ms, p95 {found[-1][2]:.0f} ms")
        console.must_live()
    return found


def _say(text: str) -> None:
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _get(port: int, address: str, made: dict[str, Any]) -> tuple[float, bytes]:
    """Milliseconds and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.perf_counter()
    connection.request("GET", address, headers={"Cookie": made["cookie"]})
    answer = connection.getresponse()
    body = answer.read()
    took = (time.perf_counter() - began) * 1000
    connection.close()
    if answer.status not in (200, 204):
        raise BenchmarkFailed(f"{address} answered {answer.status}: {body[:300]!r}")
    return took, body
