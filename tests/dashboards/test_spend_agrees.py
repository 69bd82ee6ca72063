"""One amount, told six ways: budget windows, calls, rollups, the page, the API and the files agree to the last nanodollar."""

from __future__ import annotations

import csv
import io
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from llmops.budgets import services as budgets
from llmops.budgets.models import Window
from llmops.core.money import NANO
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import AttributionRollup, Call, Rollup
from tests.cast import COMMAND
from tests.dashboards.test_spend import nano
from tests.usage.journals import Scribe, origin

pytestmark = pytest.mark.django_db


def test_every_way_to_ask_gives_the_same_amount(
    stage: SimpleNamespace, alice: Client, tmp_path: Path
) -> None:
    """Calls that cost less, as much and more than they held, some that were refused, some whose process died."""
    scribe = Scribe.at(tmp_path)
    windows = {}
    for name, project in (("support", stage.support), ("search", stage.search)):
        budget = budgets.create_budget(
            COMMAND,
            slug=f"{name}-month",
            scope_kind="project",
            scope_value=name,
            project_id=project.pk,
            limit_nano=10**12,
        )
        window = budgets.open_window(budget_id=budget.pk, at=timezone.now()).window_id
        budgets.lease(
            window_id=window, journal_id=scribe.writer.journal_id, need=0, want=10**11, lease_seconds=3600
        )
        windows[name] = window
    pick = random.Random(5)
    for number in range(120):
        name = pick.choice(("support", "search"))
        held, spent = pick.randrange(1, 10**7), pick.randrange(0, 2 * 10**7)
        scribe.call(
            project=str(getattr(stage, name).pk), key=str(stage.keys[name].pk), windows={windows[name]: (held, spent)},
            cost=spent, feature=("triage", "", "draft")[number % 3], user=f"{number % 7:016x}", tags=[f"customer:{number % 5}"],
        )  # fmt: skip
    Ingester(tmp_path).run_once()
    # Half a dozen are under way when their process dies: charged at their hold.
    for _ in range(6):
        who = origin(
            project=str(stage.support.pk),
            key=str(stage.keys["support"].pk),
            user="f" * 16,
            tags=["customer:x"],
        )
        scribe.hold(who, windows={windows["support"]: pick.randrange(10**7)})
    scribe.writer.close()
    Ingester(tmp_path).run_once()
    assert Call.objects.filter(status=Call.UNKNOWN).count() == 6

    calls = sum(Call.objects.values_list("cost_nano", flat=True))
    told: dict[str, Any] = {
        "windows": sum(
            row.settled_nano + row.overrun_nano for row in Window.objects.filter(pk__in=windows.values())
        ),
        "rollups by minute": sum(Rollup.objects.filter(granularity=60).values_list("cost_nano", flat=True)),
        "rollups by day": sum(Rollup.objects.filter(granularity=86400).values_list("cost_nano", flat=True)),
    }
    for granularity in AttributionRollup.GRANULARITIES:
        named = AttributionRollup.objects.filter(granularity=granularity, kind="user")
        told[f"users, {granularity}"] = sum(named.filter(value="").values_list("cost_nano", flat=True))
        told[f"each user, {granularity}"] = sum(named.exclude(value="").values_list("cost_nano", flat=True))
    today = datetime.now(UTC).date()
    days = {"from": str(today - timedelta(days=1)), "to": str(today + timedelta(days=1))}
    for by in ("project", "feature", "user", "tag", "day"):
        told[f"page by {by}"] = nano(
            alice.get("/spend/", {**days, "by": by}).context["view"].total.spend.exact
        )
        answer = alice.get("/api/v1/spend/", {**days, "group_by": by})
        told[f"API by {by}"] = int(Decimal(answer.json()["total"]["cost_usd"]) * NANO)
    for what, column in (("spend", "cost_usd"), ("calls", "cost_usd"), ("focus", "BilledCost")):
        sent = alice.post("/spend/", {**days, "what": what, "by": "feature"})
        text = b"".join(sent.streaming_content).decode("utf-8-sig")  # type: ignore[attr-defined]
        told[what] = sum(int(Decimal(row[column]) * NANO) for row in csv.DictReader(io.StringIO(text)))
    assert {name: amount for name, amount in told.items() if amount != calls} == {}, calls
