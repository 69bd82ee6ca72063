"""A policy composed in a browser: settings are fields of the chosen kind, written as what the API shows."""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_browser import address, browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded


def check(page: Page, number: int) -> Locator:
    return page.locator("[data-check]").nth(number - 1)


@pytest.mark.timeout(600)
def test_settings_are_fields_of_the_kind_and_may_be_text(page: Page, stack: Embedded) -> None:
    page.goto(address(stack, "/admin/policies/policy/add/"))
    page.get_by_label("Slug").fill("composed")
    first, second = check(page, 1), check(page, 2)
    # Nothing is asked before a kind is chosen; then its example is there, to be changed.
    expect(first.get_by_label("What follows")).to_be_hidden()
    first.get_by_label("Check for").select_option("deny")
    first.get_by_label("Name").first.fill("rivals")
    first.get_by_label("Words", exact=True).first.fill("Initech\n\n  Globex Corporation ")
    first.get_by_role("button", name="Remove this rule").last.click()
    expect(first.get_by_role("group", name="Rule", exact=True)).to_have_count(1)
    first.get_by_role("button", name="Add a rule").click()
    expect(first.get_by_label("Name").last).to_be_focused()
    first.get_by_label("Name").last.fill("orders")
    first.get_by_label("Expressions").last.fill("ORD-[0-9]{6}")
    first.get_by_label("Match case").last.check()
    # What only one action has a use for is there with that action alone.
    second.get_by_label("Check for").select_option("lazy")
    expect(second.get_by_label("Attempts")).to_be_visible()
    second.get_by_label("What follows").select_option("block")
    expect(second.get_by_label("Attempts")).to_be_hidden()
    second.get_by_label("Min characters").fill("40")
    page.get_by_role("button", name="Save and continue editing").click()

    # The same fields come back, and text that was written by hand is read into them.
    expect(check(page, 1).get_by_label("Words", exact=True).first).to_have_value(
        "Initech\nGlobex Corporation"
    )
    made = check(page, 2)
    made.get_by_role("button", name="Write as text").click()
    text = made.get_by_role("textbox", name="Settings of check 2")
    expect(text).to_have_value("min_characters: 40")
    text.fill('{"min_characters": 50}')
    made.get_by_role("button", name="Fill in fields").click()
    expect(made.get_by_label("Min characters")).to_have_value("50")
    made.get_by_role("button", name="Write as text").click()
    text.fill("min_characters: 60")
    made.get_by_role("button", name="Fill in fields").click()
    expect(made.get_by_text("Written as YAML here")).to_be_visible()
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url(lambda url: "/change/" not in url)

    kept = stack.ask("/api/v1/policies/composed/", key="admin_key")["current"]
    assert kept["number"] == 2
    assert [(one["kind"], one["stage"], one["action"], one["settings"]) for one in kept["checks"]] == [
        (
            "deny", "after", "allow",
            {"rules": [
                {"name": "rivals", "words": ["Initech", "Globex Corporation"]},
                {"name": "orders", "expressions": ["ORD-[0-9]{6}"], "match_case": True},
            ]},
        ),
        ("lazy", "after", "block", {"min_characters": 60}),
    ]  # fmt: skip
