"""An operator's way with a prompt, in a browser: written, tried, published, called by label, changed, compared, taken back."""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.test_browser import address, browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded, wait_until


def publish(stack: Embedded, reason: str) -> None:  # noqa: F811
    """Over the API; by hand it is done where the page of it is looked at."""
    stack.ask("/api/v1/revisions/", {"reason": reason}, key="admin_key")


def patience(stack: Embedded, attempts: int) -> None:  # noqa: F811
    stack.ask("/api/v1/routes/chat/", {"attempts": attempts}, key="admin_key", method="PATCH")


def said(stack: Embedded) -> int:  # noqa: F811
    """How long the system message is that a call by label sends on, as the simulator counts it; 0 while there is no such prompt."""
    body = {"prompt": {"id": "greeting", "variables": {"customer": "Ada"}}}
    try:
        return int(stack.ask("/v1/responses", body)["usage"]["input_tokens"])
    except urllib.error.HTTPError as refused:
        assert refused.code in (400, 404), refused.read()
        return 0


def felt(stack: Embedded, true: Callable[[int], bool]) -> int:  # noqa: F811
    """The gateway takes what was published within a second."""
    found: list[int] = []

    def come() -> bool:
        found.append(said(stack))
        return true(found[-1])

    wait_until(come, lambda: str(found[-1]))
    return found[-1]


@pytest.mark.timeout(600)
def test_from_the_first_word_to_a_call_and_back(page: Page, stack: Embedded) -> None:  # noqa: F811
    page.goto(address(stack, "/admin/prompts/prompt/add/"))
    page.get_by_label("Slug").fill("greeting")
    page.get_by_label("System policy", exact=True).fill("You greet customers of {{ brand }}.")
    page.get_by_label("User data", exact=True).fill("{{ customer }}")
    page.get_by_label("Route", exact=True).select_option("chat")
    # The preview follows, and offers what is missing.
    preview = page.get_by_role("region", name="Preview")
    expect(preview.locator("[data-preview-system]")).to_contain_text("[brand]")
    page.get_by_label("brand", exact=True).fill("Acme")
    expect(preview.locator("[data-preview-system]")).to_contain_text("Acme")
    expect(preview.get_by_role("status")).to_contain_text("This can be made a version.")
    expect(preview.get_by_role("table")).to_contain_text("sim-gpt-4o")
    # A mistake is said where it is, as one types.
    task = page.get_by_label("Task", exact=True)
    task.fill("{{ custmer")
    expect(preview.get_by_role("listitem")).to_contain_text("task:")
    expect(task).to_have_attribute("aria-invalid", "true")
    task.fill("")
    page.get_by_label("System policy", exact=True).fill("You greet.")
    expect(preview.get_by_role("status")).to_contain_text("This can be made a version.")
    page.get_by_label("On saving").select_option("version")
    page.get_by_label("Note", exact=True).fill("first")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.get_by_text("No label points to a version.")).to_be_visible()
    prompt = page.url

    page.get_by_role("link", name="Point one").click()
    page.locator("[name=version]").fill("1")
    page.get_by_label("Reason").fill("goes live")
    page.get_by_role("button", name="Point a label").click()
    expect(page.get_by_text("version 1, not published yet").first).to_be_visible()
    publish(stack, "greets")
    first = felt(stack, lambda tokens: tokens > 0)
    page.goto(prompt)
    expect(page.get_by_text("version 1 is live").first).to_be_visible()

    page.get_by_label("System policy", exact=True).fill("You greet most politely, at length, and in verse.")
    page.get_by_label("On saving").select_option("version")
    page.get_by_label("Note", exact=True).fill("verse")
    page.get_by_role("button", name="Save and continue editing").click()
    page.goto(prompt.replace("change/", "compare/"))
    expect(page.locator("ins").first).to_contain_text("most politely")
    expect(page.get_by_text("system policy:")).to_be_visible()
    page.goto(prompt.replace("change/", "point-label/"))
    page.locator("[name=version]").fill("2")
    page.get_by_label("Reason").fill("in verse")
    page.get_by_role("button", name="Point a label").click()
    expect(page.get_by_text("version 1 is live; version 2 once published").first).to_be_visible()
    assert said(stack) == first
    page.goto(address(stack, "/admin/serving/revision/publish/"))
    # In words, and before and after; the reason is asked for, and nothing happens without it.
    changed = page.locator(".compared-object").filter(has_text="greeting")
    expect(changed.get_by_role("listitem").first).to_contain_text("version 1 → version 2")
    expect(changed.locator("ins").filter(has_text="most politely")).to_be_visible()
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text("This field is required")).to_be_visible()
    assert said(stack) == first
    page.get_by_label("Reason").fill("in verse")
    page.get_by_role("button", name="Publish").click()
    expect(page).to_have_url(re.compile(r"/admin/serving/revision/$"))
    longer = felt(stack, lambda tokens: tokens > first)

    # Back, with the history in sight.
    page.goto(prompt)
    page.get_by_role("link", name="production", exact=True).click()
    page.get_by_role("link", name="Back", exact=True).click()
    expect(page.get_by_role("cell", name="in verse")).to_be_visible()
    page.get_by_role("button", name="Back").click()
    publish(stack, "no verse")
    felt(stack, lambda tokens: tokens == first)

    # And the whole of what is live, one click back from the list of revisions.
    page.goto(address(stack, "/admin/serving/revision/"))
    page.get_by_role("row").filter(has_text="in verse").get_by_role("link").first.click()
    expect(page.get_by_text("Against the revision before")).to_be_visible()
    page.get_by_role("link", name="Roll back").click()
    page.get_by_label("Reason").fill("verse after all")
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("it holds what revision")).to_be_visible()
    felt(stack, lambda tokens: tokens == longer)


