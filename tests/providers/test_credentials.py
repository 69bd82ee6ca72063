"""Provider keys go in and never come out: not in rows, events, answers, pages, logs, texts of objects or tracebacks."""

from __future__ import annotations

import json
import logging
import traceback

import pytest
from django.apps import apps
from django.db import connection

from llmops.base.crypto import MasterKeys, new_master_key
from llmops.base.live import LIVE_STATE, versions
from llmops.base.master_keys import master_keys
from llmops.core.errors import ConfigurationRefused, Conflict, InvalidRequest
from llmops.providers import services
from llmops.providers.models import Credential
from llmops.providers.rules import CREDENTIAL_MOVES, CREDENTIAL_STATES
from llmops.providers.selectors import reveal, sealing_identity
from llmops.serving.selectors import load_snapshot
from llmops.serving.services import publish
from tests import configuring
from tests.cast import bearer, every_scope, no_event, one_event, signed_in
from tests.configuring import OPERATOR, secret_of
from tests.providers.answering import answer

pytestmark = pytest.mark.django_db

PLANTED = "sk-proj-PLANTED7f3a9c2e5b8d1064ZQ"
SECOND = "sk-proj-PLANTEDc4d4c0ffee000111ZQ"


def whole_database() -> str:
    """Every value of every row of every table of this project."""
    found = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            found.append(f"{table}: {cursor.fetchall()!r}")
    assert any(line.startswith("audit_event") for line in found)
    return "\n".join(found)


def test_a_sealed_key_opens_for_the_transport_and_nowhere_else():
    credential = configuring.credential(secret=PLANTED)
    assert secret_of(credential) == PLANTED
    assert PLANTED not in repr(credential)
    assert PLANTED not in str(credential.__dict__)
    assert PLANTED not in whole_database()


def test_a_sealed_key_does_not_open_in_another_row():
    mine = configuring.credential(secret=PLANTED)
    other = configuring.credential(name="other", secret=SECOND)
    Credential.objects.filter(pk=other.pk).update(sealed=mine.sealed)
    with pytest.raises(ConfigurationRefused) as refused:
        secret_of(other)
    assert PLANTED not in str(refused.value)


def test_a_key_sealed_under_a_master_key_that_is_gone_is_left_out_of_the_snapshot_by_its_id():
    credential = configuring.credential(secret=PLANTED, activate=True)
    configuring.credential(name="other", secret=SECOND, activate=True)
    gone = MasterKeys.parse(new_master_key("gone"))
    sealed = gone.seal(PLANTED, identity=sealing_identity(credential.pk))
    Credential.objects.filter(pk=credential.pk).update(sealed=sealed)
    snapshot = load_snapshot()
    assert [entry.secret for entry in snapshot.live.credentials["sim"]] == [SECOND]
    assert len(snapshot.problems) == 1
    assert "'gone'" in snapshot.problems[0]
    assert PLANTED not in snapshot.problems[0]


