"""Finance in a real browser: which feature grew most last month, why, which calls are behind it, and the month as a file."""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

import csv
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.test import Client
from playwright.sync_api import Page, expect

from llmops.core.money import NANO
from llmops.usage.models import Call
from tests.browser_in_process import HERE, InProcessBrowser, browser  # noqa: F401
from tests.dashboards import seed, spend_world
from tests.e2e.test_browser import WATCH_POLICY, WIDE, ZONE

# What each engine answers is asked in tests/dashboards/test_spend.py and test_spend_agrees.py; here, where a page leads.
pytestmark = pytest.mark.any_engine


@pytest.fixture
def month(db: None, tmp_path: Path) -> SimpleNamespace:
    """Three months of calls; what last month's cost, by feature, as the page does not read it."""
    now = datetime.now(UTC)
    stage = seed.fill(password=seed.PASSWORD)
    spend_world.months(stage, tmp_path, now=now, scale=0.3)
    end = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = (end - timedelta(days=1)).replace(day=1)
    calls = list(Call.objects.filter(started_at__gte=start, started_at__lt=end))
    return SimpleNamespace(
        start=start, end=end, calls=calls, drafts=[call for call in calls if call.feature == "draft"]
    )


def test_finance_finds_what_grew_and_takes_the_month_away(
    month: SimpleNamespace,
    browser: InProcessBrowser,
    tmp_path: Path,
) -> None:
    def job(page: Page) -> None:
        page.context.add_init_script(WATCH_POLICY)
        page.goto(f"{HERE}/spend/")
        page.get_by_label("User name").fill("alice")
        page.get_by_label("Password").fill(seed.PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page).to_have_url(re.compile(r"/spend/$"))
        finds_what_grew(month, page, tmp_path)

    browser.visit(Client(), job, resting=("/live/",), timezone_id=ZONE, viewport=WIDE)


def finds_what_grew(month: SimpleNamespace, page: Page, tmp_path: Path) -> None:
    # What grew most, and why, without a shell and without adding anything up.
    page.get_by_role("navigation", name="Time range").get_by_role("link", name="Last month").click()
    page.get_by_role("navigation", name="Group by").get_by_role("link", name="Feature").click()
    expect(page.locator("#headline")).to_contain_text(f"spent in {month.start:%B %Y}")
    expect(page.locator("#because")).to_contain_text("Grew most: feature draft")
    expect(page.locator("#because")).to_contain_text("Mostly dearer models: gpt-4o-2024-08-06 from")
    moved = page.get_by_role("region", name="What moved").get_by_role("row")
    expect(moved.nth(1)).to_contain_text("draft")

    # The charts are drawn, named for who cannot see them, and have a table behind them.
    expect(page.locator("#chart-days canvas")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile(r"^Bar chart of spend per day in"))).to_be_visible()
    page.get_by_text("Show as a table").focus()
    page.keyboard.press("Enter")
    days = page.get_by_role("region", name="Spend per day, as a table").get_by_role("row")
    expect(days).to_have_count((month.end - month.start).days + 1)

    # From the figure to the calls behind it.
    row = page.get_by_role("region", name="Spend by feature").get_by_role("row", name=re.compile("^draft"))
    row.get_by_role("link").nth(1).click()
    expect(page.get_by_role("heading", name="Calls", level=1)).to_be_visible()
    expect(page.get_by_label("Feature")).to_have_value("draft")
    shown = min(50, len(month.drafts))
    expect(page.locator("tbody tr[data-key]")).to_have_count(shown)
    page.go_back()

    # The month, as a file: every call once, to the last nanodollar.
    page.locator("summary", has_text="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Calls, a line each").click()
    path = tmp_path / "month.csv"
    download.value.save_as(path)
    assert download.value.suggested_filename.startswith(f"calls_{month.start:%Y-%m-%d}_to_")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["call_id"] for row in rows} == {str(call.pk) for call in month.calls}
    assert sum(round(float(row["cost_usd"]) * NANO) for row in rows) == sum(
        call.cost_nano for call in month.calls
    )

    # And again after each month, by e-mail.
    page.get_by_role("link", name="Send it by e-mail after each period").click()
    page.get_by_label("Name").fill("Month end")
    page.get_by_label("What").select_option("focus")
    page.get_by_label("Recipients, with commas").fill("finance@example.com")
    page.get_by_role("button", name="Send it from now on").click()
    expect(
        page.get_by_role("region", name="Schedules").get_by_role("row", name=re.compile("Month end"))
    ).to_contain_text("FOCUS 1.2")
    assert page.evaluate("window.refusedByPolicy") == []
