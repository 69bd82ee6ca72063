"""Revisions in the API and the admin: what would change is seen before it does."""

from __future__ import annotations

import re

import pytest
from django.utils import timezone

from llmops.access import services as access
from llmops.providers import services as providers
from llmops.providers.models import Route
from llmops.serving import services
from llmops.serving.models import Revision
from llmops.serving.selectors import live_revision
from tests import configuring
from tests.cast import bearer, every_scope, no_event, one_event, signed_in
from tests.configuring import OPERATOR
from tests.kept import kept

pytestmark = pytest.mark.django_db

PAGE = "/admin/serving/revision"


@kept
def two_revisions():
    _, _, chat = configuring.everything()
    services.publish(OPERATOR, reason="one")
    providers.update_route(OPERATOR, route=chat, changes={"attempts": 7})
    services.publish(OPERATOR, reason="two")
    return chat


def shown(person, action="publish"):
    """What the page carries of what it shows."""
    page = person.get(f"{PAGE}/{action}/").content.decode()
    return dict(re.findall(r'<input type="hidden" name="(expected_\w+|as_of)" value="(\w*)">', page))


@pytest.mark.any_engine
def test_the_api_lists_publishes_and_restores(cast, two_revisions):
    client = bearer(every_scope(cast.support).secret)
    listed = client.get("/api/v1/revisions/").json()["results"]
    assert [(row["number"], row["live"], row["changes"]) for row in listed] == [
        (2, True, ["route chat: attempts 3 → 7"]),
        (1, False, listed[1]["changes"]),
    ]
    assert "document" not in listed[0]
    whole = client.get("/api/v1/revisions/2/").json()
    assert whole["document"]["routes"][0]["attempts"] == 7
    pending = client.get("/api/v1/revisions/pending/").json()
    assert (pending["live"], pending["changes"], pending["publishable"]) == (2, [], False)
    with no_event():
        nothing = client.post("/api/v1/revisions/", {"reason": "x"}, content_type="application/json")
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (409, "nothing_to_publish")
    with one_event("revision.restored"):
        back = client.post(
            "/api/v1/revisions/1/restore/",
            {"reason": "better", "expected_revision": 2},
            content_type="application/json",
        )
    assert (back.status_code, back.json()["number"], back.json()["restores"]) == (201, 3, 1)
    assert back.json()["digest"] == listed[1]["digest"]


@pytest.mark.any_engine
def test_the_api_lists_what_keeps_it_from_publishing(cast):
    configuring.route("empty")
    client = bearer(every_scope(cast.support).secret)
    with no_event():
        refused = client.post("/api/v1/revisions/", {"reason": "x"}, content_type="application/json")
    assert refused.status_code == 422
    assert refused.json()["error"]["data"]["problems"] == [
        {
            "code": "no_targets",
            "kind": "route",
            "slug": "empty",
            "field": "targets",
            "message": "Route empty has no target.",
        }
    ]


def test_revisions_cannot_be_changed_through_any_door(cast, two_revisions):
    client = bearer(every_scope(cast.support).secret)
    person = signed_in(cast.root)
    with no_event():
        for method in (client.put, client.patch, client.delete):
            assert method("/api/v1/revisions/1/").status_code in (403, 405)
        assert person.post(f"{PAGE}/add/", {}).status_code == 403
        assert person.post(f"{PAGE}/1/change/", {"reason": "x"}).status_code == 403
        assert person.post(f"{PAGE}/1/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.any_engine
def test_the_publish_page_shows_what_changes_and_what_is_wrong_with_links(cast, two_revisions):
    person = signed_in(cast.alice)
    empty = configuring.route("empty")
    unpriced = configuring.model("unpriced")
    with no_event():
        page = person.get(f"{PAGE}/publish/").content.decode()
    assert "What changes against revision 2" in page
    assert "route <b>empty</b>" in page
    assert "Added: no target" in page
    assert f'href="/admin/providers/route/{empty.pk}/change/#field-targets"' in page
    assert f'href="/admin/providers/model/{unpriced.pk}/change/"' in page
    with no_event():
        refused = person.post(f"{PAGE}/publish/", {"reason": "try", **shown(person)})
    assert "Route empty has no target" in refused.content.decode()
    providers.archive_route(OPERATOR, route=empty)
    with one_event("revision.published") as seen:
        assert person.post(f"{PAGE}/publish/", {"reason": "now", **shown(person)}).status_code == 302
    assert seen.event.actor_name == "alice"
    assert live_revision().reason == "now"


@pytest.mark.any_engine
def test_a_problem_of_a_project_leads_to_the_project(cast, two_revisions):
    access.update_project(OPERATOR, project=cast.support, default_route="chat")
    # An archived route cannot be a default route; a project that comes back may bring one along.
    Route.objects.filter(slug="chat").update(archived_at=timezone.now())
    page = signed_in(cast.alice).get(f"{PAGE}/publish/").content.decode()
    assert f'href="/admin/access/project/{cast.support.pk}/change/#field-default_route"' in page
    assert "sends requests that name no model to the route chat" in page


def test_what_was_looked_at_is_what_is_replaced(cast, two_revisions):
    person = signed_in(cast.alice)
    page = person.get(f"{PAGE}/publish/").content.decode()
    assert 'name="expected_revision" value="2"' in page
    looked = shown(person)
    providers.update_route(OPERATOR, route=two_revisions, changes={"attempts": 9})
    services.publish(OPERATOR, reason="meanwhile")
    providers.update_route(OPERATOR, route=two_revisions, changes={"attempts": 8})
    with no_event():
        refused = person.post(f"{PAGE}/publish/", {"reason": "mine", **looked})
    assert "Revision 3 is live by now" in refused.content.decode()
    with no_event():
        assert person.post(f"{PAGE}/publish/", {"reason": "mine"}).status_code == 200
        assert person.post(f"{PAGE}/publish/", {"expected_revision": "3"}).status_code == 200


@pytest.mark.any_engine
def test_one_click_back(cast, two_revisions):
    person = signed_in(cast.alice)
    page = person.get(f"{PAGE}/1/restore/").content.decode()
    assert "route <b>chat</b>" in page
    assert "Attempts 7 → 3" in page
    # Read as a table as well: before, and after.
    assert "<del>7</del>" in page
    assert "<ins>3</ins>" in page
    with one_event("revision.restored"):
        assert (
            person.post(
                f"{PAGE}/1/restore/", {"reason": "it was better", **shown(person, "1/restore")}
            ).status_code
            == 302
        )
    assert live_revision().digest == Revision.objects.get(number=1).digest
    listed = person.get(f"{PAGE}/").content.decode()
    assert "1 unpublished change" in listed


@pytest.mark.any_engine
def test_who_may_publish(cast, two_revisions):
    for who, looks in (("bob", True), ("dan", True), ("carla", False), ("rita", False)):
        person = signed_in(getattr(cast, who))
        assert (person.get(f"{PAGE}/").status_code == 200) == looks
        assert (person.get(f"{PAGE}/1/change/").status_code == 200) == looks
        with no_event():
            assert (
                person.post(f"{PAGE}/publish/", {"reason": "x", "expected_revision": "2"}).status_code == 403
            )
            assert person.post(
                f"{PAGE}/1/restore/", {"reason": "x", "expected_revision": "2"}
            ).status_code in (403, 404)
