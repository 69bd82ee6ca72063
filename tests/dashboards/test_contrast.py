"""Text on its ground meets WCAG AA (4.5:1), the edges of controls 3:1, in both schemes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOKENS = Path(__file__).parents[2] / "static" / "console" / "tokens.css"
TEXTS = [
    *((text, ground) for text in ("ink", "ink-2", "muted", "accent") for ground in ("paper", "surface", "sunken", "raised")),
    ("ink", "accent-soft"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    *((tone, f"{tone}-soft") for tone in ("ok", "warn", "bad", "odd")),
    *((tone, "surface") for tone in ("ok", "warn", "bad", "odd")),
    ("ink-2", "ok-soft"),
    ("ink-2", "warn-soft"),
    ("ink-2", "bad-soft"),
    *((text, ground) for text in ("nav-ink", "nav-muted", "nav-active", "nav-accent") for ground in ("nav", "nav-2")),
]  # fmt: skip
SHAPES = [
    ("control-line", "surface"),
    ("accent", "surface"),
    ("bad", "surface"),
    ("gold", "surface"),
    ("odd", "surface"),
    ("focus", "paper"),
    ("nav-accent", "nav"),
]


def tokens(scheme: str) -> dict[str, str]:
    light, dark = TOKENS.read_text().split(":root.dark")
    found = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", light))
    return found | dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", dark)) if scheme == "dark" else found


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_shapes_can_be_told_from_their_ground(scheme: str) -> None:
    colours = tokens(scheme)
    for needed, pairs in ((4.5, TEXTS), (3.0, SHAPES)):
        weak = {
            f"{text} on {ground}": round(ratio, 2)
            for text, ground in pairs
            if (ratio := contrast(colours[text], colours[ground])) < needed
        }
        assert weak == {}, f"{scheme}: below {needed}:1"


def test_the_measure_itself() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
