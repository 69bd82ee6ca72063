"""A provider degrades: from the first error to the incident that can be handed over, with everything that anybody was told.

The clock is the test's; calls lie in the ledger and rollups as the ingester leaves them; messages go to a mail server, a chat and a
service that listen.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail

from llmops.alerts import services
from llmops.alerts.channels import channel_named
from llmops.alerts.models import Incident, Notification, Slo
from llmops.alerts.postmortem import written
from llmops.alerts.sealed import secret_of
from llmops.core.ids import uuid7
from llmops.providers.models import OpenBreaker
from llmops.tools.executors.webhook import signature
from tests.alerts.scene import NOON, Scene
from tests.cast import COMMAND, signed_in
from tests.dashboards.seed import budget
from tests.tools.services import says, service

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
PRIMARY, FALLBACK = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18"


def told() -> list[str]:
    return [letter.subject for letter in mail.outbox]


def test_from_the_first_error_to_the_resolved_incident(scene: Scene, settings: Any) -> None:
    settings.PUBLIC_URL = "https://console.example.com"
    scene.only(
        "calls-fail", "fallbacks-carry-the-load", "breaker-open", "error-budget-burns", "budget-will-not-last"
    )
    scene.channel("on-call")
    scene.channel("manager", severities=["critical"], after_minutes=10)
    services.create_slo(
        COMMAND, slug="chat-answers", objective=Slo.AVAILABILITY, target_ppm=995_000, route="chat"
    )
    with service(says("200 OK")) as pager:
        hook, secret = services.create_channel(
            COMMAND,
            slug="pager",
            kind="webhook",
            url=f"http://127.0.0.1:{pager.port}/hook",
            allow_private_network=True,
            severities=["critical"],
        )
        # A day on which all was well.
        for hours in (1, 2, 4, 8, 16):
            scene.calls(20, ago_s=hours * 3600)
        scene.calls(30)
        scene.tick()
        assert not Incident.objects.exists() and told() == []

        # 12:01. The provider begins to fail: half of the calls, then the breaker opens.
        scene.pass_(minutes=1)
        scene.calls(10)
        scene.failing(20)
        first = scene.now
        scene.tick(20)
        opened = {one.rule.slug: one for one in Incident.objects.select_related("rule")}
        assert set(opened) == {"calls-fail", "error-budget-burns"}
        assert all(one.opened_at - first <= timedelta(seconds=30) for one in opened.values())
        assert all(one.severity == "critical" for one in opened.values())
        assert told() == ["2 alerts: [critical] Opened: An error budget burns: chat-answers"] or told() == [
            "2 alerts: [critical] Opened: Calls fail: route chat"
        ]
        # Signed, so that the pager knows who speaks; each once, with an id of its own.
        assert len(pager.requests) == 2
        for request in pager.requests:
            sent, raw = request
            assert sent["webhook-signature"] == signature(
                secret,
                message_id=sent["webhook-id"],
                timestamp=int(sent["webhook-timestamp"]),
                body=raw,
            )
            body = json.loads(raw)
            assert body["type"] == "incident.opened" and body["data"]["severity"] == "critical"
            assert body["data"]["url"].startswith("https://console.example.com/alerts/")
        assert secret_of(hook) == secret

        # 12:03. The breaker is open and the fallback carries the load.
        scene.pass_(minutes=2)
        breaker = OpenBreaker.objects.create(
            process=uuid7(), host="h", route="chat", model=PRIMARY, provider="openai", since=scene.now,
            until=scene.now + timedelta(hours=1), why="20 of 30 failed",
        )  # fmt: skip
        scene.calls(40, model=FALLBACK, fallback_count=1)
        scene.tick(10)
        assert {one.rule.slug for one in Incident.objects.exclude(state="resolved")} == {
            "calls-fail", "error-budget-burns", "breaker-open", "fallbacks-carry-the-load",
        }  # fmt: skip
        assert len(mail.outbox) == 2 and told()[1].startswith("2 alerts: [warning] Opened: ")

        # What on-call sees: from the list to the calls and the runbook, and who carries the load.
        client = signed_in(scene.cast.bob)
        assert client.get("/alerts/").status_code == 200
        alice = signed_in(scene.cast.alice)
        page = alice.get("/alerts/").content.decode()
        assert "Calls fail: route chat" in page and FALLBACK in page
        assert (
            "/calls/?from=2026-03-05T11%3A51%3A00Z&amp;route=chat&amp;error=upstream_error&amp;status=failed"
            in page
        )
        assert "/alerts/runbooks/degraded-provider/" in page
        incident = scene.incident("calls-fail")
        answer = alice.get(f"/alerts/{incident.pk}/")
        assert (
            "What carries the load" in answer.content.decode()
            and answer.content.decode().count("First action") == 1
        )

        # 12:05. Alice looks after one of them; of the other nobody does, and the manager is told after ten minutes.
        scene.pass_(minutes=2)
        acted = alice.post(f"/alerts/{incident.pk}/", {"what": "acknowledge", "text": "Degrading the route"})
        assert acted.status_code == 302
        scene.pass_(minutes=6, seconds=30)
        scene.calls(40, model=FALLBACK, fallback_count=1)
        scene.tick(10)
        escalated = [letter for letter in mail.outbox if letter.to == ["manager@example.com"]]
        assert [letter.subject for letter in escalated] == [
            "[critical] Not acknowledged: An error budget burns: chat-answers"
        ]

        # The budget burns too: the fallback is dear.
        month = budget("month", "10", "9.5", value="support", project=scene.cast.support)
        scene.pass_(minutes=1)
        scene.tick()
        assert scene.incident("budget-will-not-last").project == scene.cast.support
        assert told()[-1] == "[info] Opened: A budget will not last: month"
        month.settled_nano = 0
        month.save()

        # 12:15. The provider is well: the breaker closes, calls are answered. After a while what failed ends by itself; of the error
        # budget too much is gone, until the bad hour has left the windows.
        scene.pass_(minutes=2)
        breaker.delete()
        for _ in range(4):
            scene.calls(60)
            scene.tick()
            scene.pass_(minutes=10)

        def states() -> dict[str, str]:
            return {one.rule.slug: one.state for one in Incident.objects.select_related("rule")}

        assert {slug for slug, state in states().items() if state != "resolved"} == {
            "error-budget-burns",
            "budget-will-not-last",
        }
        for minutes in (3 * 24 * 60, 10, 60):
            scene.pass_(minutes=minutes)
            scene.calls(30)
            scene.tick()
        assert states() == dict.fromkeys(opened, "resolved") | dict.fromkeys(
            ("breaker-open", "fallbacks-carry-the-load", "budget-will-not-last"), "resolved"
        )

    # Everybody was told of each beginning and end once, and the manager of the end of what he was told had begun.
    rows = Notification.objects.filter(state="sent").values_list(
        "incident__rule__slug", "channel__slug", "event"
    )
    both = {(slug, "on-call", event) for slug in states() for event in ("opened", "resolved")}
    critical = {
        (slug, "pager", event)
        for slug in ("calls-fail", "error-budget-burns")
        for event in ("opened", "resolved")
    }
    manager = {("error-budget-burns", "manager", event) for event in ("escalated", "resolved")}
    assert sorted(rows) == sorted(both | critical | manager)
    dropped = Notification.objects.filter(state="dropped").values_list(
        "incident__rule__slug", "channel__slug", "event"
    )
    assert sorted(dropped) == [("calls-fail", "manager", "escalated"), ("calls-fail", "manager", "resolved")]
    assert len(pager.requests) == 4

    # It can be handed over.
    incident.refresh_from_db()
    assert scene.timeline(incident)[:2] == ["opened", "told"] and "acknowledged" in scene.timeline(incident)
    text = written(incident)
    assert text.startswith("# Calls fail: route chat\n") and "Degrading the route" in text
    assert f"{incident.opened_at:%Y-%m-%d %H:%M:%S} UTC" in text and "## What will be done" in text


def test_a_webhook_that_says_no_is_tried_again_with_the_same_id(scene: Scene) -> None:
    scene.only("calls-fail")
    answers = [says("503 Service Unavailable"), says("200 OK")]
    with service(lambda client: answers.pop(0)(client)) as pager:
        services.create_channel(
            COMMAND,
            slug="pager",
            kind="webhook",
            url=f"http://127.0.0.1:{pager.port}/hook",
            allow_private_network=True,
        )
        scene.failing(30)
        scene.tick(30)
        assert [head["webhook-id"] for head, _ in pager.requests] == [str(Notification.objects.get().pk)] * 2
    assert Notification.objects.get().state == "sent"


def test_a_chat_is_told_in_words_and_its_address_stays_sealed(scene: Scene) -> None:
    scene.only("calls-fail")
    with service(says("200 OK")) as chat:
        secret_path = f"http://127.0.0.1:{chat.port}/T000/B000/planted-in-the-address"
        made, _ = services.create_channel(
            COMMAND, slug="chat", kind="slack", url=secret_path, allow_private_network=True
        )
        assert "planted" not in made.url and secret_of(made) == secret_path
        scene.failing(30, route="a-route")
        scene.tick()
        ((_, sent),) = chat.requests
    text = json.loads(sent)["text"]
    assert text.startswith("[critical] Opened: Calls fail: route a-route\n") and "<" not in text
    assert (
        "planted"
        not in signed_in(scene.cast.alice).get(f"/admin/alerts/channel/{made.pk}/change/").content.decode()
    )


def test_no_channel_speaks_to_the_consoles_own_surroundings(scene: Scene) -> None:
    from llmops.core.errors import InvalidRequest, PermissionDenied

    with pytest.raises(InvalidRequest, match="url"):
        services.create_channel(COMMAND, slug="x", kind="webhook", url="http://169.254.169.254/latest")
    from llmops.base.requests import user_actor

    with pytest.raises(PermissionDenied, match="private"):
        services.create_channel(
            user_actor(scene.cast.bob), slug="x", kind="webhook", project=scene.cast.support,
            url="https://10.0.0.1/hook", allow_private_network=True,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["mail", "webhook", "slack"])
def test_the_contract_of_channels(name: str) -> None:
    kind = channel_named(name)
    assert kind.name == name and kind.title and callable(kind.send)
    assert kind.sealing in ("", "signs", "address")
    assert NOON.tzinfo is not None
