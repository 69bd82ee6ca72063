"""What is kept for the tests of a file is made once, and each test begins with it as it was made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection

from llmops.access import services
from llmops.access.models import Project
from tests import kept as keeping
from tests.cast import COMMAND
from tests.kept import kept

pytestmark = pytest.mark.django_db
MADE: list[str] = []


@kept
def ground() -> SimpleNamespace:
    MADE.append("ground")
    return SimpleNamespace(project=services.create_project(COMMAND, slug="ground", name="Ground"))


@kept
def house(ground: SimpleNamespace) -> SimpleNamespace:
    MADE.append("house")
    ground.house = services.create_project(COMMAND, slug="house", name=f"On {ground.project.name}")
    return ground


@pytest.fixture
def made() -> int:
    return MADE.count("ground")


def change(project: Project) -> None:
    assert project.name == Project.objects.get(pk=project.pk).name == "Ground"
    project.name = "Swamp"
    project.save()
    services.create_project(COMMAND, slug="another")


@pytest.mark.parametrize("turn", range(3))
def test_each_begins_with_what_was_made_once(ground: SimpleNamespace, turn: int) -> None:
    assert MADE == ["ground"]
    assert [one.slug for one in Project.objects.all()] == ["ground"]
    change(ground.project)


@pytest.mark.parametrize("turn", range(2))
def test_what_takes_another_is_made_on_it(house: SimpleNamespace, ground: SimpleNamespace, turn: int) -> None:
    assert MADE == ["ground", "house"]
    assert house.house.name == "On Ground"
    assert not hasattr(ground, "house")
    change(house.project)


def test_what_is_not_asked_for_is_taken_back(ground: SimpleNamespace) -> None:
    assert not Project.objects.filter(slug="house").exists()
    change(ground.project)


def test_nothing_is_left_for_who_asks_for_none() -> None:
    assert not Project.objects.exists()


def test_it_is_made_again_for_who_asks_later(made: int, ground: SimpleNamespace) -> None:
    change(ground.project)


@pytest.mark.parametrize("turn", range(2))
def test_who_commits_has_it_made_for_itself(
    transactional_db: None, made: int, ground: SimpleNamespace, turn: int
) -> None:
    assert not connection.in_atomic_block
    assert MADE.count("ground") == made + 1
    change(ground.project)


def test_who_closes_the_connection_takes_it_along(ground: SimpleNamespace) -> None:
    connection.close()


def test_and_the_next_has_it_again(ground: SimpleNamespace) -> None:
    change(ground.project)


def test_it_takes_nothing_that_a_test_has_anew(request: pytest.FixtureRequest) -> None:
    def tower(tmp_path: Any) -> None:
        raise AssertionError

    def definition(**known: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(func=SimpleNamespace(**known), scope="function", argnames=())]

    defs = {"tower": definition(kept=tower), "tmp_path": definition()}
    item: Any = SimpleNamespace(
        fixturenames=["tower"],
        _fixtureinfo=SimpleNamespace(name2fixturedefs=defs),
        get_closest_marker=request.node.get_closest_marker,
    )
    with pytest.raises(pytest.UsageError, match="tower is kept, so it can not take tmp_path"):
        keeping._asked(item)
