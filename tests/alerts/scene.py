"""A scene for alerts: calls that happen at times of the test's own, rollups as the ingester leaves them, and a clock that is told
what time it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine

from llmops.access.models import ServiceKey
from llmops.alerts import services
from llmops.alerts.models import Channel, Entry, Incident, Notification, Rule
from tests.cast import COMMAND
from tests.dashboards.seed import make_call, store

#: A Thursday; minutes by hand, so that nothing depends on when the suite runs.
NOON = datetime(2026, 3, 5, 12, 0, 0, tzinfo=UTC)


@dataclass
class Scene:
    """``now`` is what time it is; ``pass_`` lets time go by."""

    cast: SimpleNamespace
    #: Other rooms and pages ask the clock themselves.
    clock: time_machine.Traveller
    now: datetime = NOON

    def pass_(self, **span: float) -> Scene:
        self._at(self.now + timedelta(**span))
        return self

    def _at(self, now: datetime) -> None:
        self.now = now
        self.clock.move_to(now)

    def calls(self, count: int, *, ago_s: float = 0.0, **given: Any) -> None:
        """So many calls that ended just now, each of route ``chat`` unless told otherwise."""
        store(make_call(self.cast, self.now - timedelta(seconds=ago_s + 1), **given) for _ in range(count))

    def failing(self, count: int, **given: Any) -> None:
        self.calls(count, **{"status": "error", "error_code": "upstream_error", "http_status": 502, **given})

    def tick(self, seconds: float = 0) -> None:
        """Look at the rules and send what is due, now and as time goes by: every ten seconds as beat does, or every minute of
        a longer time."""
        until, step = self.now + timedelta(seconds=seconds), 10 if seconds <= 60 else 60
        while True:
            services.evaluate(self.now, claim=False)
            services.deliver(self.now)
            if self.now + timedelta(seconds=step) > until:
                self._at(until)
                return
            self._at(self.now + timedelta(seconds=step))

    def only(self, *slugs: str) -> None:
        """Of the shipped rules only these are there."""
        services.ensure_shipped()
        Rule.objects.exclude(slug__in=slugs).update(archived_at=self.now)

    def incident(self, slug: str = "calls-fail") -> Incident:
        return Incident.objects.get(rule__slug=slug)

    def incident_of(self, subject: str) -> Incident:
        return Incident.objects.get(subject=subject)

    def timeline(self, incident: Incident) -> list[str]:
        return list(Entry.objects.filter(incident=incident).values_list("kind", flat=True))

    def channel(self, slug: str = "on-call", **given: Any) -> Channel:
        made, _ = services.create_channel(
            COMMAND, slug=slug, kind="mail", **{"addresses": [f"{slug}@example.com"], **given}
        )
        return made

    def outbox(self) -> list[tuple[str, str, str]]:
        rows = Notification.objects.order_by("created_at", "id")
        return list(rows.values_list("channel__slug", "event", "state"))


@pytest.fixture
def scene(cast: SimpleNamespace, db: None) -> Iterator[Scene]:
    cast.keys = {
        project.slug: ServiceKey.objects.create(
            project=project,
            name=project.slug,
            prefix=f"lk_{project.slug[:4]}",
            secret_hash=project.pk.hex * 2,
        )
        for project in (cast.support, cast.search)
    }
    with time_machine.travel(NOON, tick=False) as clock:
        yield Scene(cast, clock)
