"""Rules are looked at and people are told: once, in time, and as they asked. The clock is the test's."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import mail
from django.db import transaction

from llmops.alerts import services
from llmops.alerts.api import IncidentSerializer
from llmops.alerts.models import Entry, Evaluation, Incident, Notification, Rule
from llmops.base.requests import user_actor
from llmops.core.errors import Conflict, PermissionDenied
from tests.alerts.scene import NOON, Scene
from tests.cast import COMMAND
from tests.servers import free_port as closed_port
from tests.tools.services import says, service

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]


@pytest.fixture
def failing(scene: Scene) -> Scene:
    """Route chat fails since this moment, and one channel is told."""
    scene.only("calls-fail")
    scene.channel()
    scene.calls(20)
    scene.failing(20)
    return scene


def subjects() -> list[str]:
    return [letter.subject for letter in mail.outbox]


def test_it_fires_once_and_ends_by_itself(failing: Scene) -> None:
    failing.tick(60)
    assert subjects() == ["[critical] Opened: Calls fail: route chat"]
    letter = mail.outbox[0]
    assert letter.to == ["on-call@example.com"] and "/alerts/runbooks/degraded-provider/" in letter.body
    incident = failing.incident()
    assert (incident.state, incident.told, incident.opened_at) == ("open", True, NOON)
    assert incident.facts["route"] == "chat" and incident.facts["error"] == "upstream_error"
    # The failures leave the window of five minutes; then it must be well for five more.
    failing.tick(15 * 60)
    incident.refresh_from_db()
    assert incident.state == "resolved" and incident.resolved_by == "by itself"
    assert subjects()[1:] == ["[critical] Resolved: Calls fail: route chat"]
    assert failing.timeline(incident) == ["opened", "told", "well", "resolved", "told"]


def test_near_the_bound_it_goes_on_and_does_not_begin(scene: Scene) -> None:
    scene.only("calls-fail")
    scene.calls(141)
    scene.failing(7)
    scene.tick()
    assert not Incident.objects.exists(), "4.7 % is below 5 %, and nothing begins"
    scene.failing(2)
    scene.tick()
    assert scene.incident().clear_since is None
    scene.calls(41)
    scene.tick(60)
    assert scene.incident().clear_since is None, "and 4.7 % is too near to be well"


def test_what_comes_back_is_the_same_incident_and_ends_later_each_time(failing: Scene) -> None:
    failing.tick(15 * 60)
    incident = failing.incident()
    assert incident.state == "resolved"
    failing.failing(30)
    failing.tick(30)
    incident.refresh_from_db()
    assert (incident.state, incident.flaps, Incident.objects.count()) == ("open", 1, 1)
    assert subjects()[-1] == "[critical] Is back: Calls fail: route chat"
    failing.tick(14 * 60)
    incident.refresh_from_db()
    assert incident.state == "open", "it has to be well for ten minutes now"
    failing.tick(6 * 60)
    incident.refresh_from_db()
    assert incident.state == "resolved"
    # Long afterwards it is another one.
    failing.pass_(hours=2).failing(30)
    failing.tick()
    assert Incident.objects.count() == 2


def test_while_it_flaps_within_its_time_nobody_hears_of_it(failing: Scene) -> None:
    failing.tick()
    for _ in range(3):
        failing.pass_(minutes=7)
        failing.tick(20)
        assert failing.incident().clear_since is not None
        failing.failing(30)
        failing.tick(20)
        assert failing.incident().clear_since is None
    assert len(subjects()) == 1
    assert failing.timeline(failing.incident()).count("ill_again") == 3


def test_acknowledged_in_time_nobody_else_is_told(failing: Scene) -> None:
    failing.channel("manager", after_minutes=15)
    failing.tick(60)
    services.acknowledge(COMMAND, incident=failing.incident(), note="I look", now=failing.now)
    with pytest.raises(Conflict):
        services.acknowledge(COMMAND, incident=failing.incident(), now=failing.now)
    failing.failing(30)
    failing.tick(16 * 60)
    assert [letter.to[0] for letter in mail.outbox if letter.to[0].startswith("manager")] == []
    assert ("manager", "escalated", "dropped") in failing.outbox()


def test_not_acknowledged_it_is_escalated_once(failing: Scene) -> None:
    failing.channel("manager", after_minutes=4)
    failing.tick(239)
    assert len(mail.outbox) == 1
    failing.tick(30)
    assert [(letter.to, letter.subject) for letter in mail.outbox[1:]] == [
        (["manager@example.com"], "[critical] Not acknowledged: Calls fail: route chat")
    ]
    failing.failing(30)
    failing.tick(4 * 60)
    assert len(mail.outbox) == 2 and "escalated" in failing.timeline(failing.incident())


def test_silenced_it_is_not_told_until_the_silence_ends(failing: Scene) -> None:
    failing.tick()
    incident = failing.incident()
    services.silence(COMMAND, incident=incident, minutes=10, reason="a planned change", now=failing.now)
    for _ in range(3):
        failing.failing(30)
        failing.tick(180)
    assert len(mail.outbox) == 1
    failing.failing(30)
    failing.tick(90)
    assert len(mail.outbox) == 2, "it is still there, and nobody looks after it"


def test_what_begins_in_a_silence_of_its_rule_is_kept_and_not_told(failing: Scene) -> None:
    failing.tick()
    services.silence(
        COMMAND, incident=failing.incident(), minutes=60, reason="we know", whole_rule=True, now=failing.now
    )
    failing.failing(30, route="summarise")
    failing.tick(60)
    assert Incident.objects.count() == 2 and len(mail.outbox) == 1
    services.end_silence(COMMAND, incident=failing.incident_of("route:summarise"), now=failing.now)
    failing.tick(10)
    assert len(mail.outbox) == 2, "two incidents, one letter"
    assert mail.outbox[1].subject.startswith("2 alerts: ")


def test_quiet_hours_hold_back_what_is_not_critical(scene: Scene) -> None:
    scene.only("fallbacks-carry-the-load")
    scene.channel(quiet_from=11 * 60, quiet_to=13 * 60)
    scene.calls(30, fallback_count=1)
    scene.tick(60)
    assert mail.outbox == [] and scene.outbox() == [("on-call", "opened", "waiting")]
    scene.pass_(minutes=61).calls(30, fallback_count=1)
    scene.tick()
    assert subjects() == ["[warning] Opened: Fallbacks carry the load: route chat"]


def test_what_is_over_before_quiet_hours_are_is_not_told_at_all(scene: Scene) -> None:
    scene.only("fallbacks-carry-the-load")
    scene.channel(quiet_from=11 * 60, quiet_to=13 * 60)
    scene.calls(30, fallback_count=1)
    scene.tick(20 * 60)
    scene.pass_(hours=1)
    scene.tick()
    assert mail.outbox == [] and {state for *_, state in scene.outbox()} == {"dropped"}


def test_channels_hear_of_their_severities_and_projects(scene: Scene) -> None:
    scene.only("calls-fail")
    scene.channel("info-only", severities=["info"])
    scene.channel("search", project=scene.cast.search)
    scene.failing(30)
    scene.tick()
    assert mail.outbox == [] and scene.timeline(scene.incident()) == ["opened", "not_told"]


def test_a_mail_server_that_is_away_holds_nothing_up_and_loses_nothing(
    failing: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("no mail server")

    with monkeypatch.context() as broken:
        broken.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", away)
        failing.tick(30)
    row = Notification.objects.get()
    assert (row.state, row.tries) == ("waiting", 2) and "no mail server" in row.problem
    assert Evaluation.objects.get().problems == []
    failing.tick(60)
    assert len(mail.outbox) == 1 and failing.timeline(failing.incident()) == ["opened", "not_told", "told"]


def test_a_worker_that_died_with_a_message_leaves_it_to_another(failing: Scene) -> None:
    services.evaluate(failing.now, claim=False)
    Notification.objects.update(state=Notification.SENDING, claimed_at=failing.now)
    assert services.deliver(failing.now) == 0
    assert services.deliver(failing.pass_(minutes=3).now) == 1
    assert len(mail.outbox) == 1


def test_the_turn_is_one_workers(failing: Scene) -> None:
    assert services.evaluate(failing.now) == 1
    assert services.evaluate(failing.now) == -1
    assert services.evaluate(failing.pass_(seconds=10).now) == 0


def test_a_rule_that_breaks_does_not_blind_the_others(
    failing: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    Rule.objects.filter(slug="near-a-rate-limit").update(archived_at=None, kind="of another version")
    failing.tick()
    assert failing.incident().state == "open"
    (problem,) = Evaluation.objects.get().problems
    assert problem.startswith("near-a-rate-limit: ")


def test_a_rule_that_is_switched_off_lets_its_incidents_end(failing: Scene) -> None:
    failing.tick()
    rule = Rule.objects.get(slug="calls-fail")
    services.update_rule(COMMAND, rule=rule, enabled=False)
    failing.tick(6 * 60)
    assert failing.incident().state == "resolved"


def test_what_still_holds_cannot_be_resolved_by_hand(failing: Scene) -> None:
    failing.tick()
    with pytest.raises(Conflict, match="still holds"):
        services.resolve(COMMAND, incident=failing.incident(), now=failing.now)
    failing.pass_(minutes=7)
    failing.tick()
    services.resolve(COMMAND, incident=failing.incident(), note="rolled back", now=failing.now)
    failing.tick()
    assert failing.incident().resolved_by == COMMAND.name and subjects()[-1].startswith("[critical] Resolved")


def test_the_timeline_cannot_be_rewritten(failing: Scene) -> None:
    failing.tick()
    for change in (lambda: Entry.objects.update(text="nothing"), lambda: Entry.objects.all().delete()):
        with pytest.raises(Exception, match="append-only"), transaction.atomic():
            change()


def test_the_work_does_not_grow_with_calls(failing: Scene, django_assert_max_num_queries: Any) -> None:
    Rule.objects.update(archived_at=None)
    failing.tick()
    with django_assert_max_num_queries(260):
        services.evaluate(failing.pass_(seconds=10).now, claim=False)
    for hours in range(1, 30):
        failing.calls(5, ago_s=hours * 3600)
    with django_assert_max_num_queries(260):
        services.evaluate(failing.pass_(seconds=10).now, claim=False)


def test_a_rule_that_watches_all_is_silenced_by_who_responds_for_all(scene: Scene) -> None:
    scene.only("calls-fail")
    scene.failing(30)
    scene.tick()
    # As a breaker's or a key's: found by a rule of everybody, about one project.
    Incident.objects.update(project=scene.cast.support)
    bob, incident = user_actor(scene.cast.bob), scene.incident()
    with pytest.raises(PermissionDenied, match="other projects"):
        services.silence(bob, incident=incident, minutes=30, reason="mine", whole_rule=True, now=scene.now)
    services.silence(COMMAND, incident=incident, minutes=30, reason="all", whole_rule=True, now=scene.now)
    with pytest.raises(PermissionDenied, match="whole rule"):
        services.end_silence(bob, incident=incident, now=scene.now)
    services.silence(bob, incident=incident, minutes=30, reason="mine", now=scene.now)
    assert services.end_silence(bob, incident=incident, now=scene.now) == 1
    assert services.end_silence(COMMAND, incident=incident, now=scene.now) == 1


def test_a_receiver_that_hangs_costs_one_try_and_nobody_waits_for_it_twice(scene: Scene) -> None:
    scene.only("calls-fail")
    down = closed_port()
    services.create_channel(
        COMMAND,
        slug="a-down",
        kind="webhook",
        url=f"http://127.0.0.1:{down}/hook",
        allow_private_network=True,
    )
    for number in range(5):
        scene.failing(30, route=f"r{number}")
    with service(says("200 OK")) as pager:
        services.create_channel(
            COMMAND,
            slug="b-well",
            kind="webhook",
            url=f"http://127.0.0.1:{pager.port}/hook",
            allow_private_network=True,
        )
        scene.tick(30)
        assert len(pager.requests) == 5 == len({head["webhook-id"] for head, _ in pager.requests})
    rows = Notification.objects.filter(channel__slug="a-down")
    assert {row.state for row in rows} == {"waiting"} and all(row.problem for row in rows)


def test_what_is_open_of_a_removed_rule_ends_with_a_line_of_its_timeline(failing: Scene) -> None:
    failing.tick()
    services.archive_rule(COMMAND, rule=Rule.objects.get(slug="calls-fail"))
    incident = failing.incident()
    assert incident.state == "resolved" and failing.timeline(incident)[-1] == "resolved"


def test_a_page_of_incidents_asks_once_what_is_silenced(
    failing: Scene, django_assert_num_queries: Any
) -> None:
    failing.failing(30, route="summarise")
    failing.tick()
    first = failing.incident_of("route:chat")
    services.silence(COMMAND, incident=first, minutes=30, reason="we know", now=failing.now)
    rows = Incident.objects.select_related("rule", "project").order_by("subject")
    with django_assert_num_queries(2):
        told = IncidentSerializer(rows, many=True, context={}).data
    assert [bool(one["silenced_until"]) for one in told] == [True, False]
