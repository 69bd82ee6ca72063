"""What a case is: it arranges, and yields what is to be found then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.utils import timezone

from llmops.readiness.finding import LACKING, MET, NOTHING
from tests.readiness.world import key, project

Case = Callable[[Any], Iterator[str]]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def keep(found: Case) -> Case:
        CASES[name] = found
        return found

    return keep


def of_setting(check: str, setting: str, wrong: Any, right: Any) -> None:
    @case(check)
    def arrange(settings: Any) -> Iterator[str]:
        setattr(settings, setting, wrong)
        yield LACKING
        setattr(settings, setting, right)
        yield MET


def of_keys(name: str, **right: Any) -> None:
    @case(name)
    def arrange(settings: Any) -> Iterator[str]:
        yield NOTHING
        one = key(project())
        key(one.project, "of the console", held_by_console=True)
        key(one.project, "gone", revoked_at=timezone.now())
        yield LACKING
        for field, value in right.items():
            setattr(one, field, value)
        one.save()
        yield MET
