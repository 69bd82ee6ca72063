"""Workers that look, and tell, at the same moment: one incident, one message."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import pytest
from django.core import mail
from django.db import IntegrityError, connections, transaction

from llmops.alerts import services
from llmops.alerts.models import Entry, Incident, Notification, Rule
from tests.alerts.scene import Scene
from tests.cast import COMMAND, make_cast

pytestmark = pytest.mark.django_db(transaction=True)
WORKERS = 4


def at_once(work: Callable[[], Any]) -> list[Any]:
    """What ``work`` gives to each of some threads that begin together, on a connection each."""
    begin = Barrier(WORKERS)

    def one(_: int) -> Any:
        try:
            begin.wait()
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, range(WORKERS)))


def test_one_incident_and_one_message(scene_apart: Scene) -> None:
    scene = scene_apart
    assert max(at_once(lambda: services.evaluate(scene.now, claim=False))) == 1
    assert Incident.objects.count() == 1 and Notification.objects.count() == 1
    assert list(Entry.objects.values_list("kind", flat=True)) == ["opened"]
    assert sum(at_once(lambda: services.deliver(scene.now))) == 1
    assert len(mail.outbox) == 1
    assert Notification.objects.get().state == "sent"


def test_the_turn_is_claimed_by_one(scene_apart: Scene) -> None:
    found = at_once(lambda: services.evaluate(scene_apart.now))
    assert sorted(found) == [-1] * (WORKERS - 1) + [1]


def test_an_incident_of_a_rule_and_subject_is_open_once(scene_apart: Scene) -> None:

    services.evaluate(scene_apart.now, claim=False)
    first = Incident.objects.get()
    with pytest.raises(IntegrityError), transaction.atomic():
        Incident.objects.create(
            rule=first.rule, subject=first.subject, severity="info", title="again", opened_at=scene_apart.now,
            last_true_at=scene_apart.now,
        )  # fmt: skip


@pytest.fixture
def scene_apart() -> Any:
    """Committed, so that all connections see it; one rule, one channel, and a route that fails."""
    import time_machine

    from llmops.access.models import ServiceKey
    from tests.alerts.scene import NOON

    cast: SimpleNamespace = make_cast()
    cast.keys = {
        "support": ServiceKey.objects.create(
            project=cast.support, name="support", prefix="lk_supp", secret_hash="0" * 64
        )
    }
    with time_machine.travel(NOON, tick=False) as clock:
        scene = Scene(cast, clock)
        services.create_rule(COMMAND, slug="calls-fail", kind="error_rate", severity="critical")
        scene.only("calls-fail")
        assert Rule.objects.filter(archived_at=None).count() == 1
        scene.channel()
        scene.failing(30)
        yield scene
