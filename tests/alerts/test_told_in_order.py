"""What a receiver hears last is what is so, however long it could not be reached meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail

from llmops.alerts import services
from llmops.alerts.models import Incident, Notification
from llmops.alerts.services import outbox
from tests.alerts.scene import Scene

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
Away = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    """Within it no mail server takes anything."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("no mail server")

    @contextmanager
    def broken() -> Iterator[None]:
        with monkeypatch.context() as changed:
            changed.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", refuse)
            yield

    return broken


@pytest.fixture
def failing(scene: Scene) -> Scene:
    scene.only("calls-fail")
    scene.channel()
    scene.calls(20)
    scene.failing(20)
    return scene


def heard() -> list[str]:
    """What began, was back or ended, letter by letter."""
    return [letter.subject.split(":")[0].split("] ")[-1] for letter in mail.outbox]


def test_what_ended_while_nobody_could_be_told_is_told_with_its_end(failing: Scene, away: Away) -> None:
    with away():
        failing.tick(16 * 60)
        assert failing.incident().state == Incident.RESOLVED
        assert Notification.objects.get(event="opened").tries > 3
    failing.tick(60 * 60)
    assert heard() == ["Opened", "Resolved"], "and not that it began alone"
    assert {one.state for one in Notification.objects.all()} == {"sent"}


def test_an_end_that_nobody_heard_of_is_not_told_once_it_is_back(failing: Scene, away: Away) -> None:
    failing.tick(60)
    with away():
        failing.tick(15 * 60)
        assert failing.incident().state == Incident.RESOLVED
        failing.failing(20)
        failing.tick(10)
        assert failing.incident().state == Incident.OPEN
    failing.tick(240)
    assert heard() == ["Opened", "Is back"], "it is not over, whatever was to be told before"
    assert Notification.objects.get(event="resolved").state == "dropped"
    failing.tick(60 * 60)
    assert heard() == ["Opened", "Is back", "Resolved"]


def test_a_channel_that_is_away_for_long_keeps_nobody_elses_messages_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More ends than are looked at in one go, which wait for a beginning that could not be told."""
    monkeypatch.setattr(outbox, "_AT_ONCE", 40)
    scene.only("calls-fail")
    channel, other = scene.channel("dead"), scene.channel("alive")
    scene.failing(30)
    services.evaluate(scene.now, claim=False)
    first = scene.incident()
    Notification.objects.all().delete()
    later = scene.now + timedelta(hours=1)
    rows = []
    for number in range(50):
        incident = Incident.objects.create(
            rule=first.rule, subject=f"route {number}", severity="critical", title="Calls fail", state=Incident.RESOLVED,
            opened_at=scene.now, last_true_at=scene.now, resolved_at=scene.now, told=True, tellings=1,
        )  # fmt: skip
        common = {"incident": incident, "channel": channel, "telling": 1, "created_at": scene.now}
        rows.append(Notification(event="opened", tries=9, due_at=later, **common))
        common["created_at"] += timedelta(seconds=1)
        rows.append(Notification(event="resolved", due_at=scene.now, **common))
    Notification.objects.bulk_create(rows)
    Notification.objects.create(
        incident=first, channel=other, event="opened", telling=1, created_at=scene.now, due_at=scene.now
    )
    for _ in range(2):
        scene.pass_(seconds=10)
        services.deliver(scene.now)
    assert [letter.to for letter in mail.outbox] == [["alive@example.com"]]
    scene.pass_(hours=1)
    for _ in range(6):
        services.deliver(scene.now)
    assert Notification.objects.filter(channel=channel, state="sent").count() == 100
