"""Reading the trail in the admin and the API: by whom, what, when; nothing changes, nobody sees another's."""

from __future__ import annotations

import pytest

from llmops.access import services
from llmops.audit import selectors, wording
from llmops.audit.models import Event
from tests.cast import acting, bearer, issue, last_sequence, no_event, person, signed_in
from tests.kept import kept

pytestmark = pytest.mark.django_db


@kept
def history(cast):
    cast.key = issue(cast.support, actor=acting(cast.bob), name="ci").key
    services.update_service_key(acting(cast.alice), key=cast.key, rpm=60)
    services.revoke_service_key(acting(cast.bob), key=cast.key, reason="a laptop was lost")
    cast.foreign = issue(cast.search, actor=acting(cast.charlie), name="ranker").key
    return cast


def listed(client, query=""):
    answer = client.get(f"/api/v1/audit-events/{query}")
    assert answer.status_code == 200, answer.content
    return [event["action"] for event in answer.json()["results"]]


def test_the_newest_comes_first_and_says_what_changed_in_words(history):
    answer = (
        signed_in(history.dan).get("/api/v1/audit-events/?object_id=" + str(history.key.pk)).json()["results"]
    )
    assert [event["action"] for event in answer] == [
        "service_key.revoked",
        "service_key.changed",
        "service_key.created",
    ]
    assert answer[1]["changes"] == ["rpm: nothing → 60"]
    assert answer[1]["actor_name"] == "alice"
    assert answer[0]["reason"] == "a laptop was lost"


def test_filters_narrow(history):
    client = signed_in(history.root)
    newest = Event.objects.first().at
    assert listed(client, "?action=service_key.revoked") == ["service_key.revoked"]
    assert set(listed(client, "?action=project.")) == {"project.created"}
    assert set(listed(client, "?actor=alice&action=service_key.")) == {"service_key.changed"}
    assert listed(client, f"?actor_id={history.charlie.pk}") == ["service_key.created"]
    assert set(listed(client, "?actor=ALICE&action=service_key.")) == {"service_key.changed"}
    assert listed(client, "?actor=lic") == [] == listed(client, "?action=nothing.")
    assert listed(client, f"?project={history.search.pk}") == ["service_key.created", "project.created"]
    assert listed(client, f"?since={newest.isoformat().replace('+00:00', 'Z')}") != []
    assert (
        listed(client, "?until=2020-01-01T00:00:00Z") == [] == listed(client, "?since=2120-01-01T00:00:00Z")
    )
    first = Event.objects.last().at
    said = f"?since={first.isoformat()}&until={newest.isoformat()}".replace("+00:00", "Z")
    assert listed(client, said) != []
    assert listed(client, "?object_type=access.project") == ["project.created"] * 2


@pytest.mark.parametrize(
    "query", ["?since=yesterday", "?project=7", "?page_size=-1", "?cursor=%00", "?action=%00x"]
)
def test_a_filter_that_makes_no_sense_is_answered_not_crashed(history, query):
    answer = signed_in(history.root).get(f"/api/v1/audit-events/{query}")
    assert answer.status_code in (200, 400, 404)


def test_pages_are_bounded(history):
    answer = signed_in(history.root).get("/api/v1/audit-events/?page_size=2").json()
    assert len(answer["results"]) == 2
    following = signed_in(history.root).get(answer["next"]).json()
    assert following["results"][0]["sequence"] < answer["results"][-1]["sequence"]


def test_an_auditor_of_one_project_sees_that_project_only(history):
    dan = signed_in(history.dan)
    assert "ranker" not in dan.get("/api/v1/audit-events/").content.decode()
    theirs = Event.objects.get(object_id=str(history.foreign.pk))
    organisation = Event.objects.filter(project_id=None).first()
    for event in filter(None, (theirs, organisation)):
        assert dan.get(f"/api/v1/audit-events/{event.pk}/").status_code == 404
        assert dan.get(f"/admin/audit/event/{event.pk}/change/").status_code == 404
    everything = signed_in(person("olga", ("auditor", None)))
    assert everything.get(f"/api/v1/audit-events/{theirs.pk}/").status_code == 200


