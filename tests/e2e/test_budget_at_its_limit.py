"""A budget at its limit, on a real data plane: refused by name, raised by two people and back again, then by a cheaper route.

What operators do is done by another process, as in production.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation
from tests.simulator.running import running

KEY = "llmops_atlimit1_" + "l" * 40
#: 100 tokens of ``dear`` are held at 0.1 USD and cost as much; those of ``cheap`` at a hundredth of it.
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
  - {{slug: dear, provider: sim, model: "sim-gpt-4o+latency=0+tokens=100", context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 100, prices: {{input: "1", output: "1000"}}}}
  - {{slug: cheap, provider: sim, model: "sim-gpt-4o-mini+latency=0+tokens=100", context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 100, prices: {{input: "1", output: "10"}}}}
routes:
  - {{slug: chat, targets: [{{model: dear}}], clamp_output: false}}
  - {{slug: small, targets: [{{model: cheap}}]}}
budgets:
  - {{name: tight, scope: "project:support", limit_usd: "0.15", period: once, thresholds: [50]}}
service_keys:
  - {{name: all, project: support, secret: "plain:{key}", routes: ["*"], models: ["*"]}}
"""

#: Runs in a process of the control plane.
CHANGES = """
import http.client, json, sys, time
from datetime import datetime, timedelta, UTC
from django.contrib.auth import get_user_model
from llmops.approvals.services import decide
from llmops.base.requests import user_actor
from llmops.budgets import services as budgets
from llmops.budgets.models import Budget, ThresholdCrossing

port, key = json.loads(sys.argv[1])
body = json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hi"}]})
people = [user_actor(get_user_model().objects.create_superuser(name)) for name in ("asks", "approves")]
budget = Budget.objects.get(slug="tight")


def answer():
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {key}", "content-type": "application/json"})
    got = connection.getresponse()
    said = json.loads(got.read())
    connection.close()
    return got.status, said.get("error", {}).get("message", ""), {name: value for name, value in got.headers.items() if name.startswith("x-llmops-")}


def until(status, **headers):
    began = time.monotonic()
    while True:
        found = answer()
        if found[0] == status and all(found[2].get("x-llmops-" + name.replace("_", "-")) == value for name, value in headers.items()):
            return found
        if time.monotonic() - began > 20:
            raise SystemExit(f"not felt after 20 s: {found}")
        time.sleep(0.1)


story = {"first": answer(), "second": answer()}
# Refusals that are booked together are told by the highest limit among them: this one is booked before there is another.
began = time.monotonic()
while not ThresholdCrossing.objects.filter(refusing=True).exists():
    if time.monotonic() - began > 120:
        raise SystemExit("the refusal is not booked after 120 s")
    time.sleep(0.1)
asked = budgets.ask_raise(people[0], budget_id=budget.pk, amount_nano=10**8, ends_at=datetime.now(UTC) + timedelta(seconds=6), reason="busy")
story["asked"] = answer()
decide(people[1], request_id=asked.pk, approves=True, seen=asked.digest)
story["raised"] = until(200, model="dear")
story["used up again"] = answer()
time.sleep(7)
story["over"] = answer()
budgets.update_budget(people[0], budget_id=budget.pk, limit_nano=24 * 10**7, at_limit_route="small")
story["cheaper"] = until(200, budget_route="small")
print(json.dumps(story))
"""


@pytest.mark.timeout(600)
def test_refused_raised_and_back_and_by_the_cheaper_route(installation: Installation, tmp_path: Path) -> None:
    with running(tmp_path) as simulator:
        installation.manage("apply", "-f", "-", stdin=CONFIGURATION.format(url=simulator.url, key=KEY))
        port = installation.free_port()
        plane = installation.spawn(
            ["granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--loop", "uvloop",
             "--no-ws", "--log-level", "warning", "console.asgi_gateway:application"]
        )  # fmt: skip
        installation.wait_ready(f"http://127.0.0.1:{port}/readyz", plane)
        installation.start_booking()
        code = f"import sys; sys.argv = ['', {json.dumps([port, KEY])!r}]\n{CHANGES}"
        done = installation.manage("shell", "-v", "0", "-c", code)
        story: dict[str, tuple[int, str, dict[str, Any]]] = json.loads(done.stdout)
        statuses = {name: status for name, (status, _, _) in story.items()}
        assert statuses == {
            "first": 200,
            "second": 429,
            "asked": 429,
            "raised": 200,
            "used up again": 429,
            "over": 429,
            "cheaper": 200,
        }, story
        _, message, headers = story["second"]
        assert "'tight'" in message and "does not reset" in message
        assert headers["x-llmops-budget"] == "tight" and headers["x-llmops-budget-left-usd"].startswith(
            "0.04"
        )
        assert story["cheaper"][2]["x-llmops-model"] == "cheap"
        installation.wait_booked()
        [(limit, settled)] = installation.rows("SELECT limit_nano, settled_nano FROM budgets_window")
        assert settled <= limit and settled < 24 * 10**7
        # A refusal is told by the limit it met, whenever it is booked.
        told = installation.rows(
            "SELECT percent, refusing, limit_nano, COUNT(*) FROM budgets_threshold_crossing GROUP BY percent, refusing, limit_nano"
        )
        told = {(percent, bool(refusing), limit, count) for percent, refusing, limit, count in told}
        base, raised = 15 * 10**7, 25 * 10**7
        assert {one for one in told if one[1]} == {(100, True, base, 1), (100, True, raised, 1)}
        assert {one[0] for one in told if not one[1]} == {50}
