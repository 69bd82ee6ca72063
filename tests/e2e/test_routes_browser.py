"""The route editor in a browser: with the keyboard alone, with a mouse, on a phone; and what would happen if something failed."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.test_browser import address, browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded, wait_until

pytestmark = pytest.mark.timeout(600)


def order(page: Page, rows: str) -> list[str]:  # noqa: F811
    selects = page.locator(f'[data-rows="{rows}"] select')
    return [selects.nth(index).input_value() for index in range(selects.count())]


def tab_to(page: Page, label: str) -> None:  # noqa: F811
    """Only the Tab key, from wherever the keyboard is."""
    for _ in range(120):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(document.activeElement.getAttribute('aria-label') || document.activeElement.textContent || "
            "document.activeElement.labels?.[0]?.textContent || '').trim()"
        )
        labels = page.evaluate(
            "[...(document.activeElement.labels || [])].map(one => one.textContent.trim())"
        )
        if label == name or label in labels:
            return
    raise AssertionError(f"Tab never comes to {label!r}")


def test_with_the_keyboard_alone(page: Page, stack: Embedded) -> None:  # noqa: F811
    page.goto(address(stack, "/routes/editor/"))
    tab_to(page, "Name")
    page.keyboard.type("drawn-by-keys")
    tab_to(page, "Target 1")
    page.keyboard.type("sim-gpt-4o")
    tab_to(page, "Weight of target 1")
    page.keyboard.press("Control+a")
    page.keyboard.type("3")
    tab_to(page, "Add a target")
    page.keyboard.press("Enter")
    # The keyboard is in the new row.
    expect(page.get_by_label("Target 2", exact=True)).to_be_focused()
    page.keyboard.type("sim-gpt-4o-mini")
    tab_to(page, "Weight of target 2")
    page.keyboard.press("Control+a")
    page.keyboard.type("1")
    expect(page.locator("[data-share]").first).to_have_text("75 %")
    expect(page.locator("#part-picture .stop-share")).to_have_text(["75 %", "25 %"])
    for model in ("sim-unreliable", "sim-gpt-4o-mini"):
        tab_to(page, "Add a fallback")
        page.keyboard.press("Enter")
        page.keyboard.type(model)
    expect(page.get_by_label("Fallback 2", exact=True)).to_be_focused()
    # It is named twice, and that is said while one types.
    expect(page.locator("#part-problems")).to_contain_text("both as target and as fallback")
    page.keyboard.press("Alt+ArrowUp")
    assert order(page, "fallbacks") == ["sim-gpt-4o-mini", "sim-unreliable"]
    expect(page.get_by_label("Fallback 1", exact=True)).to_be_focused()
    expect(page.locator("#said")).to_have_text(re.compile("now 1 of 2|warning"))
    tab_to(page, "Move down fallback 1")
    page.keyboard.press("Enter")
    assert order(page, "fallbacks") == ["sim-unreliable", "sim-gpt-4o-mini"]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert order(page, "fallbacks") == ["sim-unreliable"]
    expect(page.get_by_label("Fallback 1", exact=True)).to_be_focused()
    tab_to(page, "Attempts in all")
    page.keyboard.press("Control+a")
    page.keyboard.type("many")
    expect(page.locator("#part-problems")).to_contain_text("Write a whole number.")
    page.keyboard.press("Control+a")
    page.keyboard.type("4")
    expect(page.locator("#part-picture")).to_contain_text("4 attempts in all")
    page.keyboard.press("Enter")
    expect(page).to_have_url(address(stack, "/routes/editor/drawn-by-keys/"))
    expect(page.locator(".notices")).to_contain_text("drawn-by-keys is saved as a draft")
    assert order(page, "targets") == ["sim-gpt-4o", "sim-gpt-4o-mini"]
    assert order(page, "fallbacks") == ["sim-unreliable"]


def test_with_a_mouse(page: Page, stack: Embedded) -> None:  # noqa: F811
    page.goto(address(stack, "/routes/editor/chat/"))
    page.get_by_role("button", name="Add a fallback", exact=True).click()
    page.get_by_label("Fallback 2", exact=True).select_option("sim-unreliable")
    rows = page.locator('[data-rows="fallbacks"] > li')
    rows.nth(1).locator(".grip").drag_to(rows.nth(0), target_position={"x": 40, "y": 2})
    assert order(page, "fallbacks") == ["sim-unreliable", "sim-gpt-4o-mini"]
    expect(page.locator("#part-picture .flow-step.fallbacks .stop-name")).to_have_text(
        ["sim-unreliable", "sim-gpt-4o-mini"]
    )
    page.get_by_role("button", name="Estimate").click()
    expect(page.locator("#part-cost")).to_contain_text(re.compile("of the last 7 days|in the last 7 days"))
    # Nothing of it was saved; the browser asks before it is lost.
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    assert order(page, "fallbacks") == ["sim-gpt-4o-mini"]


def test_on_a_phone_and_what_would_happen(page: Page, stack: Embedded) -> None:  # noqa: F811
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address(stack, "/routes/editor/chat/"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    up = page.get_by_role("button", name="Remove fallback 1")
    box = up.bounding_box()
    assert box is not None and box["width"] >= 40 and box["height"] >= 40
    call = stack.chat()
    wait_until(lambda: stack.recorded(call), lambda: "the call was never booked")
    page.goto(address(stack, "/routes/whatif/"))
    page.get_by_label("To", exact=True).select_option("model:sim-gpt-4o")
    page.get_by_label("this happens").select_option("down")
    page.get_by_label("by", exact=True).select_option("chat")

    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("heading", name="chat", exact=True)).to_be_visible()
    expect(page.locator("#headline")).to_contain_text("If sim-gpt-4o cannot be reached")
    expect(page.get_by_role("row", name=re.compile("sim-gpt-4o-mini"))).to_contain_text("100.0 %")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
