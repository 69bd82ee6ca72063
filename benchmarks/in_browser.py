"""How long a page takes until somebody can use it, in Chromium, over the same calls. Part of ``dashboards``.

From the beginning of the navigation until the page is loaded, every chart is drawn, what keeps the page current is connected, and
the next frame was painted.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.failure import BenchmarkFailed
from benchmarks.report import Bar, Table
from tests.chromium import CHROMIUM, FLAGS

ROUNDS = 6
ASKED_MS = 1_500
#: ``BENCH_PICTURES`` is a directory for pictures of each page: light and dark, and on a phone.
PICTURES = os.environ.get("BENCH_PICTURES")
PAGES = {
    "Overview, 24 hours": "/?range=24h",
    "Overview, 30 days": "/?range=30d",
    "Reliability, 24 hours": "/reliability/?range=24h",
    "Reliability, 30 days": "/reliability/?range=30d",
    "Traffic, 24 hours": "/traffic/?range=24h",
    "Traffic, 30 days": "/traffic/?range=30d",
    "Quality, 24 hours": "/quality/?range=24h",
    "Quality, 30 days": "/quality/?range=30d",
    "Spend, 30 days by end user": "/spend/?range=30d&by=user",
    "Alerts": "/alerts/",
    "Alerts: an incident": "/alerts/{incident}/",
    "Alerts: SLOs": "/alerts/slos/",
    "Calls, newest": "/calls/?range=24h",
    "A call": "/calls/{call}/",
    "Readiness": "/readiness/",
}
_USABLE = """async () => {
  const live = document.getElementById("live");
  const there = () => document.readyState === "complete"
    && [...document.querySelectorAll(".chart")].every((one) => one.querySelector("canvas"))
    && (!live || live.dataset.state === "on");
  const frame = () => new Promise((next) => requestAnimationFrame(() => setTimeout(next)));
  while (!there()) await new Promise((next) => setTimeout(next, 5));
  await frame();
  return performance.now();
}"""
_LOOKS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("light", {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"}),
    ("dark", {"viewport": {"width": 1440, "height": 900}, "color_scheme": "dark"}),
    ("phone", {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"}),
)


def measure(port: int, signed_in: Mapping[str, str], *, rounds: int = ROUNDS) -> tuple[Bar, Table, str]:
    """The bar, what each page took, and a note on how that was measured."""
    from playwright.sync_api import sync_playwright

    base = f"http://127.0.0.1:{port}"
    name, _, value = signed_in["cookie"].partition("=")
    found: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for page_name, address in PAGES.items():
            # Each begins with nothing in its cache.
            context = browser.new_context(**_LOOKS[0][1])
            context.add_cookies([{"name": name, "value": value, "url": base}])
            page = context.new_page()
            problems: list[str] = []
            page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
            for _ in range(rounds):
                page.goto(base + address.format(**signed_in), wait_until="commit")
                found.setdefault(page_name, []).append(page.evaluate(_USABLE))
            if problems:
                raise BenchmarkFailed(f"{page_name}: {problems[0]}")
            context.close()
        if PICTURES:
            _take_pictures(browser, base, {"name": name, "value": value, "url": base}, signed_in)
        browser.close()
    slowest = {page_name: max(took) for page_name, took in found.items()}
    worst = max(slowest, key=lambda page_name: slowest[page_name])
    bar = Bar(
        "Pages in Chromium over these calls, until somebody can use them: the slowest",
        f"< {ASKED_MS / 1000:g} s",
        f"{slowest[worst] / 1000:.2f} s ({worst})",
        slowest[worst] < ASKED_MS,
    )
    table = Table(
        ["page in Chromium", "first, ms", "later, median, ms", "slowest, ms"],
        [
            [page_name, f"{took[0]:.0f}", f"{statistics.median(took[1:] or took):.0f}", f"{math.ceil(max(took))}"]
            for page_name, took in found.items()
        ],
    )  # fmt: skip
    note = (
        f"In Chromium: from the beginning of the navigation until the page is loaded, its charts are drawn, its live part is "
        f"connected and the next frame was painted; {rounds} times each, the first with an empty cache. The browser runs on the same "
        "cores as everything else, without a graphics card."
    )
    return bar, table, note


def _take_pictures(browser: Any, base: str, cookie: dict[str, str], signed_in: Mapping[str, str]) -> None:
    directory = Path(PICTURES or "")
    directory.mkdir(parents=True, exist_ok=True)
    for look, how in _LOOKS:
        context = browser.new_context(**how)
        context.add_cookies([cookie])
        page = context.new_page()
        for page_name, address in PAGES.items():
            page.goto(base + address.format(**signed_in), wait_until="commit")
            page.evaluate(_USABLE)
            file = page_name.lower().replace(",", "").replace(":", "").replace(" ", "-")
            page.screenshot(path=str(directory / f"{file}-{look}.png"), full_page=True)
        context.close()
