"""The on-call dashboards as a person meets them: filters, drill-down, tables, views, full screen, and a page that follows."""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Page, expect

from llmops.dashboards.boards import live, making
from tests.browser_in_process import HERE, InProcessBrowser, browser  # noqa: F401
from tests.dashboards import seed

pytestmark = [pytest.mark.any_engine, pytest.mark.timeout(300)]
expect.set_options(timeout=30_000)


class Storing(Client):
    """A client whose page can have something happen meanwhile, in the thread of the test."""

    def __init__(self, happens: Any) -> None:
        super().__init__()
        self.happens = happens

    def generic(self, method: str, path: str, *args: Any, **more: Any) -> Any:
        if path == "/meanwhile/":
            self.happens()
            making.forget()
            live.forget()
        return super().generic(method, path, *args, **more)


def test_somebody_on_call_finds_the_calls(stage: SimpleNamespace, browser: InProcessBrowser) -> None:
    now = datetime.now(UTC)
    given: dict[str, Any] = {"endpoint": "chat.completions"}
    (failed,) = seed.store([seed.failed(stage, now, route="summarise", **given)])
    seed.store([seed.make_call(stage, now - timedelta(minutes=number), **given) for number in range(4)])
    making.forget()
    live.forget()

    def store() -> None:
        seed.store([seed.make_call(stage, datetime.now(UTC), feature="brand-new", **given)])

    client = Storing(store)
    client.force_login(stage.alice, backend="django.contrib.auth.backends.ModelBackend")

    def job(page: Page) -> None:
        page.goto(f"{HERE}/reliability/?range=24h")
        expect(page.locator(".chart canvas")).to_have_count(6)
        expect(page.locator("[data-zone]").first).to_have_text("America/New_York")
        # A point of a chart leads to the calls behind it: the last bucket's one error.
        over = page.locator("#chart-errors .u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        assert box is not None
        buckets = page.evaluate("JSON.parse(document.getElementById('board-data').textContent).times.length")
        x = box["width"] * (buckets - 1 + 0.6) / (buckets - 1 + 1.2)
        over.hover(position={"x": x, "y": box["height"] - 4})
        over.click(position={"x": x, "y": box["height"] - 4})
        page.wait_for_url(re.compile(r"/calls/\?.*error=upstream_timeout"))
        expect(page.locator(f'a[href="/calls/{failed.pk}/"]').first).to_be_visible()
        # So does a cell of a table.
        page.goto(f"{HERE}/reliability/?range=24h")
        page.locator("#part-error-table").get_by_role("link", name="upstream_timeout").click()
        page.wait_for_url(re.compile(r"/calls/\?.*route=summarise"))
        # A table stands behind each chart, in the viewer's zone.
        page.goto(f"{HERE}/reliability/?range=24h")
        behind = page.locator("#panel-rates details")
        behind.locator("summary").click()
        expect(behind.locator("tbody tr").first).to_be_visible()
        assert "UTC" not in behind.locator("tbody th").first.inner_text()
        # Full screen, and back.
        button = page.get_by_role("button", name="Full screen Latency")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "false")
        # Escape leads back too, also where a browser does not see to it by itself, and where it gives no full screen.
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Escape")
        expect(button).to_have_attribute("aria-pressed", "false")
        assert page.evaluate("document.fullscreenElement") is None
        page.evaluate("() => { Element.prototype.requestFullscreen = () => Promise.reject(); }")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Escape")
        expect(button).to_have_attribute("aria-pressed", "false")
        # Filters go into the address.
        page.get_by_text("Filters", exact=True).click()
        page.get_by_label("Route", exact=True).fill("chat")
        page.get_by_role("button", name="Show these").click()
        page.wait_for_url(re.compile(r"route=chat"))
        expect(page.locator("#part-error-table")).to_contain_text("No call failed")
        # What is shown gets a name, and an address that can be handed on.
        page.get_by_text("Views", exact=True).click()
        page.get_by_label("Save this as").fill("Chat at night")
        page.get_by_role("button", name="Save view").click()
        expect(page.get_by_text("Saved as Chat at night")).to_be_visible()
        page.goto(f"{HERE}/traffic/?range=24h")
        page.get_by_text(re.compile(r"^Views")).click()
        page.get_by_role("link", name="Chat at night").click()
        page.wait_for_url(re.compile(r"/reliability/\?.*route=chat"))
        # A page that is open follows by itself.
        page.goto(f"{HERE}/traffic/?range=24h")
        expect(page.locator("#part-by-route")).to_contain_text("chat")
        expect(page.locator("#part-by-feature")).not_to_contain_text("brand-new")
        page.evaluate("fetch('/meanwhile/')")
        expect(page.locator("#part-by-feature")).to_contain_text("brand-new")
        expect(page.locator("#live-text")).to_have_text("Live")
        # With nothing to show, it says what to do.
        page.goto(f"{HERE}/quality/?range=15m&route=nowhere")
        expect(page.locator("#part-verdict")).to_contain_text("Choose a longer time or clear a filter")

    browser.visit(client, job, timezone_id="America/New_York", viewport={"width": 1440, "height": 1000})
