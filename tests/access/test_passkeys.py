"""Passkeys as the second factor: made, used, removed; and what an attacker would send."""

from __future__ import annotations

import json
import time

import pytest
from django.test import Client

from llmops.access import passkeys, services
from llmops.access.account_views import CODE_WITHIN_S
from llmops.access.models import Passkey
from tests.access.authenticator import FLAG, Authenticator
from tests.access.test_second_factor import CODE, FACTOR, SIGN_IN, is_in, password, present, turn_on
from tests.cast import COMMAND, PASSWORD, no_event, one_event, person

pytestmark = pytest.mark.django_db
OPTIONS, ADD = "/account/passkeys/options/", "/account/passkeys/"
ASK, CHECK = "/account/code/passkey/options/", "/account/code/passkey/"
HERE = {"HTTP_HOST": "localhost:8000"}


@pytest.fixture
def eve(cast):
    return services.create_user(COMMAND, username="eve", password=PASSWORD)


def browser(user=None):
    client = Client(**HERE)
    if user is not None:
        client.force_login(user)
    return client


def post(client, address, body=None, **how):
    return client.post(address, json.dumps(body or {}), content_type="application/json", **how)


def add(client, device, name="My key", **how):
    offered = post(client, OPTIONS).json()
    return post(client, ADD, {"name": name, "credential": device.make(offered, **how)})


def holder(user, **known):
    """``user`` with a passkey, and the authenticator that has it."""
    device = Authenticator(**known)
    assert add(browser(user), device).status_code == 201
    return device


def asked(user="eve"):
    """A browser after the right password, and what its authenticator is asked to sign."""
    client = browser()
    assert password(client, user)["Location"] == CODE
    return client, post(client, ASK).json()


# The way it is meant --------------------------------------------------------------------------------------------------


def test_a_passkey_is_made_used_seen_and_removed(eve):
    device = Authenticator()
    client = browser(eve)
    with one_event("passkey.added") as seen:
        answer = add(client, device, "  My\tkey ")
    assert (answer.status_code, answer.json()) == (201, {"next": "/account/"})
    assert seen.event.after == {"name": "My key", "synced": False}
    row = Passkey.objects.get()
    assert (row.transports, row.sign_count, row.last_used_at) == (["usb"], 1, None)
    assert "My key" in client.get("/account/").content.decode()

    other, offered = asked()
    assert not is_in(other)
    assert [one["transports"] for one in offered["publicKey"]["allowCredentials"]] == [["usb"]]
    with one_event("session.signed_in") as seen:
        answer = post(other, CHECK, {"credential": device.sign(offered)})
    assert answer.status_code == 200 and answer.json()["next"] == "/"
    assert seen.event.after == {"by": "password and passkey"}
    assert is_in(other)
    row.refresh_from_db()
    assert row.sign_count == 2 and row.last_used_at is not None
    with one_event("passkey.removed"):
        assert other.post(f"/account/passkeys/{row.pk}/remove/").status_code == 302
    assert password(Client())["Location"] == "/"


def test_app_and_passkey_go_together_and_either_signs_in(eve):
    seed, _ = turn_on(eve)
    client = Client(**HERE)
    password(client)
    client.post(CODE, {"code": present(seed)})
    device = Authenticator()
    assert add(client, device).status_code == 201
    page = password(other := browser()) and other.get(CODE).content.decode()
    assert "Use a passkey" in page and "recovery codes" in page
    other, offered = asked()
    assert post(other, CHECK, {"credential": device.sign(offered)}).status_code == 200


@pytest.mark.any_engine
def test_without_a_counter_it_works_again_and_again(eve):
    device = holder(eve, counter=0)
    for _ in range(3):
        client, offered = asked()
        assert post(client, CHECK, {"credential": device.sign(offered)}).status_code == 200


# What an attacker would send ------------------------------------------------------------------------------------------


