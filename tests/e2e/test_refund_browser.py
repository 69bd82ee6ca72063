"""``docs/how-to/ask-before-a-refund.md``, as its three people do it: an operator defines the tool, a script that has nothing but the SDK
asks twice, a reviewer decides on a phone; the webhook gets what was approved, once; the story reads from question to answer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_browser import address, browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded
from tests.installation import ROOT
from tests.tools.services import says, service

PAGE = ROOT / "docs" / "how-to" / "ask-before-a-refund.md"
PHONE, WIDE = {"width": 390, "height": 844}, {"width": 1440, "height": 900}


def blocks() -> tuple[str, str, str]:
    """The schema, the check of the signature and the script, as the page has them."""
    schema, check, script = re.findall(
        r"```(?:json|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S
    )
    return schema, check, script


class Asking:
    """The script, running; ``said`` what it printed."""

    def __init__(self, script: Path, url: str, key: str, ticket: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(script), ticket],
            env={**os.environ, "CONSOLE_URL": url, "CONSOLE_KEY": key},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.run = self.process.stdout.readline().split()[1]

    def said(self) -> str:
        assert self.process.stdout is not None
        # Not ``communicate``: it does not see what was read ahead with the first line.
        with self.process:
            return self.process.stdout.read()


def define(page: Page, stack: Embedded, project: str, url: str) -> str:  # noqa: F811
    """The operator's part; the signing secret."""
    page.goto(address(stack, "/admin/tools/tool/add/"))
    page.locator("[name=project]").select_option(label=project)
    fields = {
        "slug": "refund",
        "description": "Gives money back to a customer.",
        "says": "Refund {amount} USD to {customer}",
        "parameters": blocks()[0],
        "rules": "amount > 1000 => irreversible",
        "approvals": "irreversible: 1",
        "url": url,
    }
    for name, value in fields.items():
        page.locator(f"[name={name}]").fill(value)
    page.locator("[name=risk]").select_option("write")
    page.locator("[name=allow_private_network]").check(force=True)
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Nothing can be sent to the webhook of refund yet")).to_be_visible()
    page.get_by_role("link", name="New signing secret").click()
    page.locator("form button[type=submit]").last.click()
    shown = page.get_by_text(re.compile("^whsec_"))
    expect(shown).to_be_visible()
    return (shown.text_content() or "").strip()


def decide(page: Page, stack: Embedded, run: str, button: str, reason: str = "") -> None:  # noqa: F811
    """The reviewer's part: from the inbox to the decision."""
    page.goto(address(stack, "/inbox/?tool=refund"))
    page.get_by_role("link", name="Refund 1200 USD to Ada").last.click()
    expect(page.get_by_role("region", name="Risk")).to_contain_text("amount > 1000")
    expect(page.get_by_role("region", name="What will run")).to_contain_text("1200")
    so_far = page.get_by_role("region", name="The run so far")
    expect(so_far).to_contain_text("Order 77 came broken.")
    expect(so_far.get_by_role("link", name="Its story")).to_have_attribute("href", f"/runs/{run}/")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if reason:
        page.get_by_label("Reason").first.fill(reason)
    page.get_by_role("button", name=button).click()


@pytest.mark.timeout(600)
def test_a_refund_waits_for_a_person_and_is_done_once(page: Page, stack: Embedded, tmp_path: Path) -> None:  # noqa: F811
    project = stack.ask("/api/v1/projects/", key="admin_key")["results"][0]
    key: Any = stack.ask(
        "/api/v1/service-keys/",
        {"project": project["slug"], "name": "refund desk", "scopes": ["runs"]},
        key="admin_key",
    )["secret"]
    script = tmp_path / "refund.py"
    script.write_text(blocks()[2])
    with service(says("200 OK", b'{"refund": "re_1"}')) as receiver:
        secret = define(page, stack, project["name"], f"http://127.0.0.1:{receiver.port}/refunds")
        url = stack.first["console_url"]
        page.set_viewport_size(PHONE)
        first = Asking(script, url, key, "ticket-1")
        decide(page, stack, first.run, "Reject", "Ada was paid already")
        expect(page.locator("#part-standing")).to_contain_text("Ada was paid already")
        second = Asking(script, url, key, "ticket-2")
        decide(page, stack, second.run, "Approve")
        expect(page.locator("#part-standing")).to_contain_text("Done")
        for asking in (first, second):
            said = asking.said()
            assert "waits for a person: Refund 1200 USD to Ada" in said and "\nsucceeded Simulated" in said
    ((headers, body),) = receiver.requests
    sent, known = json.loads(body), {}
    assert (sent["arguments"], sent["run"]) == ({"amount": 1200, "customer": "Ada"}, second.run)
    assert sent["approved_by"] == [stack.first["username"]]
    exec(blocks()[1], known)
    check: Any = known["from_the_console"]
    assert check(secret, headers, body) and not check(secret, headers, body + b" ")

    for run, what, viewport in ((first.run, "Ada was paid already", PHONE), (second.run, "Done", WIDE)):
        page.set_viewport_size(viewport)
        page.goto(address(stack, f"/runs/{run}/"))
        story = page.locator("#part-story").inner_text()
        places = [
            story.index(text)
            for text in ("Question", "Order 77", "Turn 1", "Refund 1200 USD to Ada", what, "Turn 2")
        ]
        assert places == sorted(places) and story.index("Simulated") > story.rindex("Answer")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