@pytest.mark.any_engine
def test_keys_need_the_audit_scope(history):
    assert bearer(issue(history.support, "read").secret).get("/api/v1/audit-events/").status_code == 403
    seen = listed(bearer(issue(history.support, "audit").secret))
    assert "service_key.revoked" in seen
    assert signed_in(history.bob).get("/api/v1/audit-events/").status_code == 403


@pytest.mark.any_engine
def test_nothing_changes_through_any_method(history):
    client = signed_in(history.root)
    sequence = last_sequence()
    with no_event():
        for method in ("post", "put", "patch", "delete"):
            call = getattr(client, method)
            assert call("/api/v1/audit-events/", content_type="application/json").status_code == 405
            assert (
                call(f"/api/v1/audit-events/{sequence}/", content_type="application/json").status_code == 405
            )
        assert client.post("/admin/audit/event/add/", {}).status_code == 403
        assert client.post(f"/admin/audit/event/{sequence}/change/", {"reason": "x"}).status_code == 403
        assert client.post(f"/admin/audit/event/{sequence}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.any_engine
def test_the_pages_show_it_in_words(history):
    client = signed_in(history.dan)
    page = client.get("/admin/audit/event/")
    assert page.status_code == 200
    assert "rpm: nothing → 60" in page.content.decode()
    event = Event.objects.get(action="service_key.changed")
    detail = client.get(f"/admin/audit/event/{event.pk}/change/").content.decode()
    assert "rpm: nothing → 60" in detail
    assert event.hash in detail
    assert f"/admin/access/servicekey/{history.key.pk}/change/" in detail
    assert 'name="_save"' not in detail
    for query in (
        "?q=laptop",
        "?q=alice",
        "?action=service_key.changed",
        "?at_from_0=2020-01-01",
        "?p=99",
        "?o=-1.3",
    ):
        assert client.get(f"/admin/audit/event/{query}").status_code == 200, query


@pytest.mark.any_engine
def test_what_a_person_wrote_is_shown_as_text(history):
    services.update_project(
        acting(history.alice), project=history.support, name='<script>alert("x")</script>'
    )
    event = Event.objects.first()
    client = signed_in(history.root)
    for address in ("/admin/audit/event/", f"/admin/audit/event/{event.pk}/change/"):
        assert '<script>alert("x")' not in client.get(address).content.decode()


def test_the_selector_finds_by_person_action_object_and_time(history):
    assert selectors.events(actor_id=str(history.alice.pk)).count() == 1
    assert selectors.events(actor_id=str(history.bob.pk), action="service_key.").count() == 2
    assert selectors.events(object_id=str(history.key.pk), object_type="access.servicekey").count() == 3
    changed = Event.objects.get(action="service_key.changed")
    assert selectors.events(since=changed.at, until=changed.at).count() == 0
    assert [event.pk for event in selectors.in_order(first=2, last=4, chunk=1)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (None, {"name": "a", "tags": []}, ["name: “a”", "tags: nothing"]),
        ({"rpm": 1}, {"rpm": None}, ["rpm: 1 → nothing"]),
        ({"hard": False}, {"hard": True}, ["hard: no → yes"]),
        ({"same": 1, "left": 2}, {"same": 1, "new": [1, "x"]}, ["left: was 2", "new: 1, “x”"]),
        ({"gone": "x"}, None, ["gone: was “x”"]),
        (None, None, []),
        ({}, {}, []),
        ({"map": {}}, {"map": {"a": [None]}}, ["map: nothing → {a: nothing}"]),
        (None, {"long": "x" * 500}, ["long: “" + "x" * 120 + "…”"]),
    ],
)
def test_changes_in_words(before, after, lines):
    assert wording.changes(before, after) == lines
