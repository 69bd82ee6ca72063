"""Pictures of pages, and what is kept of them.

A page is kept as the mean colour of each of its cells of 16 x 16 pixels. That forgets how letters are smoothed, which is a machine's
own, and remembers where everything is and which colour it has.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.browser_in_process import HERE, InProcessBrowser
from tests.screens.scenes import NOW, ZONE, Scenes

REFERENCES = Path(__file__).with_name("references")
#: Pixels of a cell; how far its mean colour may be off, of 255; and the colours that are kept, as multiples.
CELL, TOLERANCE, STEP = 16, 12, 4
#: So large a part of a page's cells may be off, and so many cells of any window of 6 x 6 of them.
SHARE, WINDOW, THICK = 0.004, 6, 9
#: Cells by which a page may be taller or shorter.
TALLER = 1
HOW = {"cell": CELL, "tolerance": TOLERANCE, "step": STEP, "window": WINDOW}
SIZES = {"wide": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
SCHEMES = ("light", "dark")
RESTING = ("/live/",)
#: A page in the one font that the console brings, whichever a machine has beside it, with letters where they are by themselves and
#: not where a machine's settings move them: what Inter lacks (thin spaces, ticks) is written otherwise. Streams are never heard of.
_DRESS = r"""
window.EventSource = class { addEventListener() {} close() {} };
window.inInter = text => text.replace(/\u2009/g, "\u00a0").replace(/[^\0-\u00ff\u2013\u2014\u2026]/g, "x");
for (const name of ["fillText", "measureText"]) {
  const drawn = CanvasRenderingContext2D.prototype[name];
  CanvasRenderingContext2D.prototype[name] = function (text, ...more) {
    this.textRendering = "geometricPrecision";
    return drawn.call(this, inInter(String(text)), ...more);
  };
}
const dress = new CSSStyleSheet();
dress.replaceSync(`* { text-rendering: geometricPrecision !important; }
  :root { --mono: Inter !important; --font-mono: Inter !important; --text: Inter !important; }`);
document.adoptedStyleSheets = [dress];
"""
#: The page has the scheme, and all that is drawn was drawn with its font.
_READY = """async dark => {
  while (document.documentElement.classList.contains("dark") !== dark) await new Promise(requestAnimationFrame);
  await Promise.all([400, 500, 600, 700].map(weight => document.fonts.load(weight + " 12px Inter")));
  await document.fonts.ready;
  document.dispatchEvent(new CustomEvent("console:scheme"));
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const said = inInter(texts.currentNode.data);
    if (said !== texts.currentNode.data) texts.currentNode.data = said;
  }
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
_COMPARING = Path(__file__).with_name("comparing.js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Found:
    """How a picture differs from what was kept; ``said`` is empty when nobody would see it. ``most``: how far the worst cell is off,
    of 255."""

    said: str
    share: float
    thick: int
    most: float
    #: As ``Comparing.compare`` has it.
    measured: dict[str, Any]


@dataclass
class Camera:
    browser: InProcessBrowser
    scenes: Scenes
    _dressed: set[int] = field(default_factory=set)

    def look(self, job: Callable[[Page], Any]) -> Any:
        """Runs ``job`` with a page that knows neither today nor this machine's fonts."""

        def dressed(page: Page) -> Any:
            if id(page) not in self._dressed:
                self._dressed.add(id(page))
                page.add_init_script(_DRESS)
                page.clock.set_fixed_time(NOW)
            return job(page)

        return self.browser.visit(
            self.scenes.client, dressed, resting=RESTING, again=True,
            timezone_id=ZONE, device_scale_factor=1,
        )  # fmt: skip

    def open(self, page: Page, name: str, size: str) -> None:
        page.set_viewport_size(SIZES[size])  # type: ignore[arg-type]
        page.emulate_media(color_scheme="light")
        answer = page.goto(HERE + self.scenes.addresses[name])
        assert answer is not None and answer.status == 200, name


def settle(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.evaluate(_READY, scheme == "dark")


def shot(page: Page) -> bytes:
    """For somebody to look at."""
    return page.screenshot(full_page=True, animations="disabled", caret="hide", scale="css")


def quick(page: Page) -> str:
    """The same in base64, to be compared: as it comes from the browser, which takes no pains to make it small."""
    width, height = page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    session = page.context.new_cdp_session(page)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    taken = session.send(
        "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True, "optimizeForSpeed": True}
    )
    session.detach()
    return str(taken["data"])


def kept(page: Page) -> bytes:
    """What there is to keep of the page as it is shown."""
    page.evaluate(_COMPARING)
    return base64.b64decode(page.evaluate("([png, how]) => Comparing.kept(png, how)", [quick(page), HOW]))


def a_folder() -> Path:
    """For pictures to look at. It stays, however many runs there are after this one."""
    return Path(tempfile.mkdtemp(prefix="screens-"))


def compared(page: Page, reference: bytes) -> Found:
    """Compares the page as it is shown with what was kept."""
    page.evaluate(_COMPARING)
    given = [quick(page), _text(reference), HOW]
    found = page.evaluate("([png, kept, how]) => Comparing.compare(png, kept, how)", given)
    said = []
    if abs(found["taller"]) > TALLER or found["wider"]:
        said.append(
            f"the page is {found['taller'] * CELL:+} px as high and {found['wider'] * CELL:+} px as wide as it was"
        )
    if found["share"] > SHARE:
        said.append(f"{found['share']:.2%} of it differ, of which {SHARE:.2%} may")
    if found["thick"] > THICK:
        x, y = found["at"]
        side = WINDOW * CELL
        said.append(
            f"{found['thick']} of {WINDOW**2} cells differ in the {side} x {side} px at {x}, {y} ({found['name']}),"
            f" of which {THICK} may"
        )
    return Found("; ".join(said), found["share"], found["thick"], found["most"], found)


def pictures(page: Page, found: Found, reference: bytes, folder: Path, name: str) -> None:
    """Puts into ``folder`` what there is to look at of a page that differs, while it is shown."""
    picture = shot(page)
    given = [_text(picture), _text(reference), found.measured, HOW]
    shown = page.evaluate("([png, kept, found, how]) => Comparing.pictures(png, kept, found, how)", given)
    (folder / f"{name}.actual.png").write_bytes(picture)
    for what, text in shown.items():
        (folder / f"{name}.{what}.png").write_bytes(base64.b64decode(text))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
