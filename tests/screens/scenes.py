"""What the pictures show: two days of calls, a bad half hour, an incident, budgets and an inbox, at an instant that never moves.

Everything that a page could write down is the same each time: moments, figures, and identifiers as well.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import time_machine
from django.test import Client, override_settings

from llmops.alerts import services as alerts
from llmops.alerts.models import Incident, Rule, Slo
from llmops.approvals.models import Request
from llmops.base.requests import user_actor
from llmops.budgets.models import ThresholdCrossing
from llmops.core import ids
from llmops.core.actors import Actor
from llmops.dashboards.boards import live, making
from llmops.providers.models import Credential, OpenBreaker
from llmops.usage.models import Call
from tests.cast import COMMAND
from tests.dashboards import seed
from tests.tools.making import FUNCTIONS, a_tool, proposed

#: A Thursday. The viewer's zone has neither whole hours nor daylight time.
NOW = datetime(2026, 3, 5, 14, 37, 22, tzinfo=UTC)
ZONE = "Asia/Kabul"
_PRIMARY = "gpt-4o-2024-08-06"


class AtNow(Client):
    """A client for whom it is always ``NOW``."""

    def generic(self, *args: Any, **more: Any) -> Any:
        with time_machine.travel(NOW, tick=False):
            return super().generic(*args, **more)


@dataclass(frozen=True)
class Scenes:
    client: AtNow
    #: Name of a picture -> the address that it is taken of.
    addresses: dict[str, str]


@contextmanager
def same_ids() -> Iterator[None]:
    """Identifiers that are made within are the same each time."""
    ids._pool, ids._used = hashlib.shake_256(b"screens").digest(1 << 20), 0
    try:
        yield
    finally:
        ids._pool, ids._used = b"", 0


def build() -> Scenes:
    making.forget()
    live.forget()
    with (
        same_ids(),
        override_settings(TOOL_FUNCTIONS=FUNCTIONS),
        time_machine.travel(NOW, tick=False) as clock,
    ):
        cast = seed.fill()
        for key, made in enumerate(cast.keys.values()):
            made.rpm, made.tpm = (60, 90_000) if key == 0 else (None, None)
            made.scopes = ["inference", "actions"]
            made.save()
        Credential.objects.update(last_used_at=NOW - timedelta(seconds=40))
        twice = _calls(cast)
        seed.budget("support-month", "60", "31.40", "1.20", value="support", project=cast.support)
        seed.budget("search-day", "5", "4.71", value="search", project=cast.search, period="day")
        _used_up(cast)
        seed.budget("everyone", "900", "288.25", scope="organisation", hard=False)
        incident = _incident(cast, clock)
        clock.move_to(NOW)
        request = _inbox(cast)
        client = AtNow()
        client.force_login(cast.alice, backend="django.contrib.auth.backends.ModelBackend")
    return Scenes(
        client,
        {
            "overview": "/?range=24h",
            "reliability": "/reliability/?range=24h",
            "quality": "/quality/?range=24h",
            "calls": "/calls/?range=24h",
            "call": f"/calls/{twice.pk}/",
            "incident": f"/alerts/{incident.pk}/",
            "slos": "/alerts/slos/",
            "inbox": "/inbox/",
            "action": f"/inbox/{request.pk}/",
            "budgets": "/admin/budgets/budget/",
        },
    )


def _used_up(cast: SimpleNamespace) -> None:
    window = seed.budget(
        "trial-day", "0.5", "0.4993", "0.0002", value="support", project=cast.support, period="day"
    )
    ThresholdCrossing.objects.create(
        window=window, percent=100, settled_nano=window.settled_nano, limit_nano=window.limit_nano, refusing=True,
        crossed_at=NOW - timedelta(minutes=51),
    )  # fmt: skip


def _calls(cast: SimpleNamespace) -> Call:
    """A day, and the same day a week ago; the newest is one that failed over twice."""
    chance = random.Random(11)
    calls = [
        *seed.traffic(cast, until=NOW - timedelta(days=7), hours=24, per_hour=14, seed=5),
        *seed.traffic(cast, until=NOW - timedelta(minutes=2), hours=24, per_hour=18),
        *(
            seed.failed(cast, NOW - timedelta(minutes=chance.uniform(1, 32)), "upstream_error", 502)
            for _ in range(160)
        ),
        *(
            seed.make_call(
                cast, NOW - timedelta(minutes=chance.uniform(1, 12)), model="gpt-4o-mini-2024-07-18",
                upstream_model="gpt-4o-mini-2024-07-18", attempt_count=2, fallback_count=1,
            )
            for _ in range(60)
        ),
    ]  # fmt: skip
    twice = seed.failed_over_twice(cast, NOW - timedelta(seconds=75), feature="helpdesk")
    calls.append(twice)
    for number, call in enumerate(calls):
        call.request_id = f"req_{hashlib.sha256(str(number).encode()).hexdigest()[:20]}"
        if call.finish_reason == "stop" and number % 17 == 0:
            call.finish_reason, call.signals = "length", seed.BIT["truncated"]
    seed.store(calls)
    return twice


def _incident(cast: SimpleNamespace, clock: Any) -> Incident:
    alerts.ensure_shipped()
    kept = ("calls-fail", "fallbacks-carry-the-load", "breaker-open")
    Rule.objects.exclude(slug__in=kept).update(archived_at=NOW - timedelta(days=3))
    alerts.create_channel(COMMAND, slug="on-call", kind="mail", addresses=["on-call@example.com"])
    for slug, given in {
        "chat-answers": {"objective": Slo.AVAILABILITY, "target_ppm": 995_000, "route": "chat"},
        "summaries-in-time": {
            "objective": Slo.LATENCY, "target_ppm": 900_000, "threshold": 30_000_000, "route": "summarise"
        },
    }.items():  # fmt: skip
        alerts.create_slo(COMMAND, slug=slug, **given)
    OpenBreaker.objects.create(
        process=ids.uuid7(), host="gateway-1", route="chat", model=_PRIMARY, provider="openai",
        since=NOW - timedelta(minutes=12), until=NOW + timedelta(hours=1), why="20 of 30 failed",
    )  # fmt: skip
    alice = user_actor(cast.alice)
    for minutes in (30, 28, 11, 0):
        at = NOW - timedelta(minutes=minutes)
        clock.move_to(at)
        alerts.evaluate(at, claim=False)
        alerts.deliver(at)
        if minutes == 28:
            incident = Incident.objects.get(rule__slug="calls-fail")
            alerts.acknowledge(alice, incident=incident, note="Degrading the route", now=at)
    alerts.note(alice, incident=incident, text="The provider's status page says so too.", now=NOW)
    return incident


def _inbox(cast: SimpleNamespace) -> Request:
    a_tool(cast.support)
    agent = Actor(kind="service_key", identifier=str(cast.keys["support"].pk), name="helpdesk (lk_supp)")
    proposed(
        agent,
        cast.support,
        40,
        arguments={"amount": 140, "customer": "Grace"},
        run="run-7",
        reason="It came late.",
    )
    found = proposed(
        agent, cast.support, 1200, run="run-7", behalf_of="bob",
        reason="The order arrived broken, twice.\nThe customer asks for the money back.",
    ).request  # fmt: skip
    assert found is not None
    return found
