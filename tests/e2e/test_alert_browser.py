"""On call: a provider fails, the alert arrives, and from its link three clicks say what, why, who carries it and what to do."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_browser import browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded, wait_until
from tests.tools.services import Service, says, service

KEY = "walk-key-0123456789-abcdefghijklmnop"
FILE = """
version: 1
projects: [{slug: walk, name: On call}]
providers:
  - {slug: walk-sim, kind: compatible, base_url: "http://127.0.0.1:%(simulator)s/v1", allow_private_network: true,
     credentials: [{name: only, secret: "plain:any-key-will-do"}]}
models:
  - {slug: walk-bad, provider: walk-sim, model: "sim-small+instant+error=500", floats_reason: simulated, context_window: 8000,
     max_output_tokens: 100, default_max_output_tokens: 10, prices: {input: "1", output: "1"}}
  - {slug: walk-good, provider: walk-sim, model: "sim-small+instant+fail_rate=0.5", floats_reason: simulated, context_window: 8000,
     max_output_tokens: 100, default_max_output_tokens: 10, prices: {input: "1", output: "1"}}
routes:
  - {slug: walk, targets: [{model: walk-bad}], fallbacks: [walk-good], retry: {attempts: 2}, breaker: {min_calls: 1000000}}
service_keys: [{name: walk, project: walk, secret: "plain:%(key)s"}]
alert_rules:
  - {slug: walk-fails, kind: error_rate, numbers: {percent: 5, min_calls: 5}, severity: critical, route: walk, resolve_after: 0,
     enabled: %(enabled)s}
alert_channels:
  - {slug: walk-pager, kind: webhook, url: "http://127.0.0.1:%(pager)s/hook", allow_private_network: true, severities: [critical]}
"""


def apply(console: Embedded, home: Path, **given: Any) -> None:
    simulator = (console.data_dir / "simulator.port").read_text().strip()
    path = home / "walk.yaml"
    path.write_text(FILE % {"simulator": simulator, "key": KEY, **given})
    done = console.manage("apply", "-f", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def call(console: Embedded) -> int:
    body = {"model": "walk", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    request = urllib.request.Request(
        console.first["gateway_url"] + "/chat/completions", data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        return answer.code


def told(pager: Service) -> dict[str, Any]:
    """What came for the rule of this test, by type."""
    bodies = [json.loads(body) for _, body in pager.requests]
    return {body["type"]: body["data"] for body in bodies if body["data"]["rule"] == "walk-fails"}


@pytest.mark.timeout(600)
def test_from_the_alert_to_what_is_to_be_done_and_to_its_end(
    page: Page,  # noqa: F811
    stack: Embedded,  # noqa: F811
    tmp_path: Path,
) -> None:
    with service(says("200 OK")) as pager:
        apply(stack, tmp_path, enabled="true", pager=pager.port)
        # The gateway takes what was published within a second; until then it does not know the key.
        wait_until(lambda: call(stack) != 401, lambda: "the key is not served")
        seen = {call(stack) for _ in range(24)}
        assert seen == {200, 502}, "half of what the fallback is asked for fails too"
        wait_until(
            lambda: "incident.opened" in told(pager), lambda: f"nobody was told: {told(pager)}", timeout=300
        )
        alert = told(pager)["incident.opened"]

        page.goto(alert["url"])
        expect(page.get_by_role("heading", name="Calls fail: route walk")).to_be_visible()
        expect(page.get_by_label("What carries the load")).to_contain_text("walk-good")
        expect(page.get_by_label("Which errors")).to_contain_text("upstream_500")
        page.get_by_role("link", name="The calls behind it").click()
        row = page.locator("table tbody tr").first
        expect(row).to_contain_text("upstream_500")
        row.get_by_role("link").first.click()
        for model in ("walk-bad", "walk-good"):
            expect(page.get_by_text(model).first).to_be_visible()
        page.goto(alert["url"])
        page.get_by_role("link", name="What to do").click()
        expect(page.get_by_role("heading", name="Runbook: A provider is degraded")).to_be_in_viewport()

        # It is over; who looks at the page sees that without doing anything.
        apply(stack, tmp_path, enabled="false", pager=pager.port)
        wait_until(
            lambda: "incident.resolved" in told(pager),
            lambda: f"its end was not told: {told(pager)}",
            timeout=300,
        )
        expect(page.locator("#part-now .chip", has_text="Resolved")).to_be_visible()
        expect(page.locator(".timeline")).to_contain_text("It was well for long enough")
        text = page.request.get(alert["url"] + "postmortem/").text()
        assert (
            text.startswith("# Calls fail: route walk\n")
            and "| walk-good |" in text
            and "upstream\\_500" in text
        )
        assert len({head["webhook-id"] for head, _ in pager.requests}) == len(pager.requests)
