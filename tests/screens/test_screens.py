"""Pages look as they did: each beside the picture that is kept of it, light and dark, wide and on a phone.

``pytest tests/screens --remake`` keeps what is shown now instead (docs/how-to/compare-screens.md).
"""

# ruff: noqa: F811 - fixtures that are imported are arguments by the same name
from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser_in_process import InProcessBrowser, browser  # noqa: F401
from tests.console.world import undone
from tests.screens import scenes
from tests.screens.camera import (
    REFERENCES,
    SCHEMES,
    SIZES,
    Camera,
    a_folder,
    compared,
    kept,
    pictures,
    settle,
    shot,
)

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
NAMES = (
    "overview", "reliability", "quality", "calls", "call", "incident", "slos", "inbox", "action", "budgets",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[scenes.Scenes]:
    with django_db_blocker.unblock(), undone():
        yield scenes.build()


@pytest.fixture(scope="module")
def camera(built: scenes.Scenes, browser: InProcessBrowser) -> Camera:
    return Camera(browser, built)


@pytest.fixture(scope="module")
def folder() -> Callable[[], Path]:
    return cache(a_folder)


def test_every_page_that_is_kept_is_compared(built: scenes.Scenes) -> None:
    assert set(built.addresses) == set(NAMES)
    pictures = {f"{name}-{size}-{scheme}.png" for name in NAMES for size in SIZES for scheme in SCHEMES}
    assert {one.name for one in REFERENCES.iterdir()} == pictures


@pytest.mark.parametrize("name", NAMES)
def test_a_page_looks_as_it_did(
    camera: Camera, folder: Callable[[], Path], name: str, pytestconfig: pytest.Config
) -> None:
    remake = pytestconfig.getoption("--remake", default=False)

    def job(page: Page) -> dict[str, str]:
        found = {}
        for size in SIZES:
            camera.open(page, name, size)
            for scheme in SCHEMES:
                settle(page, scheme)
                of = f"{name}-{size}-{scheme}"
                reference = REFERENCES / f"{of}.png"
                if remake:
                    reference.write_bytes(kept(page))
                    (folder() / f"{of}.actual.png").write_bytes(shot(page))
                elif (seen := compared(page, reference.read_bytes())).said:
                    found[of] = seen.said
                    pictures(page, seen, reference.read_bytes(), folder(), of)
        return found

    found = camera.look(job)
    if remake:
        print(f"What was kept is in {folder()}, to be looked at")
    elif found:
        told = "\n".join(f"{of}: {said}" for of, said in found.items())
        pytest.fail(f"{told}\nPictures of it are in {folder()}", pytrace=False)


#: What is done to a page, one after the other, and what somebody would say of it.
BROKEN = {
    "a chart is gone": "document.querySelector('.chart').replaceChildren()",
    "a panel is gone": "document.querySelector('.grid .panel').remove()",
    "the style sheet is gone": "document.querySelector('link[href*=pages]').remove()",
    "everything is 40 px lower": "document.getElementById('content').style.paddingTop = '64px'",
    "everything is 24 px to the right": "document.getElementById('content').style.transform = 'translateX(24px)'",
    "text is larger": "document.body.style.fontSize = '16px'",
    "one table's text is larger": "document.getElementById('part-routes').style.zoom = '1.25'",
    "one text lies over another": "document.getElementById('part-verdict').style.marginBottom = '-60px'",
    "the navigation is gone": "document.getElementById('nav').style.visibility = 'hidden'",
    "the wrong scheme": "document.documentElement.classList.remove('dark')",
    "a panel stays light": "document.querySelector('.grid .panel').style.background = 'white'",
    "a word is cut": "document.querySelector('.verdict strong').style.width = '40px'",
}


#: After these charts would stay as wide as they became, so the page is opened anew; what the others did is undone.
FOR_GOOD = ("the style sheet is gone", "everything is 24 px to the right")
#: Around what is done to a page: what changes is noted, so that ``undo`` makes it what it was.
_NOTING = """() => {
  const noting = new MutationObserver(() => {});
  noting.observe(document, { subtree: true, childList: true, attributes: true, attributeOldValue: true });
  %s;
  const done = noting.takeRecords().reverse();
  noting.disconnect();
  window.undo = () => {
    for (const { type, target, attributeName, oldValue, addedNodes, removedNodes, nextSibling } of done)
      if (type === "childList") {
        addedNodes.forEach(node => node.remove());
        removedNodes.forEach(node => target.insertBefore(node, nextSibling));
      } else if (oldValue === null) target.removeAttribute(attributeName);
      else target.setAttribute(attributeName, oldValue);
  };
}"""


def test_what_a_person_would_see_is_told(camera: Camera, tmp_path: Path) -> None:
    def opened(page: Page) -> None:
        camera.open(page, "overview", "wide")
        settle(page, "dark")

    def job(page: Page) -> dict[str, str]:
        opened(page)
        whole = kept(page)
        found = {"whole": compared(page, whole).said}
        for what, done in BROKEN.items():
            page.evaluate(_NOTING % done)
            seen = compared(page, whole)
            found[what] = seen.said
            if what == "a chart is gone":
                pictures(page, seen, whole, tmp_path, "gone")
            if what in FOR_GOOD:
                opened(page)
            else:
                page.evaluate("undo()")
                settle(page, "dark")
        # What is told of one is not what was left of those before it.
        found["as it was"] = compared(page, whole).said
        return found

    found = camera.look(job)
    assert (found.pop("whole"), found.pop("as it was")) == ("", "")
    assert {what for what, said in found.items() if said} == set(BROKEN), found
    assert {one.name for one in tmp_path.iterdir()} == {
        f"gone.{which}.png" for which in ("actual", "reference", "difference")
    }


def test_how_a_machine_smooths_letters_is_not(camera: Camera) -> None:
    def job(page: Page) -> dict[str, str]:
        found = {}
        for name, size in (("overview", "wide"), ("calls", "phone")):
            camera.open(page, name, size)
            settle(page, "light")
            found[name] = compared(page, (REFERENCES / f"{name}-{size}-light.png").read_bytes()).said
        return found

    with camera.browser.another("--disable-font-antialiasing", "--disable-skia-runtime-opts"):
        assert camera.look(job) == {"overview": "", "calls": ""}
