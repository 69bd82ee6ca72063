"""Each check, on what it finds lacking and on what it finds met."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from llmops.dashboards.settings_told import settings_told
from llmops.readiness.addresses import address
from llmops.readiness.checks import CHECKS, every_check
from llmops.readiness.finding import CATEGORIES
from tests.readiness.cases.case import CASES

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]

for category in CATEGORIES:
    import_module(f"tests.readiness.cases.{category}")


@pytest.mark.parametrize("name", CHECKS)
def test_a_check(settings: Any, name: str) -> None:
    [check] = [one for one in every_check() if one.id == name]
    for number, expected in enumerate(CASES[name](settings)):
        found = check.look()
        assert found.state == expected, (number, found)
        assert found.evidence.endswith("."), found


def test_the_registry() -> None:
    checks, known = every_check(), {name for row in settings_told() for name in row.names}
    assert [one.id for one in checks] == list(CHECKS)
    assert set(CASES) == set(CHECKS)
    assert len({one.title for one in checks}) == len(checks) >= 40
    for one in checks:
        assert CHECKS[one.id].endswith(one.id.replace("-", "_"))
        assert one.category in CATEGORIES
        assert one.fix.endswith(".") and not one.title.endswith(".")
        assert one.link and address(one).startswith("/"), one.id
        if one.link.isupper():
            assert one.link in one.fix and one.link in known, one.id
    assert min(sum(one.category == name for one in checks) for name in CATEGORIES) >= 8
