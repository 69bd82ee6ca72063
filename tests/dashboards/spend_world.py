"""Three months of calls with reasons to move, as data planes would have written them: booked by the real ingester.

Nothing is random from run to run. In the last whole month the feature ``triage`` has longer prompts, ``draft`` has moved to the
dearer model, ``translate`` is new, and ``search`` is called less.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from llmops.core.ids import uuid7
from llmops.providers.models import Model, Route, RouteTarget
from llmops.usage.ingest.loop import Ingester
from llmops.usage.records import Ended, Origin, Outcome, Tokens
from tests.dashboards import seed
from tests.usage.journals import Scribe

LARGE, SMALL = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18"
CUSTOMERS = ["acme", "globex", "initech", "umbrella", "hooli", "stark"]


class Kind(NamedTuple):
    project: str
    feature: str
    route: str
    per_day: float
    input: int
    output: int
    large: float


def kinds(months_ago: int) -> list[Kind]:
    later = months_ago <= 1
    return [
        Kind("support", "triage", "chat", 9, 2600 if later else 1400, 260, 0.5),
        Kind("support", "draft", "chat", 9, 900, 480, 0.9 if later else 0.2),
        Kind("search", "search", "embed", 8 if later else 14, 600, 0, 0),
        Kind("search", "rank", "summarise", 6, 1200, 90, 0),
        *([Kind("support", "translate", "summarise", 4, 700, 700, 0)] if later else []),
    ]


def months(stage: SimpleNamespace, directory: Path, *, now: datetime, scale: float = 1.0) -> list[Ended]:
    """Books the calls; what was written. With scale 1 about 30 calls a day."""
    route = Route.objects.get(slug="chat")
    if not RouteTarget.objects.filter(route=route, model__slug=SMALL, fallback=False).exists():
        RouteTarget.objects.create(
            route=route, model=Model.objects.get(slug=SMALL), fallback=False, position=9
        )
    scribe = Scribe.at(directory)
    pick = random.Random(11)
    this_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    day = (this_month - timedelta(days=40)).replace(day=1)
    while day < now:
        ago = (this_month.year - day.year) * 12 + this_month.month - day.month
        for kind in kinds(ago):
            for at in _moments(pick, day, kind.per_day * scale * (0.4 if day.weekday() >= 5 else 1)):
                if at < now:
                    _call(scribe, stage, pick, kind, at)
        day += timedelta(days=1)
    Ingester(directory).run_once()
    return scribe.written


def _moments(pick: random.Random, day: datetime, wanted: float) -> Iterator[datetime]:
    for _ in range(int(wanted) + (pick.random() < wanted % 1)):
        yield day + timedelta(seconds=pick.randrange(7 * 3600, 19 * 3600), microseconds=pick.randrange(10**6))


def _call(scribe: Scribe, stage: SimpleNamespace, pick: random.Random, kind: Kind, at: datetime) -> None:
    project, key = getattr(stage, kind.project), stage.keys[kind.project]
    customer = pick.choice(CUSTOMERS)
    origin = Origin(
        call=str(uuid7()),
        started=int(at.timestamp() * 1e9),
        project=str(project.pk),
        key=str(key.pk),
        endpoint="embeddings" if kind.route == "embed" else "chat.completions",
        revision=7,
        route=kind.route,
        feature=kind.feature if pick.random() < 0.97 else "",
        user=f"{pick.randrange(40):016x}" if kind.project == "support" else "",
        tags=[f"customer:{customer}"] + (["vip"] if customer in ("acme", "stark") else []),
    )
    chance = pick.random()
    if chance < 0.04:
        result = Outcome(status="refused", http=429, code="rate_limit_exceeded", total_us=300)
        scribe.end(origin, attempt=0, result=result)
        return
    # Evenly spread, so that few calls have the share that many would have.
    model = LARGE if len(scribe.written) * 0.618_034 % 1 < kind.large else SMALL
    if kind.route == "embed":
        model = "text-embedding-3-small"
    tokens = Tokens(
        input=int(kind.input * pick.uniform(0.7, 1.4)), output=int(kind.output * pick.uniform(0.5, 1.6))
    )
    tokens.cached = tokens.input // 3 if kind.feature == "triage" else 0
    prices = seed.PRICES[model]
    cost = -(
        -(
            (tokens.input - tokens.cached) * prices["input"]
            + tokens.cached * prices.get("cached_input", 0)
            + tokens.output * prices.get("output", 0)
        )
        // 10**6
    )
    if chance < 0.10:
        result = Outcome(status="ok", http=200, model=model, cache="hit", saved=cost, total_us=200)
        scribe.end(origin, attempt=0, result=result)
        return
    scribe.hold(origin)
    result = Outcome(
        status="ok", http=200, model=model, model_version=1, provider="openai", tokens=tokens,
        total_us=900_000, upstream_us=890_000, finish="stop",
    )  # fmt: skip
    scribe.end(origin, cost=cost, result=result)


NOW = datetime(2026, 11, 21, 14, 37, 22, tzinfo=UTC)