def test_every_way_in_keeps_the_key_out_of_every_way_out(cast, answering, caplog, settings):
    """The one test to break: a key goes through every door, then everything that can be looked at is searched."""
    caplog.set_level(logging.DEBUG)
    settings.DEBUG_PROPAGATE_EXCEPTIONS = False
    server = answering()
    server.script = answer(401, json.dumps({"error": f"Incorrect API key: {PLANTED}"}).encode())
    sim = configuring.provider(base_url=server.url)
    small = configuring.model("small", sim, prices={"input": "1.00", "output": "1.00"})
    configuring.route("chat", small)
    key = every_scope(cast.support)
    client = bearer(key.secret)
    person = signed_in(cast.alice)
    seen: list[str] = []

    def look(response):
        seen.append(response.content.decode(errors="replace"))
        seen.append(str(response.headers))
        return response

    def post(where, **body):
        return look(client.post(where, body, content_type="application/json"))

    created = post("/api/v1/credentials/", provider="sim", name="one", secret=PLANTED)
    if created.status_code == 403:
        pytest.fail(created.content.decode())
    assert created.status_code == 201, created.content
    address = f"/api/v1/credentials/{created.json()['id']}"
    assert post(f"{address}/probe/").status_code == 200
    assert post(f"{address}/activate/").status_code == 409
    assert post(f"{address}/activate/", unprobed_reason="the provider is away").status_code == 200
    # Refusals, too: each names the field and repeats nothing.
    for bad in (
        {"provider": "sim", "name": "one", "secret": PLANTED},
        {"provider": "sim", "name": "two", "secret": PLANTED + "\nX: 1"},
        {"provider": "sim", "name": "two", "secret": PLANTED + "…"},
        {"provider": "sim", "name": "two", "source": "env", "reference": "A", "secret": PLANTED},
        {"provider": "nobody", "name": "two", "secret": PLANTED},
        {"provider": "sim", "name": "x" * 81, "secret": PLANTED},
        {"provider": "sim", "name": "two", "secret": PLANTED, "no_such_field": PLANTED},
        {"provider": "sim", "name": "two", "secret": [PLANTED]},
        {"provider": "sim", "name": "two", "secret": PLANTED * 400},
    ):
        assert 400 <= post("/api/v1/credentials/", **bad).status_code < 500, bad
    assert post(f"{address}/replace-secret/", secret=PLANTED[:-2] + "xy").status_code == 200
    assert post(f"{address}/replace-secret/", secret=PLANTED).status_code == 200
    form = {
        "provider": str(sim.pk),
        "name": "from-a-form",
        "source": "sealed",
        "secret": PLANTED,
        "reference": "",
    }
    assert look(person.post("/admin/providers/credential/add/", form)).status_code == 302
    # A form that is shown again does not give the key back.
    again = look(person.post("/admin/providers/credential/add/", form))
    assert again.status_code == 200
    publish(OPERATOR, reason="with keys in use")
    for page in (
        "/admin/providers/credential/",
        f"/admin/providers/credential/{created.json()['id']}/change/",
        f"/admin/providers/credential/{created.json()['id']}/history/",
        f"/admin/providers/provider/{sim.pk}/change/",
        f"/admin/providers/provider/{sim.pk}/history/",
        f"/admin/providers/credential/{created.json()['id']}/replace/",
        "/admin/serving/revision/publish/",
        "/admin/serving/revision/1/change/",
        "/admin/audit/event/",
    ):
        assert look(person.get(page)).status_code == 200, page
    for place in (
        "/credentials/",
        "/providers/",
        "/revisions/",
        "/revisions/1/",
        "/revisions/pending/",
        "/audit/",
    ):
        look(client.get(f"/api/v1{place}"))
    snapshot = load_snapshot()
    assert PLANTED in {entry.secret for entry in snapshot.live.credentials["sim"]}
    seen.append(repr(snapshot.live))
    seen.append(repr(snapshot.document))
    everything = "\n".join([*seen, caplog.text, whole_database()])
    assert "one" in everything
    assert PLANTED not in everything
    assert PLANTED[:-2] not in everything
    # A shortened form would tell as much to whoever knows the shape of a key.
    assert PLANTED[8:20] not in everything


def test_a_traceback_through_the_service_holds_no_key():
    with pytest.raises(InvalidRequest) as refused:
        configuring.credential(secret=PLANTED + " and more")
    text = "".join(traceback.format_exception(refused.value))
    assert PLANTED not in text


@pytest.mark.parametrize("mask", ["****", "sk-pr****7890", "sk-…4ZQ", "••••••••", "[redacted]"])
def test_a_mask_that_comes_back_never_replaces_the_key(mask):
    credential = configuring.credential(secret=PLANTED)
    with pytest.raises(InvalidRequest, match="mask") as refused, no_event():
        services.replace_secret(OPERATOR, credential=credential, secret=mask)
    assert refused.value.param == "secret"
    assert secret_of(credential) == PLANTED


def test_the_fingerprint_and_nothing_do_not_replace_the_key_either():
    credential = configuring.credential(secret=PLANTED)
    for text in (credential.fingerprint, "", "   "):
        with pytest.raises(InvalidRequest), no_event():
            services.replace_secret(OPERATOR, credential=credential, secret=text)
    assert secret_of(credential) == PLANTED


def test_a_reference_is_kept_as_a_reference(monkeypatch):
    monkeypatch.setenv("PLANTED_KEY", PLANTED)
    credential = configuring.credential(source="env", reference="PLANTED_KEY", activate=True)
    assert (credential.sealed, credential.fingerprint) == ("", "")
    assert reveal(credential, to=credential.provider.base_url) == PLANTED
    assert load_snapshot().live.credentials["sim"][0].secret == PLANTED
    assert PLANTED not in whole_database()


def test_a_secret_and_a_reference_exclude_each_other():
    for fields in (
        {"source": "env", "reference": "A", "secret": PLANTED},
        {"source": "sealed", "reference": "A", "secret": PLANTED},
    ):
        with pytest.raises(InvalidRequest), no_event():
            configuring.credential(**fields)


