"""What takes a real browser: editing prompts with the keyboard alone, and signing in with a passkey."""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Error, Page, expect

from llmops.access import services as access
from llmops.access.models import Passkey
from llmops.audit.models import Event
from llmops.prompts.models import Label, Prompt
from llmops.serving.models import Revision
from tests.browser_in_process import HERE, InProcessBrowser, browser  # noqa: F401
from tests.cast import COMMAND, PASSWORD
from tests.console.world import undone

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine, pytest.mark.timeout(600)]

NAMED = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return "";
  const said = one.labels?.[0]?.innerText || one.getAttribute("aria-label") || one.innerText || one.value || one.name || "";
  return said.trim().replace(/\\s+/g, " ");
}"""
ARRIVED = """() => [!window.before && document.readyState === "complete" && !document.querySelector("meta[http-equiv=refresh]"),
  location.pathname]"""
SEEN = """() => {
  const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one);
  return box.width > 0 && (style.outlineStyle !== "none" || style.boxShadow !== "none");
}"""


def to(page: Page, name: str, most: int = 150) -> None:
    """Tab until what has the focus is called ``name``; it must be seen to have it."""
    met: list[str] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        met.append(page.evaluate(NAMED))
        if re.fullmatch(name, met[-1]):
            assert page.evaluate(SEEN), f"{name} has the focus, and nothing shows it"
            return
    raise AssertionError(f"the keyboard does not reach {name!r} on {page.url}, but {met}")


def skip(page: Page) -> None:
    """Past the navigation, as a page that was just opened offers first."""
    to(page, "Skip to content", 1)
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#content"


def press(page: Page, name: str, leads_to: str) -> None:
    to(page, name)
    # It may lead to the same address anew.
    page.evaluate("window.before = true")
    page.keyboard.press("Enter")
    for _ in range(600):
        try:
            arrived, address = page.evaluate(ARRIVED)
        except Error:
            arrived = False  # between two pages
        if arrived and re.search(leads_to, address):
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{name} led to {page.url}: {page.inner_text('body')[:1500]}")


def write(page: Page, name: str, words: str) -> None:
    to(page, name)
    page.keyboard.press("Control+A")
    page.keyboard.type(words)


def choose(page: Page, name: str, value: str) -> None:
    to(page, name)
    for key in ("ArrowDown", "ArrowUp"):
        for _ in range(12):
            if page.evaluate("document.activeElement.value") == value:
                return
            page.keyboard.press(key)
    raise AssertionError(f"{name} does not become {value} by the arrow keys")


def test_a_prompt_from_its_first_word_to_its_publication_with_the_keyboard_alone(
    world: SimpleNamespace, browser: InProcessBrowser
) -> None:
    def job(page: Page) -> None:
        page.goto(f"{HERE}/")
        press(page, "Prompts", r"/admin/prompts/prompt/$")
        press(page, "(Add|New) prompt", r"/prompt/add/$")
        write(page, "Slug.*", "by-keys")
        write(page, "System policy.*", "You greet.")
        write(page, "Task.*", "Say hello.")
        choose(page, "On saving.*", "version")
        write(page, "Note.*", "first")
        press(page, "Save and continue editing", r"/change/$")

        skip(page)
        write(page, "System policy.*", "You greet most politely.")
        choose(page, "On saving.*", "version")
        write(page, "Note.*", "polite")
        press(page, "Save and continue editing", r"/change/$")
        press(page, "Compare.*", r"/compare/")
        expect(page.locator("ins").first).to_contain_text("most politely")

        page.go_back()
        skip(page)
        press(page, "Point (a label|one).*", r"/point-label/")
        skip(page)
        to(page, "Version.*")
        if page.evaluate("document.activeElement.tagName") == "SELECT":
            page.keyboard.press("End")
        else:
            page.keyboard.type("2")
        write(page, "Reason.*", "goes live")
        press(page, "Point a label", r"/change/")

        press(page, "Revisions", r"/serving/revision/$")
        press(page, "Publish.*", r"/publish/")
        skip(page)
        write(page, "Reason.*", "polite from now on")
        press(page, "Publish.*", r"/serving/revision/")

    with undone():
        before = Revision.objects.count()
        browser.visit(
            world.clients["root"], job, resting=("/live/",), viewport={"width": 1440, "height": 900}
        )
        prompt = Prompt.objects.get(slug="by-keys")
        assert prompt.current.number == 2
        assert Label.objects.get(prompt=prompt).version.number == 2
        assert Revision.objects.count() == before + 1


def test_a_passkey_is_added_and_signs_in(world: SimpleNamespace, browser: InProcessBrowser) -> None:
    """With the authenticator that Chromium has for tests: the real ``navigator.credentials``, our script and our checks."""

    def job(page: Page) -> dict[str, Any]:
        devices = page.context.new_cdp_session(page)
        devices.send("WebAuthn.enable")
        device = devices.send(
            "WebAuthn.addVirtualAuthenticator",
            {
                "options": {
                    "protocol": "ctap2", "transport": "internal", "hasResidentKey": True,
                    "hasUserVerification": True, "isUserVerified": True, "automaticPresenceSimulation": True,
                }
            },
        )["authenticatorId"]  # fmt: skip
        refused: list[str] = []
        page.on("console", lambda said: refused.append(said.text) if said.type == "error" else None)
        page.goto(f"{HERE}/admin/login/")
        sign_in(page)
        page.wait_for_url(f"{HERE}/")
        page.goto(f"{HERE}/account/")
        page.get_by_label("Name of the new passkey").fill("Laptop")
        page.get_by_role("button", name="Add a passkey").click()
        expect(page.get_by_text("The passkey Laptop is asked for")).to_be_visible()
        expect(page.get_by_role("button", name="Remove the passkey Laptop")).to_be_visible()
        # A second one of the same device is not made.
        page.get_by_label("Name of the new passkey").fill("Again")
        page.get_by_role("button", name="Add a passkey").click()
        expect(page.get_by_role("alert")).to_contain_text("has a passkey for your account already")

        page.get_by_text("Account and appearance").click()
        page.get_by_role("button", name="Sign out", exact=True).click()
        page.goto(f"{HERE}/admin/login/")
        sign_in(page)
        page.wait_for_url(f"{HERE}/account/code/")
        page.get_by_role("button", name="Use a passkey").click()
        page.wait_for_url(f"{HERE}/")
        [credential] = devices.send("WebAuthn.getCredentials", {"authenticatorId": device})["credentials"]
        assert refused == []
        return dict(credential)

    def sign_in(page: Page) -> None:
        page.get_by_label("User name").fill("paula")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in", exact=True).click()

    with undone():
        access.create_user(COMMAND, username="paula", password=PASSWORD)
        credential = browser.visit(Client(), job, resting=("/live/",))
        row = Passkey.objects.get(user__username="paula")
        assert (row.name, row.transports) == ("Laptop", ["internal"])
        assert row.sign_count == credential["signCount"] and row.last_used_at is not None
        actions = list(Event.objects.values_list("action", "after")[:4])
        assert actions[0] == ("session.signed_in", {"by": "password and passkey"})
        assert ("passkey.added", {"name": "Laptop", "synced": False}) in actions
