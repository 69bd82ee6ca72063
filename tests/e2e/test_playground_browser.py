"""The playground in a browser over the whole stack: side by side, over a network that fails, by the keyboard, and kept."""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from tests.e2e.test_browser import address, browser, context, page, session, stack  # noqa: F401
from tests.e2e.test_embedded import Embedded, wait_until
from tests.e2e.wire import Wire

LONG = "Tell me a long story."


def opened(page: Page, stack: Embedded, base: str = "") -> Page:
    page.goto(base or address(stack, "/playground/"))
    page.get_by_label("Project").select_option(label="Support assistant")
    expect(page.locator("#columns")).to_have_attribute("aria-busy", "false")
    triage(page)
    return page


def triage(page: Page) -> None:
    """The prompt of the installation, whichever others are there by now."""
    column(page, "A").get_by_label("Prompt", exact=True).select_option(label="triage · shared")
    expect(column(page, "A").get_by_label("Version", exact=True)).not_to_be_empty()
    expect(page.get_by_label("ticket", exact=True)).to_be_visible()


def column(page: Page, letter: str) -> Locator:
    return page.get_by_role("region", name=f"Column {letter}", exact=True)


def free_text(page: Page, letter: str, words: str, model: str) -> None:
    """Ask in words of one's own, of ``model``."""
    place = column(page, letter)
    place.get_by_role("button", name="Free text").click()
    place.get_by_label("Turn 1", exact=True).fill(words)
    place.get_by_label("Route or model").select_option(model)


def calls(stack: Embedded) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.ask("/api/v1/calls/?feature=playground", key="admin_key")["results"]
    return found


def test_two_versions_side_by_side_and_kept(page: Page, stack: Embedded) -> None:
    opened(page, stack)
    before = len(calls(stack))
    # A value that is needed is asked for before anything is paid.
    page.get_by_role("button", name=re.compile("^Run")).first.click()
    ticket = page.get_by_label("ticket", exact=True)
    expect(ticket).to_have_attribute("aria-invalid", "true")
    expect(ticket).to_be_focused()
    page.get_by_label("Fill from").select_option(index=1)
    expect(ticket).not_to_be_empty()
    page.get_by_role("button", name="Duplicate column A").click()
    b = column(page, "B")
    b.get_by_label("Route or model").select_option("sim-gpt-4o-mini")
    b.locator("summary", has_text="Words").click()
    b.get_by_label("Task", exact=True).fill("Choose a queue for this ticket, at {{ shop }}.")
    page.get_by_label("shop", exact=True).fill("Acme")
    expect(b.get_by_text("edited, not saved")).to_be_visible()
    page.keyboard.press("Control+Enter")
    for letter in "AB":
        expect(column(page, letter).get_by_text("Answered", exact=True)).to_be_visible()
        expect(column(page, letter).get_by_text("Cost", exact=True)).to_be_visible()
        expect(column(page, letter).get_by_role("link", name="The call's story")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="the answer is finished")).to_have_count(1)
    expect(page.get_by_text("cheapest")).to_be_visible()
    made = calls(stack)[: len(calls(stack)) - before]
    assert len(made) == 2
    assert {tuple(one["tags"]) for one in made} == {(), ("triage@edited",)}
    assert {one["user_digest"] for one in made} != {""}

    # What was tried becomes the next version, with its note.
    b.get_by_role("button", name=re.compile("Save as a version")).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("What changed, and why").fill("names the shop")
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#notice", has_text="Saved as triage, version")).to_be_visible()
    expect(b.get_by_text("edited, not saved")).to_be_hidden()
    # And its values a sample of it.
    page.get_by_role("button", name="Save as a sample").click()
    dialog.get_by_label("What they are a case of").fill("a shop")
    page.keyboard.press("Enter")
    expect(page.locator("#notice", has_text="Saved as a sample, in version")).to_be_visible()

    # Somebody else finds all of it by an address that says nothing of it.
    page.get_by_role("button", name="Share").click()
    shared = dialog.get_by_label("Address")
    expect(shared).to_have_value(re.compile(r"/playground/\?setup=[0-9a-f-]{36}$"))
    url = shared.input_value()
    page.goto(url)
    expect(page.get_by_label("shop", exact=True)).to_have_value("Acme")
    expect(column(page, "B").get_by_label("Route or model")).to_have_value("sim-gpt-4o-mini")