def refused(client, credential, status=400):
    with one_event("session.refused") as seen:
        answer = post(client, CHECK, {"credential": credential})
    assert answer.status_code == status, answer.content
    assert not is_in(client)
    return seen.event


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "how",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost.evil.example:8000"},
        {"origin": "http://localhost:8000.evil.example"},
        {"rp": "evil.example"},
        {"challenge": b"another challenge, long enough"},
        {"challenge": b""},
        {"type": "webauthn.create"},
        {"flags": FLAG(0)},
    ],
)
def test_an_answer_made_for_another_place_or_question_is_refused(eve, how):
    device = holder(eve)
    client, offered = asked()
    event = refused(client, device.sign(offered, **how))
    assert event.object_name == "eve"


def test_a_challenge_is_taken_once_whatever_came_of_it(eve):
    device = holder(eve)
    client, offered = asked()
    refused(client, device.sign(offered, origin="https://evil.example"))
    # The right answer to the same question comes too late.
    refused(client, device.sign(offered))
    # So does the empty one, for which no question waits.
    refused(client, device.sign(offered, challenge=b""))


@pytest.mark.any_engine
def test_what_was_signed_in_one_browser_opens_no_other(eve):
    device = holder(eve)
    first, offered = asked()
    signed = device.sign(offered)
    second, _ = asked()
    refused(second, signed)
    assert post(first, CHECK, {"credential": signed}).status_code == 200
    third, _ = asked()
    refused(third, signed)


@pytest.mark.any_engine
def test_a_question_waits_for_minutes_only(eve, monkeypatch):
    device = holder(eve)
    client, offered = asked()
    signed = device.sign(offered)
    later = time.time() + CODE_WITHIN_S + 1
    monkeypatch.setattr("llmops.access.passkey_views.time.time", lambda: later)
    monkeypatch.setattr("llmops.access.account_views.time.time", lambda: later)
    with no_event():
        answer = post(client, CHECK, {"credential": signed})
    assert (answer.status_code, answer.json()["next"]) == (401, SIGN_IN)
    assert not is_in(client)


@pytest.mark.any_engine
def test_somebody_elses_passkey_opens_nothing(eve):
    mallory = services.create_user(COMMAND, username="mallory", password=PASSWORD)
    holder(eve)
    theirs = holder(mallory)
    client, offered = asked("eve")
    refused(client, theirs.sign(offered))
    # With the other one's name on it, the signature is still that of the wrong key.
    client, offered = asked("eve")
    answer = theirs.sign(offered)
    answer["id"] = answer["rawId"] = offered["publicKey"]["allowCredentials"][0]["id"]
    refused(client, answer)


@pytest.mark.any_engine
def test_a_counter_that_goes_back_says_that_it_was_copied(eve):
    device = holder(eve, counter=7)
    client, offered = asked()
    device.counter = 40
    assert post(client, CHECK, {"credential": device.sign(offered)}).status_code == 200
    for count in (20, 40, 0):
        client, offered = asked()
        device.counter = count - 1 if count else 0
        event = refused(client, device.sign(offered), status=403)
        assert "may have been copied" in event.reason
    assert Passkey.objects.get().sign_count == 41


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "body",
    [
        {}, {"credential": 7}, {"credential": {}}, {"credential": {"id": "x", "rawId": "x", "response": {}}},
        {"credential": {"id": "", "rawId": "", "type": "public-key", "response": {"clientDataJSON": "e30",
         "authenticatorData": "AAAA", "signature": "AA"}}},
        {"credential": {"id": "AAAA", "rawId": "AAAA", "type": "public-key", "response": {"clientDataJSON": "bnVsbA",
         "authenticatorData": "A" * 5000, "signature": "%%%"}}},
        {"credential": {"rawId": [], "response": []}},
    ],
)  # fmt: skip
def test_nonsense_is_refused_and_crashes_nothing(eve, body):
    holder(eve)
    client, _ = asked()
    answer = post(client, CHECK, body)
    assert answer.status_code == 400
    own = browser(eve)
    post(own, OPTIONS)
    assert post(own, ADD, {**body, "name": "x"}).status_code in (400, 403)
    assert not is_in(client)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "raw", [b"", b"[", b"[]", b"\xff", b"[" * 100_000], ids=["empty", "open", "list", "bytes", "deep"]
)
def test_what_is_no_json_is_refused(eve, raw):
    holder(eve)
    client, _ = asked()
    assert client.post(CHECK, raw, content_type="application/json").status_code == 400