ALL_STATES = [state for state, _ in CREDENTIAL_STATES]
MOVES = {
    "active": lambda row: services.activate_credential(OPERATOR, credential=row, unprobed_reason="a test"),
    "draining": lambda row: services.drain_credential(OPERATOR, credential=row),
    "revoked": lambda row: services.revoke_credential(OPERATOR, credential=row),
}


@pytest.mark.parametrize("to", MOVES)
@pytest.mark.parametrize("state", ALL_STATES)
def test_the_states_of_a_key(state, to):
    credential = configuring.credential()
    Credential.objects.filter(pk=credential.pk).update(state=state)
    before = versions().get(LIVE_STATE, 0)
    if to in CREDENTIAL_MOVES[state]:
        with one_event():
            MOVES[to](credential)
        credential.refresh_from_db()
        assert credential.state == to
        in_use = {"active", "draining"}
        touched = versions().get(LIVE_STATE, 0) > before
        assert touched == bool({state, to} & in_use)
    else:
        with pytest.raises(Conflict), no_event():
            MOVES[to](credential)
        credential.refresh_from_db()
        assert credential.state == state
        assert versions().get(LIVE_STATE, 0) == before


def test_a_revoked_key_is_wiped_and_never_comes_back():
    credential = configuring.credential(secret=PLANTED, activate=True)
    services.revoke_credential(OPERATOR, credential=credential, reason="leaked")
    stored = Credential.objects.get(pk=credential.pk)
    assert stored.sealed == ""
    assert stored.fingerprint
    assert load_snapshot().live.credentials == {}
    for work in (services.replace_secret, services.probe_credential, services.activate_credential):
        with pytest.raises(Conflict), no_event():
            work(
                OPERATOR, credential=stored, **({"secret": SECOND} if work is services.replace_secret else {})
            )


def test_an_unprobed_key_needs_a_reason():
    credential = configuring.credential()
    with pytest.raises(Conflict, match="Probe"), no_event():
        services.activate_credential(OPERATOR, credential=credential, unprobed_reason="  ")
    with one_event("credential.activated") as seen:
        services.activate_credential(OPERATOR, credential=credential, unprobed_reason="the provider is away")
    assert seen.event.reason == "the provider is away"


def test_a_probe_that_works_makes_a_key_ready_and_one_that_fails_takes_it_back(answering):
    server = answering()
    sim = configuring.provider(base_url=server.url)
    credential = configuring.credential(sim, secret=PLANTED)
    with one_event("credential.probed") as seen:
        credential = services.probe_credential(OPERATOR, credential=credential)
    assert (credential.state, credential.last_failure) == ("probed", "")
    assert seen.event.after["works"] is True
    server.script = answer(401)
    with one_event("credential.probed"):
        credential = services.probe_credential(OPERATOR, credential=credential)
    assert credential.state == "staged"
    assert "401" in credential.last_failure
    services.activate_credential(OPERATOR, credential=credential, unprobed_reason="a test")
    with one_event("credential.probed"):
        credential = services.probe_credential(OPERATOR, credential=credential)
    assert credential.state == "active"
    with one_event("credential.probed"):
        server.script = answer(200)
        assert services.probe_credential(OPERATOR, credential=credential).last_failure == ""


def test_a_key_that_was_replaced_while_it_was_tried_is_not_called_working(answering):
    server = answering()
    sim = configuring.provider(base_url=server.url)
    credential = configuring.credential(sim, secret=PLANTED)

    another = master_keys().seal(SECOND, identity=sealing_identity(credential.pk))
    original = services.credentials.probing.probe

    def probe_and_replace(*args, **kwargs):
        outcome = original(*args, **kwargs)
        Credential.objects.filter(pk=credential.pk).update(sealed=another)
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(services.credentials.probing, "probe", probe_and_replace)
        with pytest.raises(Conflict, match="replaced"), no_event():
            services.probe_credential(OPERATOR, credential=credential)
    assert Credential.objects.get(pk=credential.pk).state == "staged"


def test_a_probe_of_a_reference_that_leads_nowhere_is_a_failure_on_record():
    credential = configuring.credential(source="env", reference="NOT_SET_ANYWHERE")
    with one_event("credential.probed"):
        credential = services.probe_credential(OPERATOR, credential=credential)
    assert "NOT_SET_ANYWHERE" in credential.last_failure


def test_a_model_of_this_room_holds_no_field_in_which_a_plain_key_would_fit_unseen():
    """Whoever adds a field for a secret has to think of sealing it."""
    names = {
        field.name
        for model in apps.get_app_config("providers").get_models()
        for field in model._meta.get_fields()
        if any(word in field.name for word in ("secret", "password", "api_key", "plain"))
    }
    assert names == set()
