"""A day on call through a real gateway: a provider degrades, the breaker opens, the fallback carries, the error budget burns, until
everything is resolved and can be handed over.

Calls are those of a real data plane over a provider that fails as the test says. Its journal is booked by the real ingester, rules are
looked at and messages sent by the real services, to a mail server's outbox and to services that listen. Only the clock is the test's.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from asgiref.sync import sync_to_async
from django.core import mail

from llmops.access.models import ServiceKey
from llmops.alerts import services
from llmops.alerts.behind import behind
from llmops.alerts.models import Entry, Incident, Notification, Slo
from llmops.alerts.postmortem import written
from llmops.gateway.attempts import resilience
from llmops.providers.models import HealthEvent, OpenBreaker
from llmops.tools.executors.webhook import signature
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call
from tests.alerts.scene import Scene
from tests.cast import COMMAND, acting, make_cast
from tests.gateway.conftest import rig, upstream  # noqa: F401
from tests.gateway.rig import Asked, Reply, Rig, a_key, a_model, a_route, answers, fails
from tests.tools.services import Service, says, service

pytestmark = pytest.mark.django_db(transaction=True)

MIDNIGHT = datetime(2026, 3, 5, tzinfo=UTC)
PRIMARY, BACKUP = "primary", "backup"
WELL, DOWN = (0, 1), (1, 1)
SECRETS = {name: f"llmops_{name}_" + name[0] * 40 for name in ("support", "search")}
RULES = ("calls-fail", "fallbacks-carry-the-load", "breaker-open", "error-budget-burns")


class Provider:
    """``ill``: model -> (how many attempts in a row fail, of how many)."""

    def __init__(self) -> None:
        self.ill = {PRIMARY: WELL, BACKUP: WELL}
        self.asked: Counter[str] = Counter()

    async def __call__(self, asked: Asked, reply: Reply) -> None:
        model = asked.json["model"].removeprefix("sim-")
        self.asked[model] += 1
        bad, of = self.ill[model]
        await (fails(500) if self.asked[model] % of < bad else answers())(asked, reply)


class Day:
    """The data plane, who books and who looks, and the clock."""

    def __init__(self, plane: Rig, journal: Path, clock: Any, move: Callable[[float], None]) -> None:
        self.rig, self.provider = plane, Provider()
        self._ingester = Ingester(journal)
        self._clock, self._move = clock, move
        self.now = MIDNIGHT
        #: status -> calls that were answered with it
        self.answered: Counter[int] = Counter()
        plane.upstream.does(self.provider)

    def at(self, hour: int, minute: int = 0, second: int = 0) -> datetime:
        return MIDNIGHT + timedelta(hours=hour, minutes=minute, seconds=second)

    def to(self, moment: datetime) -> None:
        assert moment >= self.now, "time goes one way"
        self._move((moment - self.now).total_seconds())
        self._clock.move_to(moment)
        self.now = moment

    async def calls(self, each: int) -> Counter[int]:
        """So many calls of each project, one after the other: how they were answered."""
        found: Counter[int] = Counter()
        for _ in range(each):
            for secret in SECRETS.values():
                found[(await self.rig.chat(model="chat", how={"key": secret})).status] += 1
        self.answered += found
        return found

    async def look(self) -> None:
        await sync_to_async(self._look)()

    def _look(self) -> None:
        self._ingester.run_once()
        services.evaluate(self.now, claim=False)
        services.deliver(self.now)

    async def until(self, moment: datetime, *, every: float, calls: int) -> Counter[int]:
        """As time goes by, every so many minutes: calls, and a look ten seconds later."""
        found: Counter[int] = Counter()
        while self.now + timedelta(minutes=every) <= moment:
            start = self.now
            found += await self.calls(calls)
            self.to(start + timedelta(seconds=10))
            await self.look()
            self.to(start + timedelta(minutes=every))
        self.to(moment)
        return found


@pytest.fixture
async def day(
    rig: Rig,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
) -> AsyncIterator[Day]:
    settings.PUBLIC_URL = "https://console.example.com"
    monkeypatch.setattr(resilience, "BACKOFF_BASE_S", 0.0001)
    # What data planes wait for (a breaker's cool-down) goes by the monotonic clock, which moves on with the day.
    real, ahead = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + ahead[0])

    def move(seconds: float) -> None:
        ahead[0] += seconds

    with time_machine.travel(MIDNIGHT, tick=False) as clock:
        yield Day(rig, tmp_path / "journal", clock, move)


def configured(day: Day, hook: Service, chat: Service) -> tuple[SimpleNamespace, str]:
    """The cast, and what signs the pager's messages."""
    cast = make_cast()
    keys = {}
    for project in (cast.support, cast.search):
        key = ServiceKey.objects.create(
            project=project,
            name=project.slug,
            prefix=f"lk_{project.slug[:4]}",
            secret_hash=project.pk.hex * 2,
        )
        keys[SECRETS[project.slug]] = a_key(
            project.slug, id=str(key.pk), project=project.slug, project_id=str(project.pk)
        )
    day.rig.configure(
        keys=keys,
        models=[a_model(PRIMARY), a_model(BACKUP)],
        routes=[
            a_route(
                "chat", PRIMARY, fallbacks=(BACKUP,), attempts=2, breaker_min_calls=8, breaker_cooldown_s=30,
                breaker_window_s=60, breaker_failure_percent=50,
            )
        ],
    )  # fmt: skip
    scene = Scene(cast, None)  # type: ignore[arg-type]
    scene.now = MIDNIGHT
    scene.only(*RULES)
    scene.channel("on-call")
    scene.channel("manager", severities=["critical"], after_minutes=15)
    local: dict[str, Any] = {"allow_private_network": True}
    _, secret = services.create_channel(
        COMMAND, slug="pager", kind="webhook", url=f"http://127.0.0.1:{hook.port}/", severities=["critical"], **local
    )  # fmt: skip
    services.create_channel(
        COMMAND, slug="chat", kind="slack", url=f"http://127.0.0.1:{chat.port}/", severities=["warning"], **local
    )  # fmt: skip
    services.create_slo(
        COMMAND, slug="chat-answers", objective=Slo.AVAILABILITY, target_ppm=995_000, route="chat"
    )
    return cast, secret


