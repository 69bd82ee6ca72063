"""Switches that are felt at once: keys that are paused, fallbacks only, no batch work."""

from __future__ import annotations

import time

import pytest

from llmops.access import services as access
from llmops.core.errors import AuthenticationFailed, Conflict, InvalidRequest, PermissionDenied
from llmops.gateway.auth import authenticate
from llmops.providers import services as providers
from llmops.serving import services
from llmops.serving.models import OrganisationSwitch
from llmops.serving.selectors import load_snapshot
from llmops.serving.switches import DEGRADE, HOLD_BATCH
from tests import configuring
from tests.cast import no_event, one_event, signed_in
from tests.configuring import OPERATOR

pytestmark = pytest.mark.django_db


def said(secret):
    return authenticate(load_snapshot(), f"Bearer {secret}".encode(), time.time())


def test_a_paused_key_is_told_why_until_it_is_resumed(cast):
    issued = access.create_service_key(OPERATOR, project=cast.support, name="a")
    assert said(issued.secret).name == "a"
    with pytest.raises(InvalidRequest, match="say why"), no_event():
        access.pause_service_key(OPERATOR, key=issued.key, reason=" ")
    with one_event("service_key.paused"):
        access.pause_service_key(OPERATOR, key=issued.key, reason="it loops")
    with pytest.raises(PermissionDenied, match="paused by an operator: it loops") as refused:
        said(issued.secret)
    assert refused.value.code == "key_paused"
    with pytest.raises(Conflict, match="already paused"), no_event():
        access.pause_service_key(OPERATOR, key=issued.key, reason="again")
    # Its earlier secret is as paused, and one that is unknown learns nothing.
    rotated = access.rotate_service_key(OPERATOR, key=issued.key)
    for secret in (issued.secret, rotated.secret):
        with pytest.raises(PermissionDenied):
            said(secret)
    with pytest.raises(AuthenticationFailed):
        said(issued.secret + "x")
    with one_event("service_key.resumed"):
        access.resume_service_key(OPERATOR, key=issued.key)
    assert said(issued.secret).replaced
    assert said(rotated.secret).name == "a"
    access.revoke_service_key(OPERATOR, key=issued.key)
    with pytest.raises(AuthenticationFailed):
        said(rotated.secret)


def test_fallbacks_only_leaves_alone_what_has_nothing_else(cast):
    small, spare = configuring.model("small"), configuring.model("spare")
    configuring.route("both", small, fallbacks=(spare,))
    configuring.route("alone", small)
    own = configuring.route("own", small, fallbacks=(spare,))
    providers.degrade_route(OPERATOR, route=own, reason="its own")
    services.publish(OPERATOR, reason="one")
    assert load_snapshot().live.degraded_routes == {"own": "its own"}
    with one_event("switch.turned_on"):
        services.switch_on(OPERATOR, name=DEGRADE, reason="the provider is down")
    assert load_snapshot().live.degraded_routes == {"both": "the provider is down", "own": "its own"}
    with pytest.raises(Conflict, match="on already"), no_event():
        services.switch_on(OPERATOR, name=DEGRADE, reason="again")
    with one_event("switch.turned_off"):
        services.switch_off(OPERATOR, name=DEGRADE)
    assert load_snapshot().live.degraded_routes == {"own": "its own"}
    for wrong in ({"name": "teleport", "reason": "x"}, {"name": DEGRADE, "reason": ""}):
        with pytest.raises(InvalidRequest), no_event():
            services.switch_on(OPERATOR, **wrong)


def test_no_batch_work_refuses_batch_keys_alone(cast):
    people = access.create_service_key(OPERATOR, project=cast.support, name="people")
    batch = access.create_service_key(OPERATOR, project=cast.support, name="batch", priority="batch")
    services.switch_on(OPERATOR, name=HOLD_BATCH, reason="for people")
    assert said(people.secret).name == "people"
    with pytest.raises(PermissionDenied, match="for people"):
        said(batch.secret)
    services.switch_off(OPERATOR, name=HOLD_BATCH)
    assert said(batch.secret).name == "batch"


@pytest.mark.any_engine
def test_the_page_shows_who_paused_what_and_why_and_resumes_it_in_one_click(cast):
    _, _, chat = configuring.everything()
    alice, bob = signed_in(cast.alice), signed_in(cast.bob)
    key = access.create_service_key(OPERATOR, project=cast.support, name="looping").key
    foreign = access.create_service_key(OPERATOR, project=cast.search, name="foreign").key
    with one_event("route.paused"):
        alice.post("/switches/", {"what": f"route-paused:{chat.pk}", "to": "on", "reason": "a bad answer"})
    with one_event("service_key.paused"):
        bob.post("/switches/", {"what": f"servicekey-paused:{key.pk}", "to": "on", "reason": "it loops"})
    page = bob.get("/switches/").content.decode()
    for words in ("a bad answer", "it loops", ">alice<", ">bob<"):
        assert words in page
    # Overview says so, and leads to what it is about.
    overview = alice.get("/").content.decode()
    assert "Service key looping is paused: it loops" in overview
    with no_event():
        assert bob.post("/switches/", {"what": f"route-paused:{chat.pk}", "to": "off"}).status_code == 403
        assert bob.post("/switches/", {"what": "organisation:degrade", "reason": "x"}).status_code == 403
        there = bob.post("/switches/", {"what": f"servicekey-paused:{foreign.pk}", "reason": "x"})
        assert there.status_code == 400
        assert "foreign" not in there.content.decode()
        for wrong in (
            {"what": "nothing"},
            {"what": "route-paused:x"},
            {"what": f"servicekey-paused:{key.pk}", "to": "on"},
        ):
            assert alice.post("/switches/", wrong).status_code == 400
    with one_event("route.resumed"):
        alice.post("/switches/", {"what": f"route-paused:{chat.pk}", "to": "off"})
    with one_event("switch.turned_on"):
        alice.post("/switches/", {"what": "organisation:degrade", "to": "on", "reason": "all is slow"})
    assert OrganisationSwitch.objects.get().by == "alice"
    assert "Switch Fallbacks only is on: all is slow" in alice.get("/").content.decode()
