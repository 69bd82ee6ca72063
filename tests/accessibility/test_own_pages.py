"""axe-core finds nothing serious on any page of our own, in light and dark, wide and on a phone.

A new address fails ``test_every_page_is_looked_at`` until it stands in ``PAGES``, or in ``NO_PAGES`` with the reason.
"""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from playwright.sync_api import Page, ViewportSize

from llmops.access.account_views import PENDING
from llmops.access.models import Passkey
from llmops.audit.models import Verification
from llmops.base.clock import database_now
from tests.browser_in_process import AXE, HERE, NOTHING, InProcessBrowser, browser  # noqa: F401
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
    "/readiness/settings/": ("",),
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
    "budgets/budget": ("change",),
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
def looker(browser: InProcessBrowser) -> Looker:
    return Looker(browser)


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
#: Style sheets need not be fetched and read once more: the one rule that looks at them is an experiment and none of these.
EVERYTHING_ELSE = {
    "runOnly": {"type": "tag", "values": TAGS}, "rules": {"color-contrast": {"enabled": False}},
    "preload": {"assets": ["media"]}, "resultTypes": ["violations"],
}  # fmt: skip
SIZES: dict[str, ViewportSize] = {
    "wide": {"width": 1440, "height": 900},
    "phone": {"width": 390, "height": 844},
}
#: At the size at which a page is opened, and at the other.
SCHEMES = (("light", "dark"), ("dark", "light"))
#: Contrast is most of what axe computes. What a text's contrast follows from is its look: its colours, its size and weight, and
#: all that is behind it, up to the page. axe looks at what has a look that it has not found good before, on this page or another.
CONTRAST = """
(() => {
  const style = new Map(), behind = new Map();
  function of(element) {
    if (!style.has(element)) style.set(element, getComputedStyle(element));
    return style.get(element);
  }
  function ground(element) {
    if (!element) return "";
    if (!behind.has(element)) {
      const s = of(element), own = [s.backgroundColor, s.backgroundImage, s.opacity, s.filter, s.mixBlendMode, s.clipPath];
      // What is taken out of the flow may lie over anything, so its look is that of its place alone.
      if (s.position === "absolute" || s.position === "fixed" || s.float !== "none" || s.transform !== "none")
        own.push(element.tagName, element.id, element.className);
      const below = ground(element.parentElement), look = own.join();
      behind.set(element, look === "rgba(0, 0, 0, 0),none,1,none,normal,none" ? below : short(below + ">" + look));
    }
    return behind.get(element);
  }
  function look(element) {
    const s = of(element);
    return short([s.color, s.webkitTextFillColor, s.fontSize, s.fontWeight, s.textShadow, ground(element)].join());
  }
  // Two numbers of 32 bits (FNV-1a, forwards and with another beginning): enough to tell some hundred looks apart.
  function short(text) {
    let one = 0x811c9dc5, other = 0x01000193;
    for (let at = 0; at < text.length; at++) {
      one = Math.imul(one ^ text.charCodeAt(at), 0x01000193);
      other = Math.imul(other ^ text.charCodeAt(at), 0x5bd1e995);
    }
    return (one >>> 0).toString(36) + "-" + (other >>> 0).toString(36);
  }
  // Neither a box to tick nor dots and dashes alone are text to axe, nor what is there for screen readers, in a pixel.
  function says(element) {
    if (element.matches("option, script, style, title, template, input:is([type=checkbox], [type=radio])")) return false;
    if (element.offsetWidth <= 1 && element.offsetHeight <= 1 && of(element).overflow !== "visible") return false;
    return element.matches("input, select, textarea, button") ||
      [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && /[^\\p{P}\\s]/u.test(node.data));
  }
  // Of an element that axe has nothing to say of, as of what is hidden or switched off.
  function itself(element) {
    return short([look(element), element.cloneNode(false).outerHTML, element.textContent].join());
  }
  return async ([where, good, mute]) => {
    const known = new Set(good), silent = new Set(mute), asked = new Map(), found = { bad: [], good: [], mute: [] };
    for (const element of document.querySelectorAll(where))
      if (says(element) && element.checkVisibility({ visibilityProperty: true })) {
        const one = look(element);
        if (known.has(one) || silent.has(itself(element))) continue;
        if (!asked.has(one)) asked.set(one, []);
        asked.get(one).push(element);
      }
    // One element of each look, and where axe says nothing of that, the others.
    for (let number = 1; asked.size; number = 1000) {
      const looks = new Map();
      for (const [one, elements] of asked) for (const element of elements.splice(0, number)) looks.set(element, one);
      const said = await axe.run({ include: [...looks.keys()] }, {
        runOnly: { type: "rule", values: ["color-contrast"] }, resultTypes: ["violations", "passes"], elementRef: true,
        preload: false,
      });
      for (const { nodes } of said.passes)
        for (const { element } of nodes)
          if (looks.has(element) && asked.delete(looks.get(element))) found.good.push(looks.get(element));
      for (const { nodes } of said.violations)
        for (const node of nodes) {
          const one = looks.get(node.element);
          asked.delete(one);
          found.good = found.good.filter(other => other !== one);
          delete node.element;
        }
      found.bad.push(...said.violations);
      for (const [element, one] of looks) if (asked.has(one)) found.mute.push(itself(element));
      for (const [one, elements] of asked) if (!elements.length) asked.delete(one);
    }
    return found;
  };
})()
"""