def incidents() -> dict[str, Incident]:
    """By their rule."""
    return {one.rule.slug: one for one in Incident.objects.select_related("rule")}


def sent() -> list[tuple[str, str, str, str]]:
    """When whom was told of what, as the outbox has it."""
    rows = Notification.objects.filter(state=Notification.SENT).order_by(
        "sent_at", "channel__slug", "event", "incident__rule__slug"
    )
    return [
        (f"{at:%H:%M:%S}", channel, event, rule)
        for at, channel, event, rule in rows.values_list("sent_at", "channel__slug", "event", "incident__rule__slug")
    ]  # fmt: skip


async def test_a_day_from_the_first_error_to_what_is_handed_over(day: Day) -> None:
    with service(says("200 OK")) as hook, service(says("200 OK")) as chat:
        cast, secret = await sync_to_async(configured)(day, hook, chat)
        await whole_day(day, cast)
        await sync_to_async(handed_over)(day, hook, chat, secret)


async def whole_day(day: Day, cast: SimpleNamespace) -> None:
    # The night: all is well.
    assert await day.until(day.at(9), every=60, calls=5) == {200: 90}
    assert not await sync_to_async(incidents)()

    # 09:00. The first model fails always, and the one that steps in again and again.
    day.provider.ill = {PRIMARY: DOWN, BACKUP: (2, 6)}
    for second in (10, 20, 30):
        seen = await day.calls(5)
        assert seen[502] and seen[200], seen
        day.to(day.at(9, 0, second))
        await day.look()
    opened = await sync_to_async(incidents)()
    assert {"calls-fail", "error-budget-burns", "breaker-open", "fallbacks-carry-the-load"} == set(opened)
    await sync_to_async(services.acknowledge)(
        acting(cast.alice), incident=opened["calls-fail"], note="Their status page says degraded", now=day.now
    )
    day.to(day.at(9, 1))
    await day.until(day.at(9, 15), every=2, calls=5)

    # 09:15. The fallback is well and carries everything; the breaker keeps calls away from the first model.
    day.provider.ill[BACKUP] = WELL
    before = day.provider.asked[PRIMARY]
    assert await day.until(day.at(9, 40), every=5, calls=5) == {200: 50}
    probes = day.provider.asked[PRIMARY] - before
    assert probes <= 15, f"each look finds a cool-down over, and three breakers probe: {probes}"

    # 09:40. It is not over: for three minutes the fallback fails again.
    day.provider.ill[BACKUP] = (2, 6)
    relapse = await day.until(day.at(9, 43), every=1, calls=5)
    assert relapse[502] >= 5, relapse
    day.provider.ill[BACKUP] = WELL
    assert await day.until(day.at(10, 13), every=5, calls=5) == {200: 60}

    # 12:00. The first model is well: a probe is answered, and calls go there again.
    day.to(day.at(10, 30))
    assert await day.until(day.at(11, 45), every=30, calls=5) == {200: 20}
    day.to(day.at(11, 59, 20))
    assert await day.calls(1) == {200: 2}
    day.to(day.at(12))
    day.provider.ill[PRIMARY] = WELL
    before = day.provider.asked[PRIMARY]
    assert await day.until(day.at(12, 20), every=2, calls=5) == {200: 100}
    assert day.provider.asked[PRIMARY] - before >= 95

    # The rest of the day: the windows of the error budget pass.
    assert await day.until(day.at(24), every=20, calls=5) == {200: 350}