@pytest.mark.any_engine
def test_before_the_password_nobody_is_asked_for_a_passkey(eve):
    holder(eve)
    client = browser()
    for address in (ASK, CHECK):
        with no_event():
            assert post(client, address).status_code == 401


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "how",
    [
        {"origin": "https://evil.example"}, {"rp": "evil.example"}, {"challenge": b"another challenge, long"},
        {"type": "webauthn.get"}, {"flags": FLAG.AT},
    ],
)  # fmt: skip
def test_a_passkey_made_for_another_place_is_not_kept(eve, how):
    client = browser(eve)
    with no_event():
        assert add(client, Authenticator(), **how).status_code == 400
    assert not Passkey.objects.exists()


@pytest.mark.any_engine
def test_making_one_takes_the_question_of_this_session(eve):
    device = Authenticator()
    first, second = browser(eve), browser(eve)
    made = device.make(post(first, OPTIONS).json())
    with no_event():
        assert post(second, ADD, {"name": "x", "credential": made}).status_code == 400
        # An answer to the empty challenge, where no question waits.
        empty = device.make({"publicKey": {"rp": {"id": "localhost"}, "challenge": ""}})
        assert post(second, ADD, {"name": "x", "credential": empty}).status_code == 400
    assert post(first, ADD, {"name": "x", "credential": made}).status_code == 201
    with no_event():
        assert post(first, ADD, {"name": "y", "credential": made}).status_code == 400


def test_one_passkey_is_one_persons_and_names_are_told_apart(eve):
    device = holder(eve)
    bob = browser(person("bobby"))
    with no_event():
        answer = add(bob, device)
    assert answer.status_code == 409 and "in use" in answer.json()["error"]
    client, offered = asked()
    post(client, CHECK, {"credential": device.sign(offered)})
    with no_event():
        assert add(client, Authenticator(), "my KEY").status_code == 409
        assert add(client, Authenticator(), " ").status_code == 400


@pytest.mark.any_engine
def test_a_session_of_the_password_alone_changes_nothing_once_there_is_a_factor(eve):
    weak = browser(eve)
    device = holder(eve)
    row = Passkey.objects.get()
    with no_event():
        assert post(weak, OPTIONS).status_code == 403
        assert weak.post(f"/account/passkeys/{row.pk}/remove/").status_code == 403
        assert weak.get(FACTOR).status_code == 403
        assert weak.post(FACTOR, {"seed": "x", "code": "000000"}).status_code == 403
    client, offered = asked()
    post(client, CHECK, {"credential": device.sign(offered)})
    assert post(client, OPTIONS).status_code == 200


@pytest.mark.any_engine
def test_nobody_removes_somebody_elses(eve):
    holder(eve)
    row = Passkey.objects.get()
    mallory = browser(person("mallory"))
    with no_event():
        assert mallory.post(f"/account/passkeys/{row.pk}/remove/").status_code == 404
    assert Passkey.objects.filter(pk=row.pk).exists()


# Who must have a factor -----------------------------------------------------------------------------------------------


@pytest.mark.any_engine
def test_whoever_must_have_a_factor_may_make_it_a_passkey_and_keeps_the_last(eve, settings):
    settings.SECOND_FACTOR_REQUIRED = ["all"]
    client = browser()
    password(client)
    assert client.get("/calls/")["Location"] == FACTOR
    assert "Or a passkey" in client.get(FACTOR).content.decode()
    assert add(client, Authenticator()).status_code == 201
    assert client.get("/account/").status_code == 200
    first = Passkey.objects.get()
    with no_event():
        answer = client.post(f"/account/passkeys/{first.pk}/remove/")
    assert answer.status_code == 409 and "your only one" in answer.content.decode()
    add(client, Authenticator(), "Spare")
    with one_event("passkey.removed"):
        client.post(f"/account/passkeys/{first.pk}/remove/")