@pytest.mark.timeout(600)
def test_of_two_people_who_publish_one_wins_and_the_other_reads_why(
    page: Page,  # noqa: F811
    context: BrowserContext,  # noqa: F811
    stack: Embedded,  # noqa: F811
) -> None:
    patience(stack, 5)
    other = context.new_page()
    for one in (page, other):
        one.goto(address(stack, "/admin/serving/revision/publish/"))
        expect(one.locator(".compared-object").filter(has_text="chat")).to_contain_text("→ 5")
        one.get_by_label("Reason").fill("patience")
    other.get_by_role("button", name="Publish").click()
    expect(other).to_have_url(re.compile(r"/admin/serving/revision/$"))
    patience(stack, 6)
    page.get_by_role("button", name="Publish").click()
    told = page.get_by_text(re.compile("published revision"))
    expect(told).to_contain_text("nothing of yours was published")
    expect(told).to_contain_text("route chat: attempts")
    # What is shown now is what would be published now; pressed again, it is.
    expect(page.locator(".compared-object").filter(has_text="chat")).to_contain_text("5 → 6")
    patience(stack, 7)
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text(re.compile("not what you saw any more"))).to_contain_text("on chat")
    page.get_by_role("button", name="Publish").click()
    expect(page).to_have_url(re.compile(r"/admin/serving/revision/$"))
    assert stack.ask("/api/v1/revisions/pending/", key="admin_key")["changes"] == []


def test_a_problem_leads_to_the_field_that_is_wrong(page: Page, stack: Embedded) -> None:  # noqa: F811
    page.goto(address(stack, "/admin/providers/route/add/"))
    page.get_by_label("Slug").fill("leads-nowhere")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page).to_have_url(re.compile(r"/admin/providers/route/$"))
    page.goto(address(stack, "/admin/serving/revision/publish/"))
    page.get_by_role("link", name="Route leads-nowhere has no target.").click()
    expect(page.locator(".field-wrong")).to_be_in_viewport()
    page.goto(address(stack, "/admin/serving/revision/publish/"))
    page.get_by_label("Reason").fill("with a mistake")
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text("must be put right first").first).to_be_visible()
    stack.ask("/api/v1/routes/leads-nowhere/archive/", {}, key="admin_key")


def test_a_switch_is_thrown_and_felt_and_shows_on_overview(page: Page, stack: Embedded) -> None:  # noqa: F811
    page.goto(address(stack, "/switches/"))
    page.get_by_label("What").select_option(label="chat")
    page.get_by_label("Reason, which callers read").last.fill("a bad answer")
    page.get_by_role("button", name="Switch", exact=True).click()
    row = page.get_by_role("row").filter(has_text="a bad answer")
    expect(row).to_contain_text(stack.first["username"])
    page.goto(address(stack, "/"))
    expect(page.get_by_text("Route chat is paused: a bad answer")).to_be_visible()
    page.goto(address(stack, "/switches/"))
    page.get_by_role("button", name=re.compile("Resume Route chat")).click()
    expect(page.get_by_text("Nothing is paused or degraded.")).to_be_visible()


def test_a_prompt_is_written_with_the_keyboard_alone(page: Page, stack: Embedded) -> None:  # noqa: F811
    page.goto(address(stack, "/admin/prompts/prompt/add/"))
    page.get_by_label("Slug").focus()
    page.keyboard.type("by-keys")
    for label, words in (("System policy", "You greet {{ who }}."), ("Task", "Greet.")):
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.labels?.[0]?.innerText?.trim() ?? ''").startswith(label):
                break
        page.keyboard.type(words)
    expect(page.locator("[data-preview-system]")).to_contain_text("[who]")
    # Every field of the page has a name that is told.
    unnamed = page.evaluate(
        """[...document.querySelectorAll('#content input:not([type=hidden]), #content textarea, #content select')]
           .filter((one) => one.offsetParent && !one.labels?.length && !one.getAttribute('aria-label')).map((one) => one.name)"""
    )
    assert unnamed == []
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "_save":
            break
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/admin/prompts/prompt/$"))
    expect(page.get_by_role("link", name="by-keys").first).to_be_visible()
