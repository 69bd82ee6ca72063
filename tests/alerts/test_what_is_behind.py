"""What an incident's page and its postmortem tell of its calls: errors, causes first, and who carries the load."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.urls import reverse

from llmops.alerts.behind import behind, causes_first
from llmops.alerts.channels.base import Message
from llmops.alerts.models import Incident, Notification
from llmops.alerts.postmortem import written
from tests.alerts.scene import Scene
from tests.cast import signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
PRIMARY, FALLBACK = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18"


@pytest.fixture
def degraded(scene: Scene) -> Scene:
    """A provider failed, its breaker opened, and a fallback carries most of what comes."""
    scene.only("calls-fail")
    scene.channel()
    scene.calls(7, ago_s=3600)
    scene.failing(12, model=PRIMARY, error_code="upstream_500")
    scene.failing(30, model="", error_code="circuit_open", http_status=503)
    scene.calls(40, model=FALLBACK, fallback_count=1)
    scene.tick()
    return scene


def test_causes_come_before_what_follows_from_them() -> None:
    found = causes_first({"circuit_open": 300, "upstream_500": 5, "upstream_timeout": 9})
    assert [one.code for one in found] == ["upstream_timeout", "upstream_500", "circuit_open"]


def test_the_calls_behind_an_incident(degraded: Scene) -> None:
    incident = degraded.incident()
    assert incident.facts["error"] == "upstream_500"
    assert "upstream_500 (12), circuit_open (30)" in incident.says
    found = behind(incident, degraded.now)
    assert found is not None and (found.answered, found.missed) == (40, 42)
    assert [(one.model, one.answered, one.failed) for one in found.carried] == [
        (FALLBACK, 40, 0), ("", 0, 30), (PRIMARY, 0, 12),
    ]  # fmt: skip
    assert found.start <= incident.opened_at - timedelta(minutes=1), (
        "its first call came before it was opened"
    )


def test_its_end_is_the_end_of_its_calls_and_long_ones_are_told_by_hours(degraded: Scene) -> None:
    incident = degraded.incident()
    degraded.pass_(hours=8).calls(3)
    found = behind(incident, degraded.now)
    assert found is not None and found.start.minute == 0 and found.answered == 43
    lately = behind(incident, degraded.now, lately=True)
    assert lately is not None and lately.answered == 3
    Incident.objects.update(state="resolved", resolved_at=incident.opened_at + timedelta(minutes=5))
    incident.refresh_from_db()
    ended = behind(incident, degraded.now)
    assert ended is not None and ended.answered == 40


def test_what_is_about_no_calls_has_none(degraded: Scene) -> None:
    incident = degraded.incident()
    incident.facts, incident.calls = {"page": "dashboards:audit_verify"}, 0
    assert behind(incident, degraded.now) is None


def test_the_page_says_which_errors_and_stays_current(degraded: Scene) -> None:
    alice, incident = signed_in(degraded.cast.alice), degraded.incident()
    page = alice.get(f"/alerts/{incident.pk}/")
    text = page.content.decode()
    assert "no target was left" in text and FALLBACK in text
    assert "error=upstream_500" in text and "error=circuit_open" in text
    live = f"/alerts/{incident.pk}/live/"
    marker = page.context["marker"]
    assert alice.get(live, {"marker": marker}).status_code == 204
    degraded.failing(5, error_code="upstream_500")
    degraded.tick()
    moved = alice.get(live, {"marker": marker}).json()
    # What somebody types into is not taken away while there is nothing else to do.
    assert set(moved["parts"]) == {"now", "lines"} and not moved["done"]
    assert alice.post(f"/alerts/{incident.pk}/", {"what": "acknowledge", "text": ""}).status_code == 302
    seen = alice.get(live, {"marker": moved["marker"]}).json()
    assert set(seen["parts"]) == {"now", "lines", "do"} and "acknowledged" in seen["said"].lower()


def test_who_is_of_one_project_learns_nothing_of_the_calls_of_all(degraded: Scene) -> None:
    incident = degraded.incident()
    client = signed_in(degraded.cast.bob)
    for path in ("", "live/", "postmortem/"):
        assert client.get(f"/alerts/{incident.pk}/{path}").status_code == 404


def test_the_postmortem_tells_of_calls_and_of_who_was_told(degraded: Scene) -> None:
    incident = degraded.incident()
    text = written(incident, behind(incident, degraded.now))
    assert "82 calls, of which 42 failed (51.2 %)" in text
    assert f"| {FALLBACK} | 40 | 0 |" in text and "| upstream\\_500 | 12 |" in text
    assert "| on-call | Opened | 1 |" in text
    assert "## Calls" not in written(incident)
    told = signed_in(degraded.cast.alice).get(f"/alerts/{incident.pk}/postmortem/").content.decode()
    assert "## Calls" in told


def test_a_message_leads_to_the_calls(degraded: Scene) -> None:
    row = Notification.objects.select_related("incident__rule", "incident__project").get()
    message = Message.of(row, degraded.now)
    data = json.loads(json.dumps(message.as_json()))["data"]
    assert "/calls/?from=" in data["calls_url"] and "route=chat" in data["calls_url"]
    assert any(line == f"Its calls: {data['calls_url']}" for line in message.lines())


def test_a_worker_which_has_no_pages_tells_of_it(scene: Scene, settings: Any) -> None:
    scene.only("calls-fail")
    scene.channel()
    settings.ROOT_URLCONF = "console.no_urls"
    scene.failing(30)
    scene.tick()
    (letter,) = mail.outbox
    assert f"{settings.PUBLIC_URL}/calls/?from=" in letter.body
    settings.ROOT_URLCONF = "console.urls"
    assert reverse("dashboards:calls") == "/calls/"
    assert Notification.objects.get().state == "sent"
