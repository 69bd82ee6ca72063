"""How many examples the property tests try.

A usual run tries a part of them, the same ones each time: whether it passes says something of the code and nothing of
luck. ``--hypothesis-profile thorough`` tries all and makes them up anew, for a night or before a release; what it finds is
kept in ``.hypothesis/`` and tried first by the next thorough run. A usual run prints what it found as it found it; a
thorough one looks for the smallest such example first, which may keep a process busy for minutes.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, settings

#: What Hypothesis tries of a test that names no number; the numbers that tests name are for the thorough profile.
THOROUGH, USUAL = 100, 20
DEFAULT = "usual"

# A machine that is busy with something else is no reason to fail, so nothing has a deadline and examples may be long in coming.
_EVERYWHERE: dict[str, Any] = {
    "parent": settings.get_profile("default"),
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "print_blob": True,
}
#: What a usual run tries, and what the second half of it does.
_halved: list[tuple[settings, int]] = []
settings.register_profile("thorough", max_examples=THOROUGH, **_EVERYWHERE)
settings.register_profile(
    DEFAULT,
    max_examples=USUAL,
    derandomize=True,
    phases=[phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)],
    **_EVERYWHERE,
)


def tries(thorough: int, *, at_least: int = 1, **more: Any) -> settings:
    """In place of ``settings(max_examples=...)``: so many in the thorough profile, and their share in the usual one.

    The second half of a usual run, on PostgreSQL, tries half as many, of its own: what runs there as well is about
    the database, and the model that it is compared with has had its share on the first.
    """
    share = max(at_least, thorough * settings().max_examples // THOROUGH)
    found = settings(max_examples=share, deadline=None, **more)
    if settings().max_examples < THOROUGH:
        _halved.append((found, -(-share // 2)))
    return found


def share_out(backend: str) -> None:
    """In a process that is about to run tests on ``backend``, whatever it was when they were loaded."""
    if backend != "postgres":
        return
    for found, half in _halved:
        # Tests hold on to it, so that another in its place would not reach them.
        found._max_examples = half  # type: ignore[attr-defined]
    _halved.clear()
