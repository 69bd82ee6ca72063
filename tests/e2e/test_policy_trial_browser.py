"""A policy tried on calls that were made, in a browser: how far it is, what came of it, and a way to stop."""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_browser import address, browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded, wait_until

#: The answer of the next trial stops after its first line, until somebody lets go of it.
_HELD_UP = """
(() => {
  const real = window.fetch;
  window.fetch = async (...asked) => {
    const answer = await real(...asked);
    const first = (await answer.text()).split("\\n")[0] + "\\n";
    const stop = asked[1].signal;
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(first));
        stop.addEventListener("abort", () => controller.error(new DOMException("", "AbortError")));
        window.breakOff = () => controller.close();
      },
    });
    return new Response(body, { status: answer.status, headers: { "content-type": answer.headers.get("content-type") } });
  };
})()
"""


@pytest.fixture(scope="module")
def policy(stack: Embedded) -> Iterator[str]:
    """A policy that stops all calls, and some of them, with their texts kept."""
    projects = [one["slug"] for one in stack.ask("/api/v1/projects/", key="admin_key")["results"]]

    def keep(percent: int) -> None:
        for one in projects:
            stack.ask(
                f"/api/v1/projects/{one}/", {"keep_texts_percent": percent}, key="admin_key", method="PATCH"
            )

    keep(100)
    rows = sqlite3.connect(f"file:{stack.data_dir / 'console.sqlite3'}?mode=ro", uri=True)

    def kept() -> int:
        return int(rows.execute("SELECT count(*) FROM usage_kept_text").fetchone()[0])

    def are_kept() -> bool:
        stack.chat()
        return kept() >= 3

    wait_until(are_kept, lambda: f"{kept()} texts are kept", timeout=60)
    rows.close()
    made = stack.ask(
        "/api/v1/policies/",
        {
            "slug": "short-only",
            "checks": [
                {"kind": "length", "stage": "before", "action": "block", "settings": {"max_characters": 1}}
            ],
        },
        key="admin_key",
    )
    yield str(made["id"])
    keep(0)


def opened(page: Page, stack: Embedded, policy: str) -> Page:
    page.goto(address(stack, f"/admin/policies/policy/{policy}/change/"))
    page.get_by_role("link", name="Try it on calls").click()
    expect(page.get_by_label("How many")).to_have_value("1000")
    return page


@pytest.mark.timeout(600)
def test_what_it_would_have_done_with_links_to_the_calls(page: Page, stack: Embedded, policy: str) -> None:
    opened(page, stack, policy)
    page.get_by_role("button", name="Try it on calls").click()
    told = re.compile(r"Version 1 would have blocked \d+ of \d+ calls")
    expect(page.get_by_role("heading", name=told)).to_be_visible()
    expect(page.locator("[data-trial-said]")).to_have_text(told)
    expect(page.get_by_role("progressbar")).to_be_hidden()
    # It was one page all the time, and it can be asked again.
    expect(page.get_by_label("How many")).to_have_value("1000")
    page.get_by_label("How many").fill("1")
    page.get_by_label("How many").press("Enter")
    expect(page.get_by_role("heading", name="Version 1 would have blocked 1 of 1 calls.")).to_be_visible()
    page.locator("[data-trial-outcome] a time").first.click()
    expect(page).to_have_url(re.compile(r"/calls/[0-9a-f-]{36}/$"))
    # What is wrong with the question is said at its field.
    opened(page, stack, policy)
    page.get_by_label("How many").fill("0")
    page.get_by_role("button", name="Try it on calls").click()
    expect(page.get_by_text("greater than or equal to 1")).to_be_visible()


@pytest.mark.timeout(600)
def test_it_can_be_stopped_and_a_lost_connection_is_said(page: Page, stack: Embedded, policy: str) -> None:
    opened(page, stack, policy)
    page.evaluate(_HELD_UP)
    page.get_by_role("button", name="Try it on calls").click()
    shown = page.locator("[data-trial-words]")
    expect(shown).to_have_text(re.compile(r"^0 of \d+ calls looked at, 0 matched so far$"))
    bar = page.get_by_role("progressbar", name="Calls looked at")
    expect(bar).to_have_attribute("value", "0")
    page.get_by_role("button", name="Cancel").click()
    expect(bar).to_be_hidden()
    expect(page.locator("[data-trial-said]")).to_have_text(re.compile(r"^Stopped after 0 of \d+ calls"))
    # The keyboard is where one can ask again.
    again = page.get_by_role("button", name="Try it on calls")
    expect(again).to_be_focused()
    again.click()
    expect(shown).to_have_text(re.compile("looked at"))
    page.evaluate("window.breakOff()")
    expect(page.locator("[data-trial-said]")).to_have_text(re.compile("^The connection broke off after 0 of"))


@pytest.mark.timeout(600)
def test_nothing_that_is_wrong_for_who_cannot_see(page: Page, stack: Embedded, policy: str) -> None:
    from tests.browser_in_process import axe_source

    opened(page, stack, policy)
    page.evaluate(_HELD_UP)
    page.get_by_role("button", name="Try it on calls").click()
    expect(page.locator("[data-trial-words]")).to_have_text(re.compile("looked at"))
    page.evaluate(axe_source())
    found = page.evaluate("axe.run('[data-trial]', {runOnly: ['wcag2a', 'wcag2aa']})")
    serious = [one["id"] for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert serious == [], json.dumps(found["violations"])[:2_000]
