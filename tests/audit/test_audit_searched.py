"""The Audit pages: finding events."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from llmops.access import services
from llmops.audit import searching
from llmops.audit.models import Event
from llmops.core.actors import Actor
from tests.audit.trail import numbers, write
from tests.cast import COMMAND, acting, person, signed_in

pytestmark = pytest.mark.django_db


def test_events_are_found_by_object_person_action_address_request_and_time(told):
    client = signed_in(told.root)
    bob = acting(told.bob).from_request(ip="192.0.2.7", request_id="req_seven")
    services.revoke_service_key(bob, key=told.key, reason="a laptop was lost")
    revoked = Event.objects.first()

    def actions(query):
        page = client.get(f"/audit/{query}")
        assert page.status_code == 200
        found = {event.pk: event.action for event in Event.objects.all()}
        return [found[number] for number in numbers(page)]

    key = ["service_key.revoked", "service_key.changed", "service_key.created"]
    assert actions(f"?kind=access.servicekey&object={told.key.pk}") == key
    assert actions("?ip=192.0.2.7") == actions("?request=req_seven") == ["service_key.revoked"]
    assert actions("?who=alice") == ["service_key.changed"]
    assert actions("?who=bob&action=service_key.") == ["service_key.revoked", "service_key.created"]
    assert actions(f"?who=bob&project={told.search.pk}") == []
    assert actions("?action=service_key.changed") == ["service_key.changed"]
    assert set(actions("?action=project.")) == {"project.created"}
    assert actions("?action=service.") == actions("?who=nobody-here") == []
    later = (revoked.at + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert actions(f"?from={later}") == []
    assert actions("?to=2020-01-01T00:00Z") == []
    assert len(actions(f"?to={later}")) == Event.objects.count()


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "text",
    ["ci", "ci ({prefix})", "{prefix}", "{prefix}…", "{pk}"],
)
def test_a_key_is_found_by_what_events_and_pages_call_it(told, text):
    key = told.key
    client = signed_in(told.root)
    [event] = write(actor=Actor("service_key", str(key.pk), f"ci ({key.prefix})"))
    found = numbers(client.get("/audit/", {"who": text.format(prefix=key.prefix, pk=key.pk)}))
    assert found[0] == event.pk


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("actor", "said"),
    [
        (
            Actor("command", "apply", "root (manage.py apply)"),
            ["apply", "root (manage.py apply)", "manage.py apply"],
        ),
        (Actor("job", "access.reseal", "job access.reseal"), ["access.reseal", "job access.reseal"]),
    ],
)
def test_commands_and_jobs_are_found_by_name(told, actor, said):
    [event] = write(actor=actor)
    for text in said:
        assert numbers(signed_in(told.root).get("/audit/", {"who": text})) == [event.pk], text


@pytest.mark.parametrize(
    "query", ["", "?action=thing.changed", "?action=thing.", "?project={project}", "?who=test"]
)
def test_pages_follow_one_another_without_a_gap_or_a_repetition(cast, query):
    write(2 * searching.PAGE + 7, project_id=cast.support.pk)
    client = signed_in(cast.root)
    address, seen, way_back = f"/audit/{query.format(project=cast.support.pk)}", [], ""
    while address:
        page = client.get(address)
        seen += numbers(page)
        links = {
            rel: href.replace("&amp;", "&")
            for href, rel in re.findall(r'href="([^"]+)" rel="(\w+)"', page.content.decode())
        }
        way_back = way_back or links.get("next", "")
        address = links.get("next")
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) >= 2 * searching.PAGE + 7
    second = numbers(client.get(way_back))
    # Back from the second page is the first, also by the way of "newer".
    newer = re.search(r'href="([^"]+)" rel="prev"', client.get(way_back).content.decode())
    assert numbers(client.get(newer[1].replace("&amp;", "&"))) == seen[: searching.PAGE]
    assert second == seen[searching.PAGE : 2 * searching.PAGE]


def test_what_a_page_asks_does_not_grow_with_the_trail(cast):
    client = signed_in(cast.root)
    write(3)
    client.get("/audit/")
    with CaptureQueriesContext(connection) as few:
        client.get("/audit/?action=thing.")
    write(200)
    with CaptureQueriesContext(connection) as many:
        client.get("/audit/?action=thing.")
    assert len(many) == len(few)
    assert len(few) < 16
    assert not [query["sql"] for query in many if "COUNT(" in query["sql"]]


@pytest.mark.parametrize(
    "search",
    [
        searching.Search(object_type="access.project", object_id="o1"),
        searching.Search(object_type="access.project"),
        searching.Search(request_id="r"),
        searching.Search(ip="192.0.2.1"),
        searching.Search(action="thing.changed"),
        searching.Search(actor_ids=["1"]),
        searching.Search(project_ids=["00000000-0000-0000-0000-000000000000"]),
    ],
)
def test_every_way_to_look_has_an_index_in_the_order_of_the_pages(search):
    [rows] = searching._branches(search)
    plan = rows.order_by("-sequence").values_list("sequence", flat=True)[:51].explain()
    if connection.vendor == "sqlite":
        assert "USING" in plan and "TEMP B-TREE" not in plan, plan
        assert "audit_event_" in plan, plan


def test_a_clock_that_was_set_back_hides_no_event(cast):
    first, second, third = write(3)
    # Recorded second, but by a clock that was half an hour behind by then.
    before = second.at - timedelta(minutes=30)
    found = searching.page(searching.Search(since=before)).events
    assert {one.pk for one in (first, second, third)} <= {one.pk for one in found}


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "query",
    [
        "?from=yesterday", "?to=9999-99-99", "?from=2026-02-01T00:00Z&to=2026-01-01T00:00Z", "?project=7",
        "?before=99999999999999999999", "?after=-1", "?who=" + "x" * 300, "?action=x.%C2%80", "?kind=%F0%9F%92%A5", "?before=x",
        "?object=%27%3B--", "?from=0001-01-01T00:00+14:00",
    ],
)  # fmt: skip
def test_an_address_that_makes_no_sense_still_opens(cast, query):
    page = signed_in(cast.root).get(f"/audit/{query}")
    assert page.status_code == 200


@pytest.mark.any_engine
def test_an_empty_result_says_what_to_do(cast):
    assert "clear the filters" in signed_in(cast.root).get("/audit/?who=nobody-here").content.decode()
    nothing = person("nora", ("auditor", services.create_project(COMMAND, slug="quiet")))
    created = Event.objects.first()
    assert numbers(signed_in(nothing).get("/audit/")) == [created.pk]


@pytest.mark.any_engine
def test_an_auditor_of_one_project_finds_that_project_only(told):
    dan = signed_in(told.dan)
    page = dan.get("/audit/").content.decode()
    assert "ranker" not in page and "ci" in page
    theirs = Event.objects.get(object_id=str(told.foreign.pk))
    assert numbers(dan.get(f"/audit/?object={told.foreign.pk}")) == []
    assert numbers(dan.get(f"/audit/?project={told.search.pk}")) == []
    assert dan.get(f"/audit/{theirs.pk}/").status_code == 404
    assert dan.get("/audit/99999999999999999999/").status_code == 404
    # Those of both projects, and no neighbour of the others.
    services.add_member(COMMAND, user=told.dan, project=told.search, role="auditor")
    assert numbers(signed_in(told.dan).get("/audit/?action=service_key.created")) == [
        theirs.pk,
        Event.objects.get(object_id=str(told.key.pk), action="service_key.created").pk,
    ]