def held(page: Page, true: Callable[[], bool], explain: str) -> None:
    """Until requests that are held back have been made; the page goes on meanwhile."""
    for _ in range(3_000):
        if true():
            return
        page.wait_for_timeout(20)
    raise AssertionError(explain)


def test_a_project_that_answers_late_leaves_the_one_chosen_since_alone(page: Page, stack: Embedded) -> None:
    """What can be run is always of the project and the version that are shown, however slowly either came."""
    opened(page, stack)
    before = len(calls(stack))
    late: list[Route] = []
    page.route("**/playground/choices/**", lambda route: late.append(route))
    run = column(page, "A").get_by_role("button", name="Run column A")
    project = page.get_by_label("Project")
    other = next(text for text in project.locator("option").all_inner_texts() if text != "Support assistant")
    project.select_option(label=other)
    held(page, lambda: len(late) == 1, "the other project was not asked for")
    expect(run).to_be_disabled()
    page.keyboard.press("Control+Enter")
    project.select_option(label="Support assistant")
    held(page, lambda: len(late) == 2, "the project was not asked for")
    late[1].continue_()
    expect(run).to_be_enabled()
    shown = column(page, "A").get_by_label("Prompt").inner_text()
    with page.expect_response("**/playground/choices/**"):
        late[0].continue_()
    page.wait_for_function(
        "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(true))))"
    )
    assert column(page, "A").get_by_label("Prompt").inner_text() == shown
    expect(run).to_be_enabled()
    assert len(calls(stack)) == before, "nothing was run while a project was being opened"
    page.unroute("**/playground/choices/**")

    # A version chosen a moment ago is the one that runs.
    triage(page)
    slow: list[Route] = []
    version = column(page, "A").get_by_label("Version", exact=True)
    page.get_by_label("Fill from").select_option(index=1)
    names = version.locator("option").all_inner_texts()
    chosen = next(text for text in names[1:] if text.startswith("Version "))
    page.route("**/playground/version/**", lambda route: slow.append(route))
    version.select_option(label=chosen)
    with page.expect_response("**/playground/run/**") as answer:
        run.click()
        held(page, lambda: bool(slow), "the version was not asked for")
        slow[0].continue_()
    number = re.match(r"Version (\d+)", chosen)
    assert number and answer.value.json()["version"] == number[1]
    expect(column(page, "A").get_by_text("Answered", exact=True)).to_be_visible()


@pytest.fixture
def wire(stack: Embedded) -> Iterator[Wire]:
    found = Wire(stack.port)
    yield found
    found.close()


@pytest.fixture
def slow(stack: Embedded) -> str:
    """A model that says 8 tokens a second, live."""
    slug = "slow"
    if stack.ask(f"/api/v1/models/?slug={slug}", key="admin_key")["results"]:
        return slug
    model = {
        "slug": slug, "provider": "simulator", "upstream_model": "sim-gpt-4o+tps=8", "floats_reason": "a test",
        "context_window": 8000, "max_output_tokens": 400, "default_max_output_tokens": 400,
        "capabilities": ["chat", "stream"],
    }  # fmt: skip
    stack.ask("/api/v1/models/", model, key="admin_key")
    for token_class in ("input", "output"):
        price = {"token_class": token_class, "usd_per_million": "1"}
        stack.ask(f"/api/v1/models/{slug}/prices/", price, key="admin_key")
    stack.ask("/api/v1/revisions/", {"reason": "a slow model"}, key="admin_key")
    return slug


