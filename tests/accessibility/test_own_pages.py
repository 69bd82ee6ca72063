"""axe-core finds nothing serious on any page of our own, in light and dark, wide and on a phone.

A new address fails ``test_every_page_is_looked_at`` until it stands in ``PAGES``, or in ``NO_PAGES`` with the reason.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Page

from llmops.access.account_views import PENDING
from llmops.access.models import Passkey
from llmops.audit.models import Verification
from llmops.base.clock import database_now
from tests.browser_in_process import HERE, InProcessBrowser, a_browser, axe_source
from tests.console import surface
from tests.console.test_every_change_leaves_one_event import stand_in

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]

#: Pages of our own, and the query that shows them full (the addresses' objects are those of ``world``).
PAGES: dict[str, tuple[str, ...]] = {
    "/": ("", "?range=30d"),
    "/account/": ("",),
    "/account/code/": ("",),
    "/account/second-factor/": ("",),
    "/admin/login/": ("",),
    "/alerts/": ("",),
    "/alerts/runbooks/": ("",),
    "/alerts/runbooks/{name}/": ("",),
    "/alerts/slos/": ("",),
    "/alerts/{incident_id}/": ("",),
    "/audit/": ("", "?who=nobody-is-called-so"),
    "/audit/verify/": ("",),
    "/audit/{sequence}/": ("",),
    "/calls/": ("?range=30d", "?route=none"),
    "/calls/compare/": ("", "?call={call_id}&call={call_id}"),
    "/calls/search/": ("",),
    "/calls/{call_id}/": ("",),
    "/datasets/": ("",),
    "/datasets/add/{call_id}/": ("",),
    "/datasets/{dataset_id}/": ("",),
    "/inbox/": ("",),
    "/inbox/stand-ins/": ("",),
    "/inbox/unknown/{action_id}/": ("",),
    "/inbox/{request_id}/": ("",),
    "/jobs/": ("",),
    "/playground/": ("",),
    "/playground/replay/{call_id}/": ("",),
    "/playground/replays/{replay_id}/": ("",),
    "/quality/": ("?range=24h", "?route=none"),
    "/quality/panel/": ("?panel=by-route&range=24h",),
    "/runs/": ("",),
    "/runs/{run_id}/": ("",),
    "/readiness/": ("",),
    "/reconciliation/": ("",),
    "/reliability/": ("?range=24h", "?route=none"),
    "/reliability/panel/": ("?panel=errors&range=24h", "?panel=error-table&range=24h"),
    "/routes/editor/": ("",),
    "/routes/editor/{slug}/": ("",),
    "/routes/whatif/": ("",),
    "/spend/": ("?range=30d",),
    "/spend/exports/": ("",),
    "/switches/": ("",),
    "/traffic/": ("?range=24h", "?route=none"),
    "/traffic/panel/": ("?panel=requests&range=24h",),
}
#: Addresses that show no page of their own, and what they do instead.
NO_PAGES = {
    **dict.fromkeys(
        ("/account/code/passkey/", "/account/code/passkey/options/", "/account/passkeys/", "/account/passkeys/options/",
         "/live/", "/alerts/live/", "/alerts/{incident_id}/live/", "/jobs/live/", "/audit/verify/live/", "/inbox/live/", "/inbox/{request_id}/live/", "/inbox/decide/", "/playground/cancel/", "/playground/choices/",
         "/playground/events/", "/playground/renew-key/", "/runs/renew-key/", "/playground/run/", "/playground/save-sample/",
         "/playground/save-version/", "/playground/share/", "/playground/version/", "/routes/check/",
         "/quality/live/", "/reliability/live/", "/traffic/live/", "/runs/live/", "/runs/{run_id}/live/", "/playground/replays/{replay_id}/live/"),
        "answers scripts of ours",
    ),
    **dict.fromkeys(
        ("/account/oidc/", "/account/oidc/callback/", "/account/passkeys/{passkey}/remove/",
         "/account/second-factor/codes/", "/account/second-factor/remove/", "/account/sessions/end-others/",
         "/account/sessions/{sign_in}/end/", "/views/", "/views/{view_id}/", "/views/{view_id}/remove/"),
        "takes a form, or leads elsewhere; the page it comes from is looked at",
    ),
    **dict.fromkeys(("/mcp", "/mcp/"), "answers clients of the Model Context Protocol"),
    **dict.fromkeys(("/alerts/{incident_id}/postmortem/", "/audit/export/", "/audit/verify_audit.py", "/routes/whatif/csv/"), "sends a file"),
}  # fmt: skip
#: Pages in the admin's frame whose content is ours.
IN_THE_ADMIN = {
    "prompts/prompt": ("change", "compare", "history"),
    "serving/revision": ("publish", "change"),
    "policies/policy": ("change", "try-it"),
}
RESTING = ("/live/",)


def own_addresses() -> set[str]:
    return {route for route in surface.other_pages() if not route.startswith(("/admin/", "/api/"))} | {
        "/admin/login/"
    }


def test_every_page_is_looked_at() -> None:
    assert set(PAGES) | set(NO_PAGES) == own_addresses()
    assert not set(PAGES) & set(NO_PAGES)


@pytest.fixture(scope="module")
def browser() -> Iterator[InProcessBrowser]:
    with a_browser() as found:
        yield found


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_source()


@pytest.fixture(scope="module")
def shown(world: SimpleNamespace) -> SimpleNamespace:
    """``world`` with what makes pages full."""
    Passkey.objects.create(user=world.root, name="My phone", credential_id="x", credential="00", synced=True)
    now = database_now()
    for state, problems in (("running", []), ("intact", []), ("broken", ["event 2 was altered"])):
        Verification.objects.create(
            state=state, total=9, head_hash="0" * 64, hash="0" * 64, sequence=4, problems=problems, started_by="root",
            started_at=now, heartbeat_at=now,
        )  # fmt: skip
    return world


def client_for(route: str, world: SimpleNamespace) -> Client:
    if route == "/admin/login/":
        return Client()
    if route == "/account/second-factor/":
        # Root has a passkey, and signed in without it.
        return world.clients["alice"]
    if route != "/account/code/":
        return world.clients["root"]
    client = Client()
    session = client.session
    session[PENDING] = {"user": str(world.root.pk), "backend": "", "at": time.time(), "next": "/"}
    session.save()
    return client


#: What ``axe.run`` is given: WCAG 2.2 at AA, and what axe itself holds for good practice.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
#: Style sheets need not be fetched and read once more: the one rule that looks at them is an experiment and none of these.
EVERYTHING = {"runOnly": {"type": "tag", "values": TAGS}, "preload": {"assets": ["media"]}}
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


def findings(page: Page, how: dict[str, Any], where: str = "document") -> list[str]:
    found = page.evaluate(
        "([how, where]) => axe.run(where === 'document' ? document : where, {...how, resultTypes: ['violations']})"
        ".then(r => r.violations)",
        [how, where],
    )
    return [
        f"{one['impact']} {one['id']}: {node['html'][:160]} {json.dumps((node['any'] or [{}])[0].get('data'))[:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:6]
    ]


def look(page: Page, address: str, axe: str, where: str = "document") -> dict[str, list[str]]:
    page.set_viewport_size(WIDE)
    answer = page.goto(HERE + address)
    assert answer is not None and answer.status == 200, address
    page.evaluate(axe)
    # Menus and folded parts are read as well.
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = {}
    for size, (viewport, first, other) in {
        "wide": (WIDE, "light", "dark"), "phone": (PHONE, "dark", "light"),
    }.items():  # fmt: skip
        page.set_viewport_size(viewport)
        for scheme, how in ((first, EVERYTHING), (other, COLOURS)):
            page.evaluate("dark => document.documentElement.classList.toggle('dark', dark)", scheme == "dark")
            if seen := findings(page, how, where):
                found[f"{address} {size} {scheme}"] = seen
    return found


def look_at_all(
    browser: InProcessBrowser, client: Client, addresses: list[str], axe: str, where: str = "document"
) -> dict[str, list[str]]:
    def job(page: Page) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for address in addresses:
            found |= look(page, address, axe, where)
        return found

    # Nothing fades or moves, so that colours are what they will be.
    return browser.visit(client, job, resting=RESTING, again=True, reduced_motion="reduce")


@pytest.mark.parametrize("route", sorted(PAGES))
def test_nothing_serious_is_found(
    shown: SimpleNamespace, browser: InProcessBrowser, axe: str, route: str
) -> None:
    addresses = [stand_in(route + query, shown) for query in PAGES[route]]
    found = look_at_all(browser, client_for(route, shown), addresses, axe)
    assert found == {}, json.dumps(found, indent=1, ensure_ascii=False)


@pytest.mark.parametrize("place", sorted(IN_THE_ADMIN))
def test_nor_in_the_admins_frame(
    shown: SimpleNamespace, browser: InProcessBrowser, axe: str, place: str
) -> None:
    known = surface.admin_pages()
    routes = [
        next(
            route
            for route in (f"/admin/{place}/{{object_id}}/{name}/", f"/admin/{place}/{name}/")
            if route in known
        )
        for name in IN_THE_ADMIN[place]
    ]
    addresses = [stand_in(route, shown) for route in routes]
    found = look_at_all(browser, shown.clients["root"], addresses, axe, "#content")
    assert found == {}, json.dumps(found, indent=1, ensure_ascii=False)