@pytest.mark.any_engine
def test_the_app_stays_as_well_where_it_is_the_last_factor(eve, settings):
    settings.SECOND_FACTOR_REQUIRED = ["all"]
    seed, _ = turn_on(eve)
    client = browser()
    password(client)
    client.post(CODE, {"code": present(seed)})
    later = time.time() + 60
    from llmops.core import one_time

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llmops.access.services.second_factors.time.time", lambda: later)
        with no_event():
            code = one_time.code_at(seed, int(later) // 30)
            answer = client.post("/account/second-factor/remove/", {"code": code})
    assert answer.status_code == 409 and "your only one" in answer.content.decode()


def test_an_administrator_removes_passkeys_of_who_lost_them(eve):
    holder(eve)
    with one_event("second_factor.reset") as seen:
        services.reset_factor(COMMAND, user=eve, reason="lost")
    assert seen.event.before == {"app": False, "passkeys": 1}
    assert password(Client())["Location"] == "/"


# Settings -------------------------------------------------------------------------------------------------------------


@pytest.mark.any_engine
def test_where_passkeys_work_is_configured(eve, settings):
    settings.PASSKEY_ORIGINS = ["https://console.example.com", "https://eu.console.example.com"]
    settings.ALLOWED_HOSTS = ["*"]
    settings.SECURE_PROXY_SSL_HEADER = None
    assert passkeys.relying_party() == "console.example.com" and passkeys.wrong_settings() == []
    here = Client(HTTP_HOST="console.example.com")
    here.force_login(eve)
    offered = post(here, OPTIONS, secure=True).json()
    assert offered["publicKey"]["rp"]["id"] == "console.example.com"
    made = Authenticator().make(offered, origin="http://localhost:8000")
    assert post(here, ADD, {"name": "x", "credential": made}, secure=True).status_code == 400
    made = Authenticator().make(post(here, OPTIONS, secure=True).json(), origin="https://console.example.com")
    assert post(here, ADD, {"name": "x", "credential": made}, secure=True).status_code == 201
    elsewhere = browser(person("ben"))
    assert post(elsewhere, OPTIONS).status_code == 400
    assert "console.example.com" in elsewhere.get("/account/").content.decode()


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "origins",
    [["console.example.com"], ["https://console.example.com/"], ["http://console.example.com"], ["https://192.0.2.1"],
     ["https://[2001:db8::1]:8443"], ["https://a.example.com", "https://b.example.org"], ["https://"]],
)  # fmt: skip
def test_settings_that_no_browser_takes_are_refused(settings, origins):
    settings.PASSKEY_ORIGINS = origins
    assert passkeys.wrong_settings()


@pytest.mark.any_engine
def test_who_must_be_known_to_the_authenticator_is_configured(eve, settings):
    settings.PASSKEY_VERIFICATION = "required"
    assert add(browser(eve), Authenticator(), flags=FLAG.UP).status_code == 400
    device = holder(eve)
    client, offered = asked()
    refused(client, device.sign(offered, flags=FLAG.UP))
    settings.PASSKEY_VERIFICATION = "preferred"
    client, offered = asked()
    assert post(client, CHECK, {"credential": device.sign(offered, flags=FLAG.UP)}).status_code == 200


@pytest.mark.any_engine
def test_pages_keep_their_strict_policy_and_tokens(eve):
    holder(eve)
    client, _ = asked()
    strict = Client(enforce_csrf_checks=True, **HERE)
    strict.cookies = client.cookies
    assert post(strict, ASK).status_code == 403
    assert "unsafe" not in client.get(CODE)["Content-Security-Policy"]
