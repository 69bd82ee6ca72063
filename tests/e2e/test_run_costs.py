"""What a run has cost, by a real data plane with its journal and ingester: what was told with answers is what is booked, with attempts that
failed and were billed, and what a policy asked a moderation model before and after each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.installation import Installation
from tests.simulator.running import running

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
  - {{slug: breaks, provider: sim, model: "sim-gpt-4o+latency=0+tokens=5+drop=1", capabilities: [chat, stream, tools], context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 40, prices: {{input: "1", output: "10"}}}}
  - {{slug: works, provider: sim, model: "sim-small+instant+tokens=5+toolturns=1", capabilities: [chat, stream, tools], context_window: 128000, max_output_tokens: 16384, default_max_output_tokens: 40, prices: {{input: "1", output: "10"}}}}
  - {{slug: judge, provider: sim, model: "sim-moderation", capabilities: [moderation], context_window: 32768, max_output_tokens: 0, default_max_output_tokens: 0, prices: {{input: "3"}}}}
policies:
  - slug: judged
    checks:
      - {{kind: moderation, stage: before, action: block, settings: {{model: judge}}}}
      - {{kind: moderation, stage: after, action: block, settings: {{model: judge}}}}
routes:
  - {{slug: fine, targets: [{{model: works}}], policies: [judged]}}
  - {{slug: chat, targets: [{{model: breaks}}], fallbacks: [works], retry: {{attempts: 2}}, policies: [judged]}}
  - {{slug: broken, targets: [{{model: breaks}}], retry: {{attempts: 2}}, policies: [judged]}}
"""
RUNS = """
import json, time
from llmops.access.models import Project
from llmops.access.services import create_service_key
from llmops.core.actors import Actor, command_actor
from llmops.runs import services
from llmops.runs.costing import cost_of
from llmops.runs.models import Run, Step
from llmops.runs.rules import read_asked
from llmops.runs.services import working
from llmops.tools.services import create_tool
from llmops.usage.models import Call

working.back_off = lambda tries, asked: 0.05
project = Project.objects.get(slug="support")
create_tool(command_actor("test"), project=project, slug="look", definition={
    "description": "Looks.", "risk": "read", "executor": "python", "settings": {"function": "look"},
    "parameters": {"type": "object", "properties": {}}})
key = create_service_key(command_actor("test"), project=project, name="agent", scopes=["runs"], allowed_routes=["*"],
                         allowed_models=["*"]).key
actor = Actor(kind="service_key", identifier=str(key.pk), name="agent")
found = []
for model in ("fine", "chat", "broken"):
    for mode in ("sync", "stream"):
        for bound in (None, 40_000_000, 500_000):
            bounds = {"turns": 3} | ({"cost_nano": bound} if bound else {})
            asked = read_asked({"messages": [{"role": "user", "content": "Look, please, at what the customer has written."}],
                                "model": model, "mode": mode, "tools": ["look"], "bounds": bounds})
            run, _ = services.start_run(actor, project=project, asked=asked, inline=True)
            services.advance(run.pk)
            told = sum(Step.objects.filter(run=run, cost_nano__isnull=False).values_list("cost_nano", flat=True))
            found.append({"id": str(run.pk), "model": model, "mode": mode, "bound": bound, "told": told})
until = time.monotonic() + 60
for one in found:
    run = Run.objects.get(pk=one["id"])
    booked = []
    while time.monotonic() < until:
        booked = list(Call.objects.filter(session=one["id"]).values_list("endpoint", "status", "cost_nano", "attempt_count"))
        if sum(cost for _, _, cost, _ in booked) == one["told"]:
            break
        time.sleep(0.1)
    one |= {"state": run.state, "code": run.error_code, "cost": cost_of(run), "stored": run.cost_nano, "booked": booked,
            "turns": run.turns}
print("FOUND", json.dumps(found))
"""


def look(arguments: Any, job: Any) -> dict[str, Any]:
    return {"seen": True}


def test_what_was_told_is_what_is_booked_and_no_bound_is_exceeded(
    installation: Installation, tmp_path: Path
) -> None:
    with running(tmp_path) as simulator:
        installation.manage("apply", "-f", "-", stdin=CONFIGURATION.format(url=simulator.url))
        port = installation.free_port()
        installation.env["CONSOLE_GATEWAY_URL"] = f"http://127.0.0.1:{port}/v1"
        installation.env["CONSOLE_TOOL_FUNCTIONS"] = "look=tests.e2e.test_run_costs.look"
        serves = [
            "granian",
            "--interface",
            "asgi",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--loop",
            "uvloop",
        ]
        plane = installation.spawn(
            [*serves, "--no-ws", "--log-level", "warning", "console.asgi_gateway:application"], name="plane"
        )
        installation.wait_ready(f"http://127.0.0.1:{port}/readyz", plane)
        installation.spawn(["manage.py", "ingest"], name="ingest")
        said = installation.manage("shell", "-v", "0", "-c", RUNS).stdout
    found = json.loads(next(line[6:] for line in said.splitlines() if line.startswith("FOUND ")))
    for run in found:
        spent = sum(cost for _, _, cost, _ in run["booked"])
        assert run["told"] == run["stored"] == run["cost"] == spent > 0, run
        assert run["bound"] is None or spent <= run["bound"], run
        assert {"moderations", "chat.completions"} >= {one[0] for one in run["booked"]} >= {"moderations"}, (
            run
        )
    ends = {(one["model"], one["mode"], one["bound"]): one["state"] for one in found}
    # A stream that broke off in the middle is no other model's to go on with.
    fine = (("fine", "sync"), ("fine", "stream"), ("chat", "sync"))
    assert all(
        ends[model, mode, bound] == "succeeded" for model, mode in fine for bound in (None, 40_000_000)
    )
    assert all(state == "failed" for (model, _, _), state in ends.items() if model == "broken")
    # What failed is given again once and not asked for again and again; attempts that broke off in the middle are in the sum.
    assert all(len([one for one in run["booked"] if one[0] == "chat.completions"]) <= 6 for run in found)
    assert any(tries > 1 and cost for one in found for _, _, cost, tries in one["booked"])
