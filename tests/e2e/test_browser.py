"""The console in a real browser over a real stack: sign in, see Overview, watch a call come in, read its story."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.chromium import CHROMIUM, FLAGS
from tests.e2e.test_embedded import Embedded, wait_until
from tests.e2e.unwatched import Unwatched
from tests.handing_on import handed_on
from tests.installation import Template

WIDE: ViewportSize = {"width": 1440, "height": 900}
#: Half an hour off the others, so that a time in the wrong zone shows.
ZONE = "Asia/Kolkata"
WATCH_POLICY = """
window.refusedByPolicy = [];
document.addEventListener("securitypolicyviolation", e => window.refusedByPolicy.push(e.violatedDirective + " " + e.blockedURI));
"""


# Other tests may be using the machine at the same time; none of these is about speed.
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def stack(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    installation_template: Template,
) -> Iterator[Embedded]:
    """One for this file and all that import it; what a test makes in it has a name that no other uses."""

    @contextmanager
    def running() -> Iterator[Embedded]:
        found = Unwatched(tmp_path_factory.mktemp("browser"), installation_template)
        # What happened in the months before is looked at elsewhere, and takes as long to make as all else here.
        found.env["CONSOLE_DEMO"] = "no"
        try:
            found.start()
            yield found
        finally:
            found.kill()

    yield from handed_on(request, running)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    @contextmanager
    def running() -> Iterator[Browser]:
        with sync_playwright() as playwright:
            found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            yield found
            found.close()

    yield from handed_on(request, running)


@pytest.fixture(scope="module")
def session(request: pytest.FixtureRequest, browser: Browser, stack: Embedded) -> Iterator[BrowserContext]:
    """Where one is signed in, through the form, once for all files: a window costs more than most of what is done in it."""

    @contextmanager
    def signed_in() -> Iterator[BrowserContext]:
        # What breathes while a page is live would be drawn sixty times a second; the page left open below shows it so.
        context = browser.new_context(timezone_id=ZONE, viewport=WIDE, reduced_motion="reduce")
        context.add_init_script(WATCH_POLICY)
        page = context.new_page()
        page.goto(address(stack, "/calls/?status=ok"))
        expect(page).to_have_url(re.compile(r"/admin/login/\?next=/calls/"))
        page.get_by_label("User name").fill(stack.first["username"])
        page.get_by_label("Password").fill("not this one")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("do not fit together")
        page.get_by_label("Password").fill(stack.first["password"])
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(address(stack, "/calls/?status=ok"))
        yield context
        context.close()

    yield from handed_on(request, signed_in)


@pytest.fixture
def context(session: BrowserContext, stack: Embedded) -> Iterator[BrowserContext]:
    """Signed in, and with one page; what a test leaves in it is gone before the next."""
    cookies, first = session.cookies(), session.pages[0]
    yield session
    for other in session.pages[1:]:
        other.close()
    first.unroute_all()
    rest(first, stack)
    session.clear_cookies()
    session.add_cookies(cookies)  # type: ignore[arg-type]


def rest(page: Page, stack: Embedded) -> None:
    """On a page that asks for nothing by itself."""
    page.set_viewport_size(WIDE)
    page.goto(address(stack, "/alerts/runbooks/"))
    page.evaluate("localStorage.clear(); sessionStorage.clear()")


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page on which nothing may be written to the console as an error, and nothing refused by a policy."""
    with watched(context.pages[0]) as found:
        yield found


@contextmanager
def watched(page: Page) -> Iterator[Page]:
    complaints: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    def failed(error: Error) -> None:
        complaints.append(str(error))

    page.on("console", said)
    page.on("pageerror", failed)
    try:
        yield page
        assert page.evaluate("window.refusedByPolicy") == []
        assert complaints == []
    finally:
        page.remove_listener("console", said)
        page.remove_listener("pageerror", failed)


def address(stack: Embedded, path: str) -> str:
    return f"{stack.first['console_url']}{path}"


