"""Cases of error handling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from django.utils import timezone

from llmops.providers.models import OpenBreaker
from llmops.readiness.finding import LACKING, MET, NOTHING
from tests.readiness.cases.case import case
from tests.readiness.world import ago, credential, day_of_calls, model, route


def of_routes(
    name: str, wrong: dict[str, Any], right: dict[str, Any], *, models: int = 1, more: int = 0
) -> None:
    """A case of one route that is changed."""

    @case(name)
    def arrange(settings: Any) -> Iterator[str]:
        yield NOTHING
        made = [model(f"m{n}") for n in range(models)]
        found = route("r", *made, **wrong)
        yield LACKING
        for field, value in right.items():
            setattr(found, field, value)
        found.save()
        for n in range(more):
            found.targets.create(model=model(f"more{n}", at=f"other{n}"), fallback=True, position=9)
        yield MET


of_routes("routes-fall-back", {}, {}, more=1)
of_routes("routes-at-two-providers", {}, {}, models=2, more=1)
of_routes("routes-retry", {"attempts": 1}, {"attempts": 2})
of_routes("attempts-reach-fallbacks", {"attempts": 2}, {"attempts": 3}, models=3)
of_routes("routes-end-in-time", {"total_timeout_ms": 600_000}, {"total_timeout_ms": 90_000})
of_routes("last-resort", {}, {"last_resort": "cached"})
of_routes("long-inputs", {}, {"context_strategy": "drop_oldest"})


@case("spare-credentials")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    route("r", model("a"))
    credential("first")
    credential("gone", state="revoked")
    yield LACKING
    credential("second")
    yield MET


@case("breakers-closed")
def _(settings: Any) -> Iterator[str]:
    yield MET
    OpenBreaker.objects.create(
        process=uuid4(),
        host="h",
        route="r",
        model="a",
        provider="up",
        since=ago(hours=2),
        until=timezone.now(),
    )
    yield LACKING
    OpenBreaker.objects.update(since=ago(minutes=5))
    yield MET


@case("outcomes-known")
def _(settings: Any) -> Iterator[str]:
    day_of_calls("ok")
    yield MET
    day_of_calls("unknown")
    yield LACKING
