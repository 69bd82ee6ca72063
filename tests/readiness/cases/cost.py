"""Cases of cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmops.budgets.models import Budget
from llmops.providers.models import Price
from llmops.readiness.finding import LACKING, MET, NOTHING
from llmops.usage.models import ProviderImport
from tests.readiness.cases.case import case, of_keys
from tests.readiness.world import ago, model, project, route


def budget(slug: str, scope: str = "project", **fields: Any) -> Budget:
    return Budget.objects.create(slug=slug, scope_kind=scope, limit_nano=10**9, **fields)


def price(of: Any, source: str = "", token_class: str = "input") -> None:
    Price.objects.create(
        model=of, token_class=token_class, nano_per_million=1, effective_from=ago(days=1), source=source,
        created_by="seed",
    )  # fmt: skip


@case("projects-bounded")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = project()
    budget("soft", project=one, scope_value=one.slug, hard=False)
    yield LACKING
    budget("hard", project=one, scope_value=one.slug, hard=True)
    yield MET


@case("organisation-bounded")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    budget("all", "organisation")
    yield MET


@case("budgets-warn")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = budget("all", "organisation", thresholds=[80])
    yield LACKING
    Budget.objects.filter(pk=one.pk).update(notify=["ops@example.com"])
    yield MET


@case("models-priced")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = model("a")
    route("r", one)
    yield LACKING
    price(one)
    yield MET


@case("prices-sourced")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one, other = model("a"), model("b")
    route("r", one)
    price(one, "the provider's page")
    price(other)
    yield MET
    route("s", other)
    yield LACKING


of_keys("keys-limited", rpm=60)


@case("output-capped")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    route("r", model("a"))
    yield MET
    route("s", model("b", default_max_output_tokens=1_000))
    yield LACKING


@case("spend-reconciled")
def _(settings: Any) -> Iterator[str]:
    yield LACKING
    for days, found in ((90, LACKING), (2, MET)):
        ProviderImport.objects.create(
            provider="up", source="csv", digest="d", has_tokens=True, has_cost=True, first_day=ago(days=9).date(),
            last_day=ago(days=8).date(), imported_at=ago(days=days), imported_by="x",
        )  # fmt: skip
        yield found


@case("projects-owned")
def _(settings: Any) -> Iterator[str]:
    yield NOTHING
    one = project(owner="ada@example.com")
    yield LACKING
    one.cost_center = "CC-1"
    one.save()
    yield MET
