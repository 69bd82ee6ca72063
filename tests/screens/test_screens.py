"""Pages look as they did: each beside the picture that is kept of it, light and dark, wide and on a phone.

``pytest tests/screens --remake`` keeps what is shown now instead (docs/how-to/compare-screens.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser_in_process import InProcessBrowser, a_browser
from tests.console.world import undone
from tests.screens import scenes
from tests.screens.camera import (
    REFERENCES,
    SCHEMES,
    SIZES,
    STILL,
    Camera,
    a_folder,
    compared,
    kept,
    settle,
    shot,
    taken,
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
def browser() -> Iterator[InProcessBrowser]:
    with a_browser(*STILL) as found:
        yield found


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
                picture, of = taken(page, scheme), f"{name}-{size}-{scheme}"
                reference = REFERENCES / f"{of}.png"
                if remake:
                    reference.write_bytes(kept(page, picture))
                    (folder() / f"{of}.actual.png").write_bytes(picture)
                elif said := compared(page, picture, reference.read_bytes(), folder, of).said:
                    found[of] = said
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


def test_what_a_person_would_see_is_told(camera: Camera, tmp_path: Path) -> None:
    def job(page: Page) -> dict[str, str]:
        found = {}
        for number, (what, done) in enumerate(BROKEN.items()):
            camera.open(page, "overview", "wide")
            if not number:
                whole = kept(page, taken(page, "dark"))
                found[""] = compared(page, shot(page), whole, lambda: tmp_path, "whole").said
            settle(page, "dark")
            page.evaluate(done)
            found[what] = compared(page, shot(page), whole, lambda: tmp_path, str(number)).said
        return found

    found = camera.look(job)
    assert found.pop("") == ""
    assert {what for what, said in found.items() if said} == set(BROKEN), found
    assert {one.name for one in tmp_path.iterdir()} == {
        f"{number}.{which}.png" for number in range(len(BROKEN)) for which in ("actual", "reference", "difference")
    }  # fmt: skip


def test_how_a_machine_smooths_letters_is_not(built: scenes.Scenes, tmp_path: Path) -> None:
    def job(page: Page) -> dict[str, str]:
        found = {}
        for name, size in (("overview", "wide"), ("calls", "phone")):
            camera.open(page, name, size)
            reference = (REFERENCES / f"{name}-{size}-light.png").read_bytes()
            found[name] = compared(page, taken(page, "light"), reference, lambda: tmp_path, name).said
        return found

    with a_browser(*STILL, "--disable-font-antialiasing", "--disable-skia-runtime-opts") as other:
        camera = Camera(other, built)
        assert camera.look(job) == {"overview": "", "calls": ""}
