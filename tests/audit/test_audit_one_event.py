"""The Audit pages: one event with all that is known of it."""

from __future__ import annotations

import json
import re

import pytest
from django.test import Client

from llmops.access import services
from llmops.audit.models import Event
from llmops.audit.services import as_exported
from llmops.dashboards.trail.difference import MOST_LINES, differences
from tests.audit.trail import write
from tests.cast import COMMAND, PASSWORD, acting, signed_in

pytestmark = pytest.mark.django_db


def test_an_event_says_who_from_where_what_and_its_place(told):
    agent = "Mozilla/5.0 (X11; Linux) <b>Fire</b>"
    client = signed_in(told.alice, headers={"user-agent": agent})
    client.patch(
        f"/api/v1/service-keys/{told.key.pk}/", {"rpm": 7}, content_type="application/json", headers={"user-agent": agent}
    )  # fmt: skip
    event = Event.objects.first()
    assert event.origin == {"agent": agent, "session": str(told.alice.sign_ins.get().pk)}
    page = signed_in(told.root).get(f"/audit/{event.pk}/").content.decode()
    for shown in (
        "rpm: 60 → 7", "alice", "127.0.0.1", "Mozilla/5.0 (X11; Linux) &lt;b&gt;Fire", event.request_id, event.hash,
        event.prev_hash, f"/admin/access/servicekey/{told.key.pk}/change/", "/audit/?kind=access.servicekey&amp;object=",
    ):  # fmt: skip
        assert shown in page, shown
    assert re.search(r'class="before">.*60.*class="after">', page, re.S)


def test_a_session_is_named_by_its_place_on_record_and_never_by_its_key(cast):
    services.set_password(COMMAND, user=cast.bob, password=PASSWORD)
    client = Client()
    client.post("/admin/login/", {"username": "bob", "password": PASSWORD})
    signed = Event.objects.first()
    assert signed.action == "session.signed_in"
    row = cast.bob.sign_ins.get()
    assert signed.origin["session"] == str(row.pk)
    client.post("/account/sessions/end-others/")
    later = Event.objects.first()
    assert (later.action, later.origin["session"]) == ("session.others_ended", str(row.pk))
    whole = json.dumps([as_exported(one) for one in Event.objects.all()])
    assert row.session_key not in whole
    assert client.session.session_key not in whole


def test_neighbours_of_the_same_object_and_request_are_linked(told):
    same = acting(told.bob).from_request(ip="", request_id="req_both")
    first, second = write(2, actor=same)
    services.update_service_key(acting(told.alice), key=told.key, rpm=61)
    changes = list(Event.objects.filter(object_id=str(told.key.pk)).order_by("sequence"))
    root = signed_in(told.root)
    middle = root.get(f"/audit/{changes[1].pk}/").content.decode()
    assert f'href="/audit/{changes[0].pk}/"' in middle and f'href="/audit/{changes[2].pk}/"' in middle
    page = root.get(f"/audit/{first.pk}/").content.decode()
    assert f'href="/audit/{second.pk}/"' in page


@pytest.mark.any_engine
def test_every_page_of_an_object_leads_to_its_history(told):
    history = f"/admin/access/servicekey/{told.key.pk}/history/"
    trail = f"/audit/?kind=access.servicekey&amp;object={told.key.pk}"
    assert trail in signed_in(told.root).get(history).content.decode()
    # Bob may look at the key, and not into the trail.
    assert trail not in signed_in(told.bob).get(history).content.decode()


def test_differences_are_by_line_and_bounded():
    [name, text] = differences(
        {"name": "a", "text": "one\ntwo\nthree"}, {"name": "a", "text": "one\n2\nthree"}
    )
    assert [(piece.sign, piece.text) for piece in name.pieces] == [(" ", "a")]
    assert [(piece.sign, piece.text) for piece in text.pieces] == [
        (" ", "one"), ("-", "two"), ("+", "2"), (" ", "three"),
    ]  # fmt: skip
    [long] = differences({"text": "x\n" * 9000}, {"text": "y" * 100_000})
    assert long.cut and len(long.pieces) <= 2 * MOST_LINES
    [nested] = differences(None, {"targets": [{"model": "m", "weight": 1}]})
    assert {piece.sign for piece in nested.pieces} == {"+"}
    assert differences(None, None) == []