def test_overview_shows_what_happened_and_leads_to_one_call(page: Page, stack: Embedded) -> None:
    call = stack.chat()
    page.goto(address(stack, "/"))
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    expect(page.locator(".tile")).to_have_count(6)
    for chart in ("calls", "latency", "spend"):
        expect(page.locator(f"#chart-{chart} canvas")).to_be_visible()
    expect(page.get_by_text("Simulator", exact=True).first).to_be_visible()
    expect(page.locator(".env")).to_have_text("Embedded")

    row = page.locator(f'tr[data-key="{call}"]')
    expect(row).to_be_visible()
    shown = row.locator("time")
    utc = shown.get_attribute("title") or ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", utc)
    minutes = (int(utc[11:13]) * 60 + int(utc[14:16]) + 330) % 1440
    assert (shown.text_content() or "").startswith(f"{minutes // 60:02}:{minutes % 60:02}:")

    row.get_by_role("link").click()
    expect(page).to_have_url(address(stack, f"/calls/{call}/"))
    expect(page.get_by_text(re.compile("answered in"))).to_be_visible()
    expect(page.get_by_role("heading", name="Budgets charged")).to_be_visible()
    expect(page.locator("#id-call")).to_have_text(call)
    page.get_by_role("link", name="chat", exact=True).click()
    expect(page.get_by_role("heading", name=re.compile("chat"))).to_be_visible()


def test_a_new_call_appears_by_itself_and_is_announced(page: Page, stack: Embedded) -> None:
    page.goto(address(stack, "/"))
    expect(page.locator("#live-text")).to_have_text("Live")
    before = shown(page)
    call = stack.chat()
    expect(page.locator(f'tr[data-key="{call}"]')).to_be_visible()
    expect(page.locator("#said")).to_have_text(re.compile("new call"))
    # Figures and the chart follow the list, and come to speak of the same calls.
    seen = [before]

    def grown() -> bool:
        seen.append(shown(page))
        return before["tile"] < seen[-1]["tile"] == seen[-1]["chart"]

    wait_until(grown, lambda: f"{before}, then {seen[-1]}")


def shown(page: Page) -> dict[str, int]:
    """Calls as the tile and the chart's label have them, read at one moment."""
    found: dict[str, int] = page.evaluate(
        """() => {
            const number = text => Number(text.replace(/[^0-9]/g, ""));
            const label = document.getElementById("chart-calls").getAttribute("aria-label");
            return {tile: number(document.querySelector(".tile .figure").textContent),
                    chart: number(label.match(/: ([^:]*) in all/)[1])};
        }"""
    )
    return found


def test_a_live_page_rests_while_nobody_looks(
    browser: Browser, stack: Embedded, session: BrowserContext
) -> None:
    # A clock of its own stays with a window for good.
    context = browser.new_context(storage_state=session.storage_state(), reduced_motion="reduce")
    context.add_init_script(WATCH_POLICY)
    with watched(context.new_page()) as page:
        rests_while_nobody_looks(page, stack)
    context.close()


def rests_while_nobody_looks(page: Page, stack: Embedded) -> None:
    asked: list[str] = []

    def note(request: Request) -> None:
        if "/live/" in request.url:
            asked.append(request.url)

    page.on("request", note)
    page.clock.install()
    page.goto(address(stack, "/"))
    with page.expect_response(lambda answer: "/live/" in answer.url):
        page.clock.run_for(1_500)
    page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, get: () => true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    asked.clear()
    page.clock.run_for(60_000)
    assert asked == []
    page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, get: () => false})")
    with page.expect_response(lambda answer: "/live/" in answer.url):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.clock.run_for(100)
    page.get_by_role("button", name="Pause").click()
    asked.clear()
    page.clock.run_for(60_000)
    assert asked == []
    expect(page.locator("#live-text")).to_have_text("Paused")


def test_filters_live_in_the_address(page: Page, stack: Embedded) -> None:
    page.goto(address(stack, "/"))
    page.get_by_role("link", name="24 h").click()
    expect(page).to_have_url(address(stack, "/?range=24h"))
    page.get_by_label("Project", exact=True).select_option(label="Support assistant")
    expect(page).to_have_url(re.compile(r"/\?range=24h&project=[0-9a-f-]{36}$"))
    page.reload()
    expect(page.get_by_role("link", name="24 h")).to_have_attribute("aria-current", "true")
    expect(page.get_by_label("Project", exact=True).locator("option:checked")).to_have_text(
        "Support assistant"
    )

    page.locator(".tile a").first.click()
    expect(page).to_have_url(re.compile(r"/calls/\?range=24h&project="))
    page.get_by_label("Outcome").select_option("ok")
    expect(page).to_have_url(re.compile("status=ok"))
    page.get_by_label("Route").fill("chat")
    page.get_by_role("button", name="Filter").click()
    expect(page).to_have_url(re.compile(r"/calls/\?range=24h&project=[0-9a-f-]{36}&status=ok&route=chat$"))
    expect(page.locator(".chip").first).to_have_text("Answered")
    page.go_back()
    expect(page.get_by_label("Route")).to_have_value("")

    page.goto(address(stack, "/"))
    page.locator("summary", has_text="Custom").click()
    page.get_by_label("From", exact=True).fill("2026-03-01T10:00")
    page.get_by_label("To", exact=True).fill("2026-03-01T11:30")
    page.get_by_role("button", name="Show this time").click()
    # Ten o'clock in Kolkata is half past four in UTC.
    expect(page).to_have_url(address(stack, "/?from=2026-03-01T04%3A30Z&to=2026-03-01T06%3A00Z"))
    page.locator("summary", has_text="Custom").click()
    expect(page.get_by_label("From", exact=True)).to_have_value("2026-03-01T10:00")