def test_a_network_that_fails_costs_nothing_twice(
    context: BrowserContext, stack: Embedded, slow: str, wire: Wire
) -> None:
    # Not the page that complains: a network that is away is an error of the browser's.
    page = context.new_page()
    opened(page, stack, f"http://127.0.0.1:{wire.port}/playground/")
    before = len(calls(stack))
    free_text(page, "A", LONG, slow)
    page.keyboard.press("Control+Enter")
    a = column(page, "A")
    answer = a.locator("[data-text]")
    expect(answer).to_contain_text("Simulated")
    wire.cut()
    lost = page.locator("#link").get_by_text("Connection lost")
    expect(lost).to_be_visible()
    heard = answer.inner_text()
    # It goes on without the page, and the page goes on where it was.
    wire.mend()
    expect(lost).to_be_hidden()
    expect(a.get_by_text("Answered", exact=True)).to_be_visible(timeout=60_000)
    whole = answer.inner_text()
    assert whole.startswith(heard) and len(whole) > len(heard)
    # A page that is loaded again finds its answer.
    page.reload()
    expect(a.get_by_text("Answered", exact=True)).to_be_visible()
    expect(answer).to_have_text(whole)
    # Asked while the network is away: made once it is back, and once.
    wire.cut()
    page.keyboard.press("Control+Enter")
    expect(lost).to_be_visible()
    wire.mend()
    expect(answer).to_contain_text("Simulated")
    expect(a.get_by_text("Answered", exact=True)).to_be_visible(timeout=60_000)
    wait_until(lambda: len(calls(stack)) > before + 1, lambda: "the calls are not booked")
    assert [one["status"] for one in calls(stack)[: len(calls(stack)) - before]] == ["ok", "ok"]


def test_cancelling_stops_the_provider(page: Page, stack: Embedded, slow: str) -> None:
    opened(page, stack)
    before = len(calls(stack))
    free_text(page, "A", LONG + " Go on.", slow)
    page.keyboard.press("Control+Enter")
    expect(column(page, "A").locator("[data-text]")).to_contain_text("Simulated")
    page.keyboard.press("Escape")
    expect(column(page, "A").get_by_text("Cancelled", exact=True)).to_be_visible()
    expect(column(page, "A").get_by_text("The provider was told to stop")).to_be_visible()
    wait_until(lambda: len(calls(stack)) > before, lambda: "the call is not booked")
    assert calls(stack)[0]["status"] == "client_closed"


def test_who_signed_in_again_elsewhere_goes_on_here(
    context: BrowserContext, stack: Embedded, slow: str
) -> None:
    # Not the page that complains: a refusal is an error of the browser's.
    page = context.new_page()
    opened(page, stack)
    free_text(page, "A", LONG + " Go on and on.", slow)
    page.route("**/playground/events/**", lambda route: route.fulfill(status=401))
    page.keyboard.press("Control+Enter")
    lost = page.locator("#link").get_by_text("You are signed out")
    expect(lost).to_be_visible()
    page.unroute("**/playground/events/**")
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(lost).to_be_hidden()
    expect(column(page, "A").locator("[data-text]")).to_contain_text("Simulated")
    # A version that cannot be had takes no answer away that is under way.
    place = column(page, "A")
    place.get_by_role("button", name="Prompt", exact=True).click()
    version = place.get_by_label("Version", exact=True)
    chosen = version.input_value()
    others = [one.get_attribute("value") for one in version.locator("option").all()]
    page.route("**/playground/version/**", lambda route: route.fulfill(status=500))
    version.select_option(next(value for value in others if value and value != chosen))
    expect(page.locator("#notice")).to_contain_text("Column A: The console answered 500")
    page.keyboard.press("Escape")
    expect(place.get_by_text("Cancelled", exact=True)).to_be_visible()


def test_by_the_keyboard_alone(page: Page, stack: Embedded) -> None:
    opened(page, stack)
    page.get_by_label("Project").focus()

    def on_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate(
                """() => { const one = document.activeElement;
                   return one.getAttribute('aria-label') || one.labels?.[0]?.innerText || one.innerText || ''; }"""
            ).startswith(name):
                return
        raise AssertionError(f"{name} is not reached by Tab")

    on_to("Free text")
    page.keyboard.press("Enter")
    on_to("System")
    page.keyboard.type("You are brief.")
    on_to("Turn 1")
    page.keyboard.type("Say hello.")
    page.keyboard.press("Control+Enter")
    expect(column(page, "A").get_by_text("Answered", exact=True)).to_be_visible()
    expect(page.get_by_role("status").first).to_contain_text(
        re.compile(r"the answer is finished, \d+ tokens")
    )
    # What is asked has a name that is told, every field of it.
    unnamed = page.evaluate(
        """[...document.querySelectorAll('#content input:not([type=hidden]), #content textarea, #content select, #content button')]
           .filter((one) => one.offsetParent && !one.labels?.length && !one.getAttribute('aria-label') && !one.innerText.trim())
           .map((one) => one.outerHTML)"""
    )
    assert unnamed == []