#: Everything that anybody was told, of what, and when.
TOLD = """
09:00:10 chat     opened    breaker-open
09:00:10 on-call  opened    breaker-open
09:00:20 chat     opened    fallbacks-carry-the-load
09:00:20 on-call  opened    calls-fail
09:00:20 on-call  opened    error-budget-burns
09:00:20 on-call  opened    fallbacks-carry-the-load
09:00:20 pager    opened    calls-fail
09:00:20 pager    opened    error-budget-burns
09:20:10 manager  escalated error-budget-burns
09:25:10 on-call  resolved  calls-fail
09:25:10 pager    resolved  calls-fail
09:40:10 on-call  came_back calls-fail
09:40:10 pager    came_back calls-fail
09:58:10 on-call  resolved  calls-fail
09:58:10 pager    resolved  calls-fail
11:00:10 chat     resolved  fallbacks-carry-the-load
11:00:10 on-call  resolved  fallbacks-carry-the-load
12:02:10 chat     resolved  breaker-open
12:02:10 on-call  resolved  breaker-open
16:20:10 manager  resolved  error-budget-burns
16:20:10 on-call  resolved  error-budget-burns
16:20:10 pager    resolved  error-budget-burns
"""
#: Their timelines, without who was told.
COURSES = {
    "breaker-open": "09:00:10 opened, 12:00:10 well, 12:02:10 resolved",
    "fallbacks-carry-the-load": "09:00:20 opened, 10:30:10 well, 11:00:10 resolved",
    "calls-fail": "09:00:20 opened, 09:00:30 acknowledged, 09:20:10 well, 09:25:10 resolved, 09:40:10 came_back, 09:48:10 well, "
    "09:58:10 resolved",
    "error-budget-burns": "09:00:20 opened, 09:20:10 escalated, 16:00:10 well, 16:20:10 resolved",
}


def handed_over(day: Day, hook: Service, chat: Service, secret: str) -> None:
    told = [tuple(line.split()) for line in TOLD.strip().splitlines()]
    assert sent() == told
    found = incidents()
    assert {one.state for one in found.values()} == {Incident.RESOLVED} and not OpenBreaker.objects.exists()
    for slug, course in COURSES.items():
        entries = Entry.objects.filter(incident=found[slug]).exclude(kind__startswith="told")
        assert ", ".join(f"{one.at:%H:%M:%S} {one.kind}" for one in entries) == course, slug
    # Whom nobody needed to tell: Alice looked after it within a quarter of an hour.
    dropped = Notification.objects.exclude(state=Notification.SENT)
    assert {(one.channel.slug, one.state, one.incident.rule.slug) for one in dropped} == {
        ("manager", "dropped", "calls-fail")
    }

    # What each receiver got is what the outbox says, each message once.
    pages = []
    for head, raw in hook.requests:
        at = int(head["webhook-timestamp"])
        assert head["webhook-signature"] == signature(
            secret, message_id=head["webhook-id"], timestamp=at, body=raw
        )
        body = json.loads(raw)
        pages.append(
            (
                f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}",
                body["type"].removeprefix("incident."),
                body["data"]["rule"],
            )
        )
    assert sorted(pages) == sorted(
        (at, event, rule) for at, channel, event, rule in told if channel == "pager"
    )
    assert len({head["webhook-id"] for head, _ in hook.requests}) == len(hook.requests)
    words = [json.loads(raw)["text"].partition("\n")[0] for _, raw in chat.requests]
    assert words == [
        "[warning] Opened: A breaker is open: primary of route chat",
        "[warning] Opened: Fallbacks carry the load: route chat",
        "[warning] Resolved: Fallbacks carry the load: route chat",
        "[warning] Resolved: A breaker is open: primary of route chat",
    ]
    letters = Counter(letter.to[0].partition("@")[0] for letter in mail.outbox)
    # Several at one moment are one letter.
    moments = {(channel, at) for at, channel, _, _ in told if channel in ("on-call", "manager")}
    assert letters == Counter(channel for channel, _ in moments)
    assert len({letter.extra_headers["Message-ID"] for letter in mail.outbox}) == len(mail.outbox)

    # The ledger holds every call as it was answered, and the postmortem tells them.
    failed = Call.objects.filter(status="error")
    assert failed.count() == day.answered[502] and Call.objects.count() == sum(day.answered.values())
    incident = found["calls-fail"]
    calls = behind(incident, day.now)
    assert calls is not None
    within = Call.objects.filter(started_at__gte=calls.start, started_at__lte=calls.end)
    assert calls.answered + calls.missed == within.count() and calls.missed == failed.count()
    text = written(incident, calls)
    assert text.startswith("# Calls fail: route chat\n") and "Their status page says degraded" in text
    for line in (
        f"| {BACKUP} | {calls.answered:,} |",
        "upstream\\_500",
        "- Came back: 1 times",
        "| on-call | Came back |",
        "0 min after it began, by alice",
    ):
        assert line in text, text
    assert HealthEvent.objects.filter(kind="breaker_opened", model=PRIMARY).exists()