def test_a_job_is_watched_to_its_end(page: Page, stack: Embedded) -> None:
    page.goto(address(stack, "/jobs/"))
    page.get_by_role("button", name="Recompute").click()
    expect(page.locator(".jobs li").first).to_contain_text("Done", timeout=60_000)
    expect(page.locator(".jobs li").first).to_contain_text(re.compile("differed"))


def test_the_keyboard_reaches_everything_and_the_scheme_stays(page: Page, stack: Embedded) -> None:
    page.goto(address(stack, "/"))
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="15 min")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    page.locator("summary", has_text="Account and appearance").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_class(re.compile("dark"))
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Dark")).to_be_hidden()
    for path in ("/calls/", "/admin/providers/route/"):
        page.goto(address(stack, path))
        expect(page.locator("html")).to_have_class(re.compile("dark"))


def test_nothing_spills_on_a_phone(page: Page, stack: Embedded) -> None:
    call = stack.chat()
    page.set_viewport_size({"width": 390, "height": 844})
    for path in (
        "/",
        f"/calls/{call}/",
        "/calls/",
        "/jobs/",
        "/admin/providers/route/",
        "/admin/access/servicekey/add/",
    ):
        page.goto(address(stack, path))
        assert page.evaluate("document.documentElement.scrollWidth") == 390, path
        opener = page.get_by_role("button", name="Navigation")
        opener.click()
        # It begins where one is; the first of its links may be above the fold by then.
        here = page.locator("#nav [aria-current]")
        expect((here if here.count() else page.locator("#nav a")).first).to_be_in_viewport()
        page.keyboard.press("Escape")
        expect(opener).to_be_focused()


def test_what_a_call_cost_is_seen_on_a_phone_without_scrolling(page: Page, stack: Embedded) -> None:
    call = stack.chat()
    page.set_viewport_size({"width": 390, "height": 844})
    # With a range of days the time is at its longest.
    page.goto(address(stack, "/calls/?range=30d"))
    row = page.locator(f"tr[data-key='{call}']")
    while not row.count():
        page.reload()
    cost = row.locator("td.n").last
    expect(cost).to_contain_text("$")
    box = cost.bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
    )
    expect(row.get_by_text("Answered").first).to_be_visible()


def test_the_admin_shows_times_in_the_viewers_zone(page: Page, stack: Embedded) -> None:
    found = stack.ask("/api/v1/credentials/", key="admin_key")["results"]
    [credential] = [one for one in found if (one["provider"], one["name"]) == ("simulator", "primary")]
    changed = datetime.fromisoformat(credential["state_changed_at"]).astimezone(ZoneInfo(ZONE))
    for path in (
        "/admin/access/servicekey/",
        f"/admin/providers/credential/{credential['id']}/change/",
        "/admin/audit/event/",
    ):
        page.goto(address(stack, path))
        times = page.locator("#content time")
        expect(times.first).to_be_visible()
        said = times.all_text_contents()
        assert said and not [one for one in said if "UTC" in one], path
        assert "UTC" in (times.first.get_attribute("title") or "")
    page.goto(address(stack, f"/admin/providers/credential/{credential['id']}/change/"))
    expect(page.locator("#content time", has_text=f"{changed:%H:%M}").first).to_contain_text("5:30")

    # What is typed is UTC, and the page says what that is here.
    page.goto(address(stack, "/admin/providers/price/add/"))
    page.locator("[name='effective_from_0']").fill("2030-12-01")
    page.locator("[name='effective_from_1']").fill("10:00")
    expect(page.locator(".zone-note")).to_contain_text("In UTC. For you:")
    expect(page.locator(".zone-note")).to_contain_text("15:30")


def test_a_page_left_open_after_signing_out_says_so(
    browser: Browser, stack: Embedded, session: BrowserContext
) -> None:
    context = browser.new_context(storage_state=session.storage_state())
    page = context.new_page()
    page.goto(address(stack, "/"))
    expect(page.locator("#live-text")).to_have_text("Live")
    context.clear_cookies()
    expect(page.locator("#live-text")).to_have_text("Signed out. Reload to sign in.")
    context.close()