#: Both of it at one size: everything but contrast once, and contrast in each scheme. A navigation that was looked at on another page
#: is left out; which of its links is the page's own makes it no other.
LOOK = """async ({ where, how, schemes, frames, good, mute }) => {
  const nav = document.getElementById("nav")?.cloneNode(true);
  nav?.querySelectorAll("[aria-current]").forEach(one => one.removeAttribute("aria-current"));
  nav?.querySelectorAll("[name=csrfmiddlewaretoken]").forEach(one => one.remove());
  const frame = nav?.outerHTML ?? "";
  // What lies behind a text has another colour in another scheme, so nothing is known of it from the one before.
  const contrast = given => (CONTRAST)(given);
  // Of what a rule finds axe says that it is as bad as the rule has it; `findings` are the serious and critical ones.
  const rules = { ...how.rules };
  for (const { id, impact } of axe._audit.rules) if (impact === "minor" || impact === "moderate") rules[id] = { enabled: false };
  const found = { frame, bad: {}, good: [], mute: [] };
  for (const scheme of schemes) {
    document.documentElement.classList.toggle("dark", scheme === "dark");
    const said = scheme === schemes[0]
      ? await axe.run({ include: [where || "html"], exclude: frames.includes(frame) && !where ? ["#nav"] : [] }, { ...how, rules })
      : { violations: [] };
    const seen = await contrast([where + " *", good.concat(found.good), mute.concat(found.mute)]);
    found.bad[scheme] = said.violations.concat(seen.bad);
    found.good.push(...seen.good);
    found.mute.push(...seen.mute);
  }
  return found;
}""".replace("CONTRAST", CONTRAST.strip())
#: Menus and folded parts are read as well. Tables behind charts are of one making, and are fetched: one of them.
UNFOLD = """async () => {
  const behind = document.querySelectorAll("details[data-behind]"), first = behind[0]?.querySelector(".scroll");
  for (const one of document.querySelectorAll("details")) one.open = one === behind[0] || !one.matches("[data-behind]");
  while (first && !first.textContent.trim()) await new Promise(requestAnimationFrame);
}"""


def findings(found: list[dict[str, Any]]) -> list[str]:
    return [
        f"{one['impact']} {one['id']}: {node['html'][:160]} {json.dumps((node['any'] or [{}])[0].get('data'))[:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:6]
    ]


