"""How many examples the property tests try.

A usual run tries a part of them, other ones each time; ``--hypothesis-profile thorough`` tries all, for a night or
before a release. What a test then finds is kept in ``.hypothesis/`` and tried first from then on, by both.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings

#: What Hypothesis tries of a test that names no number; the numbers that tests name are for the thorough profile.
THOROUGH, USUAL = 100, 30
DEFAULT = "usual"

# A machine that is busy with something else is no reason to fail, so nothing has a deadline.
_EVERYWHERE: dict[str, Any] = {
    "parent": settings.get_profile("default"),
    "deadline": None,
    "print_blob": True,
}
settings.register_profile("thorough", max_examples=THOROUGH, **_EVERYWHERE)
settings.register_profile(DEFAULT, max_examples=USUAL, **_EVERYWHERE)


def tries(thorough: int, *, at_least: int = 1, **more: Any) -> settings:
    """In place of ``settings(max_examples=...)``: so many in the thorough profile, and their share in the usual one."""
    share = max(at_least, thorough * settings().max_examples // THOROUGH)
    return settings(max_examples=share, deadline=None, **more)
