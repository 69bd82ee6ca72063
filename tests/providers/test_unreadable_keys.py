"""A key that data planes cannot read is seen where one looks: its page, the list, the API, Overview; and by nobody else."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from llmops.base.clock import database_now
from llmops.providers import services
from llmops.providers.models import CredentialTrouble
from tests import configuring
from tests.cast import COMMAND, bearer, every_scope, no_event, person, signed_in

pytestmark = pytest.mark.django_db
REASON = "The environment variable OPENAI_KEY is not set in this process. <b>Set it</b>."


@pytest.fixture
def key(cast):
    made = configuring.credential(source="env", reference="OPENAI_KEY", activate=True)
    with no_event():
        services.report_unreadable({str(made.pk): REASON}, process=uuid4(), host="gateway-1")
    return made


@pytest.mark.any_engine
def test_on_its_page_and_in_the_list(cast, key):
    alice = signed_in(cast.alice)
    page = alice.get(f"/admin/providers/credential/{key.pk}/change/").content.decode()
    assert "gateway-1" in page and "OPENAI_KEY is not set" in page
    assert "<b>Set it" not in page and "&lt;b&gt;Set it" in page
    assert "cannot read it" in alice.get("/admin/providers/credential/").content.decode()
    CredentialTrouble.objects.update(seen_at=database_now() - timedelta(minutes=2))
    assert "gateway-1" not in alice.get(f"/admin/providers/credential/{key.pk}/change/").content.decode()
    assert "cannot read it" not in alice.get("/admin/providers/credential/").content.decode()


def test_the_list_takes_no_query_for_each_key(cast, key, django_assert_max_num_queries):
    alice = signed_in(cast.alice)
    for number in range(12):
        made = configuring.credential(
            name=f"more{number}", source="env", reference="OPENAI_KEY", activate=True
        )
        services.report_unreadable({str(made.pk): REASON}, process=uuid4(), host="gateway-1")
    client = bearer(every_scope(cast.support).secret)
    with django_assert_max_num_queries(40):
        assert client.get("/api/v1/credentials/").status_code == 200
    with django_assert_max_num_queries(40):
        assert alice.get("/admin/providers/credential/").status_code == 200


@pytest.mark.any_engine
def test_in_the_api(cast, key):
    client = bearer(every_scope(cast.support).secret)
    [shown] = client.get("/api/v1/credentials/").json()["results"]
    assert [(one["host"], one["reason"]) for one in shown["troubles"]] == [("gateway-1", REASON)]
    assert client.get(f"/api/v1/credentials/{key.pk}/").json()["troubles"] == shown["troubles"]
    services.drain_credential(COMMAND, credential=key)
    services.revoke_credential(COMMAND, credential=key)
    assert client.get(f"/api/v1/credentials/{key.pk}/").json()["troubles"] == []


@pytest.mark.any_engine
def test_in_the_verdict_of_overview(cast, key):
    page = signed_in(cast.alice).get("/")
    view = page.context["view"]
    assert view.verdict.level == "bad"
    [finding] = view.findings
    assert "sim/primary cannot be read by a data plane" in finding.text and "OPENAI_KEY" in finding.text
    assert finding.href == f"/admin/providers/credential/{key.pk}/change/"
    configuring.credential(key.provider, name="fine", activate=True)
    assert signed_in(cast.alice).get("/").context["view"].verdict.level == "warn"
    # Variables and files of hosts are not for those who may not see provider keys.
    for other in (cast.dan, cast.charlie):
        assert "OPENAI_KEY" not in signed_in(other).get("/").content.decode()


@pytest.mark.any_engine
def test_what_is_paused_is_in_the_verdict(cast):
    sim, _, chat = configuring.everything()
    services.pause_route(COMMAND, route=chat, reason="wrong <answers>")
    services.degrade_route(COMMAND, route=chat, reason="slow")
    services.pause_provider(COMMAND, provider=sim, reason="an outage")
    page = signed_in(cast.alice).get("/")
    findings = {finding.text: finding.href for finding in page.context["view"].findings}
    assert findings == {
        "Provider sim is paused: an outage": f"/admin/providers/provider/{sim.pk}/change/",
        "Route chat is paused: wrong <answers>": f"/admin/providers/route/{chat.pk}/change/",
        "Route chat is degraded: slow": f"/admin/providers/route/{chat.pk}/change/",
    }
    assert "wrong &lt;answers&gt;" in page.content.decode()
    assert page.context["view"].verdict.level == "warn"
    # Whoever operates any project needs to know; who has no role learns nothing.
    assert "is paused: an outage" in signed_in(cast.charlie).get("/").content.decode()
    assert "is paused" not in signed_in(person("nobody")).get("/").content.decode()
    services.resume_route(COMMAND, route=chat)
    services.recover_route(COMMAND, route=chat)
    services.resume_provider(COMMAND, provider=sim)
    assert signed_in(cast.alice).get("/").context["view"].findings == []


def test_a_report_takes_back_what_is_over_and_knows_no_strangers(key):
    process = uuid4()
    services.report_unreadable(
        {str(key.pk): "x" * 2000, str(uuid4()): "gone"}, process=process, host="h" * 400
    )
    assert CredentialTrouble.objects.filter(process=process).count() == 1
    assert len(CredentialTrouble.objects.get(process=process).reason) == 500
    services.report_unreadable({}, process=process, host="h")
    assert CredentialTrouble.objects.exclude(process=process).count() == 1
    assert not CredentialTrouble.objects.filter(process=process).exists()