@dataclass
class Looker:
    """Looks at one page after the other, and remembers which looks of texts were good, and what axe was silent about."""

    browser: InProcessBrowser
    good: set[str] = field(default_factory=set)
    mute: set[str] = field(default_factory=set)
    #: Navigations that were looked at, by the size at which they were.
    frames: dict[str, set[str]] = field(default_factory=lambda: {size: set() for size in SIZES})
    #: The window has that of the page before, so each page is opened at one size and becomes the other.
    sizes: tuple[str, ...] = tuple(SIZES)

    def look_at_all(self, client: Client, addresses: list[str], where: str = "") -> dict[str, list[str]]:
        def job(page: Page) -> dict[str, list[str]]:
            found: dict[str, list[str]] = {}
            for address in addresses:
                found |= self._look(page, address, where)
            return found

        return self.browser.visit(client, job, resting=RESTING, again=True)

    def _look(self, page: Page, address: str, where: str) -> dict[str, list[str]]:
        found = {}
        for number, size in enumerate(self.sizes):
            page.set_viewport_size(SIZES[size])
            if not number:
                answer = page.goto(HERE + address)
                assert answer is not None and answer.status == 200, address
                page.add_script_tag(url=HERE + AXE)
                page.evaluate(UNFOLD)
            given = {
                "where": where,
                "frames": list(self.frames[size]),
                "good": list(self.good),
                "mute": list(self.mute),
            }
            said = page.evaluate(LOOK, {**given, "how": EVERYTHING_ELSE, "schemes": SCHEMES[number]})
            self.frames[size].add(said["frame"])
            self.good.update(said["good"])
            self.mute.update(said["mute"])
            for scheme, wrong in said["bad"].items():
                if seen := findings(wrong):
                    found[f"{address} {size} {scheme}"] = seen
        self.sizes = self.sizes[::-1]
        return found


def test_a_look_that_was_good_excuses_no_other(looker: Looker) -> None:
    """The same colour on a darker ground or seen through, and another colour, are looked at; a violation is never remembered."""
    dark = '<p style="color: #333">Read me</p>'

    def job(page: Page) -> None:
        page.goto(HERE + NOTHING)
        page.add_script_tag(url=HERE + AXE)

        def said(html: str, good: list[str]) -> dict[str, Any]:
            page.evaluate("html => { document.body.innerHTML = html; }", html)
            found: dict[str, Any] = page.evaluate(CONTRAST, ["*", good, []])
            return found

        first = said(dark, [])
        assert (first["bad"], len(first["good"])) == ([], 1)
        assert said(dark, first["good"]) == {"bad": [], "good": [], "mute": []}
        for wrong in (
            f'<div style="background: #222">{dark}</div>',
            f'<div style="opacity: 0.4">{dark}</div>',
            '<p style="color: #bbb">Read me</p>',
            f'{dark}<button disabled style="color: #ccc">No</button><p style="color: #ccc">Read me</p>',
        ):
            for _ in range(2):
                found = said(wrong, first["good"])
                assert [one["id"] for one in found["bad"]] == ["color-contrast"], wrong
                assert found["good"] == []

    looker.browser.visit(Client(), job, again=True)


def test_a_ground_that_is_good_in_one_scheme_excuses_none_in_the_other(looker: Looker) -> None:
    """Two texts whose grounds are the same in light and not in dark; what is no matter of colours is told once."""
    html = """<style>.dark { background: #111; color: #eee } .dark .card { background: #ccc }</style>
      <p>Read me</p><div class="card"><p>Read me as well</p></div><img src="data:,">"""

    def job(page: Page) -> dict[str, list[str]]:
        page.goto(HERE + NOTHING)
        page.add_script_tag(url=HERE + AXE)
        page.evaluate("html => { document.body.innerHTML = html; }", html)
        given: dict[str, Any] = {"where": "", "frames": [], "good": [], "mute": []}
        said = page.evaluate(LOOK, {**given, "how": EVERYTHING_ELSE, "schemes": SCHEMES[0]})
        return {scheme: [one["id"] for one in bad if findings([one])] for scheme, bad in said["bad"].items()}

    found = looker.browser.visit(Client(), job, again=True)
    assert found == {"light": ["html-has-lang", "image-alt"], "dark": ["color-contrast"]}


@pytest.mark.parametrize("route", sorted(PAGES))
def test_nothing_serious_is_found(shown: SimpleNamespace, looker: Looker, route: str) -> None:
    addresses = [stand_in(route + query, shown) for query in PAGES[route]]
    found = looker.look_at_all(client_for(route, shown), addresses)
    assert found == {}, json.dumps(found, indent=1, ensure_ascii=False)


@pytest.mark.parametrize("place", sorted(IN_THE_ADMIN))
def test_nor_in_the_admins_frame(shown: SimpleNamespace, looker: Looker, place: str) -> None:
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
    found = looker.look_at_all(shown.clients["root"], addresses, "#content")
    assert found == {}, json.dumps(found, indent=1, ensure_ascii=False)
