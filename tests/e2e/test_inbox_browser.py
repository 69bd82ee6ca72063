"""A service wants money back for customers; a reviewer sees it on a phone, rejects one and approves another, on a wide screen edits a
third; the webhook gets the approved one once, with the approved arguments."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_browser import address, browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded
from tests.tools.making import REFUND
from tests.tools.services import says, service


def ask(stack: Embedded, method: str, path: str, body: Any = None) -> Any:  # noqa: F811
    request = urllib.request.Request(
        address(stack, path),
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {stack.first['admin_key']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=40) as answer:
        return json.load(answer)


@pytest.mark.timeout(600)
def test_from_the_wish_to_the_webhook(page: Page, stack: Embedded) -> None:  # noqa: F811
    project = ask(stack, "GET", "/api/v1/projects/")["results"][0]["slug"]
    with service(says("200 OK", b'{"refund": "r1"}')) as receiver:
        settings = {"url": f"http://127.0.0.1:{receiver.port}/", "allow_private_network": True}
        definition = {**REFUND, "executor": "webhook", "settings": settings, "approvals": {"irreversible": 1}}
        tool = ask(
            stack,
            "POST",
            "/api/v1/tools/",
            {"project": project, "slug": "money-back", "definition": definition},
        )
        ask(stack, "POST", f"/api/v1/tools/{tool['id']}/rotate-secret/", {})

        def wish(amount: int, customer: str) -> str:
            arguments = {"amount": amount, "customer": customer}
            body = {
                "project": project,
                "tool": "money-back",
                "arguments": arguments,
                "reason": "It broke",
                "run": "story",
            }
            return str(ask(stack, "POST", "/api/v1/actions/", body)["id"])

        def became(action: str) -> Any:
            return ask(stack, "GET", f"/api/v1/actions/{action}/?wait=25")

        page.set_viewport_size({"width": 390, "height": 844})
        page.goto(address(stack, "/inbox/"))
        approved, rejected = wish(1200, "Ada"), wish(900, "Eve")
        # They come by themselves.
        page.get_by_role("link", name="Refund 1200 USD to Ada").click()
        expect(page.get_by_role("region", name="What will run")).to_contain_text("1200")
        expect(page.get_by_role("region", name="Risk")).to_contain_text("amount > 1000")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("button", name="Approve").click()
        expect(page.locator("#part-standing")).to_contain_text("Done")
        page.get_by_role("link", name="All that waits").click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("link", name="Refund 900 USD to Eve").click()
        page.get_by_label("Reason").first.fill("Not this customer")
        page.get_by_role("button", name="Reject").click()
        expect(page.locator("#part-standing")).to_contain_text("Not this customer")
        assert became(approved)["result"] == {"refund": "r1"} and became(rejected)["state"] == "rejected"

        # Many at once, wherever one is in the list: what decides is at hand.
        for number in range(12):
            wish(500 + number, "Bea")
        page.goto(address(stack, "/inbox/?tool=money-back&risk=destructive"))
        reject = page.get_by_role("button", name="Reject chosen")
        expect(reject).to_be_in_viewport()
        expect(reject).to_be_disabled()
        for row in (0, 6, 11):
            page.locator("input[name=request]").nth(row).check()
            expect(reject).to_be_in_viewport()
        expect(page.locator("#chosen")).to_have_text("3 of 12 chosen")
        page.get_by_label("All on this page").check()
        reject.click()
        # Not without a reason, which the browser asks for.
        expect(page.get_by_label("Reason")).to_be_focused()
        page.get_by_label("Reason").fill("Ordered twice")
        reject.click()
        expect(page.get_by_role("status").filter(has_text="Rejected: 12 of 12.")).to_be_visible()

        page.set_viewport_size({"width": 1440, "height": 900})
        wish(700, "Mallory\u202e")
        page.goto(address(stack, "/inbox/?tool=money-back"))
        page.get_by_role("link", name=re.compile(r"Mallory\\u202e")).click()
        page.get_by_text("Propose something else instead").click()
        page.get_by_label("Arguments").fill('{"amount": 300, "customer": "Mallory"}')
        page.get_by_label("What you changed").fill("less, and a name that can be read")
        page.get_by_role("button", name="Replace it").click()
        expect(page.get_by_role("region", name="What will run").locator("del").first).to_have_text("700")
        expect(page.get_by_role("button", name="Approve")).to_have_count(0)
        page.get_by_role("button", name="Take it back").click()
        expect(page.locator("#part-standing")).to_contain_text("Taken back")
    sent = [json.loads(body) for _, body in receiver.requests]
    assert [(one["action"], one["arguments"]) for one in sent] == [
        (approved, {"amount": 1200, "customer": "Ada"})
    ]
    assert sent[0]["approved_by"] == ["admin"]
