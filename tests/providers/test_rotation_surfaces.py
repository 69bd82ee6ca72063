"""A rotation by its pages, by the API and by the command."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from llmops.providers import services
from llmops.providers.models import Rotation
from tests import configuring
from tests.cast import bearer, one_event, signed_in
from tests.providers.answering import answer
from tests.providers.test_credentials import whole_database
from tests.providers.test_rotations import NEW, OLD, a_data_plane

pytestmark = pytest.mark.django_db


def test_the_pages_lead_through_it(cast, answering):
    server = answering()
    sim = configuring.provider(base_url=server.url)
    old = configuring.credential(sim, secret=OLD, activate=True)
    alice = signed_in(cast.alice)
    form = {
        "source": "sealed",
        "secret": NEW,
        "reference": "",
        "keep_minutes": 15,
        "deadline_hours": 24,
        "by_itself": "on",
    }
    address = f"/admin/providers/credential/{old.pk}/rotate/"
    server.script = answer(401)
    refused = alice.post(address, form)
    assert refused.status_code == 200
    assert "Nothing was changed" in refused.content.decode()
    assert NEW not in refused.content.decode()
    server.script = answer(200)
    with one_event("rotation.staged"):
        begun = alice.post(address, form)
    rotation = Rotation.objects.get()
    assert begun["Location"] == f"/admin/providers/rotation/{rotation.pk}/change/"
    page = alice.get(begun["Location"]).content.decode()
    assert 'aria-current="step"' in page
    assert "Use the new key" in page
    assert "Revoke the old key" not in page.split("Where this rotation stands")[0]
    assert NEW not in page
    assert server.asked[-1][2]["Authorization"] == f"Bearer {NEW}"
    with one_event("rotation.activated"):
        assert (
            alice.post(f"/admin/providers/rotation/{rotation.pk}/activate/", {"reason": ""}).status_code
            == 302
        )
    services.report_uses({str(old.pk): (7, 0)}, process=a_data_plane("gateway-9").pk, host="gateway-9")
    page = alice.get(begun["Location"]).content.decode()
    assert "7 calls under way" in page
    assert "gateway-9" in page
    blocked = alice.post(f"/admin/providers/rotation/{rotation.pk}/finish/", {"reason": ""}).content.decode()
    assert "still used: 7 calls under way" in blocked
    with one_event("rotation.returned"):
        alice.post(f"/admin/providers/rotation/{rotation.pk}/take-back/", {"reason": "slower"})
    everything = whole_database()
    assert "rotation.returned" in everything
    assert OLD not in everything
    assert NEW not in everything
    overview = [finding.text for finding in alice.get("/").context["view"].verdict.findings]
    assert any("rotation of sim/primary was taken back: slower" in text for text in overview), overview
    assert "Key rotation" not in signed_in(cast.carla).get("/").content.decode()


def test_the_api_does_the_same(cast, answering):
    server = answering()
    sim = configuring.provider(base_url=server.url)
    old = configuring.credential(sim, secret=OLD, activate=True)
    from llmops.access.rules import SCOPES
    from tests.cast import issue

    client = bearer(issue(cast.support, *SCOPES).secret)

    def post(where: str, **body: Any) -> Any:
        return client.post(f"/api/v1/rotations/{where}", body, content_type="application/json")

    server.script = answer(401)
    refused = post("", credential=str(old.pk), secret=NEW)
    assert (refused.status_code, Rotation.objects.count()) == (422, 0)
    assert "Nothing was changed" in refused.content.decode()
    server.script = answer(200)
    made = post("", credential=str(old.pk), secret=NEW)
    assert made.status_code == 201, made.content
    assert NEW not in made.content.decode()
    one = made.json()
    assert (one["state"], one["remaining"]) == ("staged", None)
    used = post(f"{one['id']}/activate/")
    assert used.json()["state"] == "draining"
    assert used.json()["remaining"]["drained"] is True
    assert post(f"{one['id']}/cancel/").status_code == 409
    assert post(f"{one['id']}/finish/").json()["state"] == "done"
    listed = client.get("/api/v1/rotations/?state=done").json()
    assert [row["id"] for row in listed["results"]] == [one["id"]]


def test_the_command_does_the_same(answering, monkeypatch):
    server = answering()
    configuring.credential(configuring.provider(base_url=server.url), secret=OLD, activate=True)
    monkeypatch.setattr("sys.stdin", StringIO(NEW + "\n"))

    def run(*words: str) -> str:
        out = StringIO()
        call_command("rotate", *words, stdout=out)
        return out.getvalue()

    said = run("begin", "sim/primary", "--secret-stdin", "--activate", "--reason", "monthly")
    assert "New key in use" in said
    assert NEW not in said
    assert "still used: nothing" in run("show", "sim/primary")
    assert "Done, old key revoked" in run("finish", "sim/primary")
    assert "Done" in run("show", "sim/primary")
    with pytest.raises(CommandError, match="not being rotated"):
        run("finish", "sim/primary")
    with pytest.raises(CommandError, match="no provider key"):
        run("begin", "sim/none", "--reference", "env:X")
    server.script = answer(401)
    monkeypatch.setenv("ANOTHER_KEY", NEW + "z")
    with pytest.raises(CommandError, match="Nothing was changed"):
        run("begin", "sim/primary", "--reference", "env:ANOTHER_KEY")
