"""Signing in, being refused, signing out, changing one's password: one event each, and guessing is slowed down."""

from __future__ import annotations

import pytest
from axes.models import AccessAttempt
from django.core.management import call_command
from django.test import Client

from llmops.access import services, signals
from llmops.audit.models import Event
from tests.cast import COMMAND, PASSWORD, no_event, one_event, signed_in

pytestmark = pytest.mark.django_db
SIGN_IN = "/admin/login/"


@pytest.fixture
def eve(cast):
    return services.create_user(COMMAND, username="eve", password=PASSWORD)


def attempt(client, username="eve", password="wrong", **more):
    return client.post(SIGN_IN, {"username": username, "password": password}, **more)


def test_signing_in_and_out(eve):
    client = Client(headers={"x-request-id": "req-42"}, REMOTE_ADDR="192.0.2.9")
    with one_event("session.signed_in") as seen:
        assert attempt(client, password=PASSWORD).status_code == 302
    assert (seen.event.actor_name, seen.event.ip, seen.event.request_id) == ("eve", "192.0.2.9", "req-42")
    with one_event("session.signed_out") as seen:
        client.post("/admin/logout/")
    assert seen.event.actor_id == str(eve.pk)
    with no_event():
        client.post("/admin/logout/")


def test_a_refusal_names_an_account_and_never_what_was_typed(eve):
    client = Client(REMOTE_ADDR="192.0.2.9")
    with one_event("session.refused") as seen:
        attempt(client)
    assert (seen.event.object_name, seen.event.object_id, seen.event.actor_id) == (
        "eve",
        str(eve.pk),
        "anonymous",
    )
    assert seen.event.ip == "192.0.2.9"
    # People type passwords into that field.
    with one_event("session.refused") as seen:
        attempt(client, username="My Secret Passw0rd!")
    assert "Passw0rd" not in str(vars(seen.event))
    for odd in ("", "\0", "x" * 10_000, "😀", "' OR 1=1"):
        assert attempt(client, username=odd).status_code in (200, 400, 403)


@pytest.mark.any_engine
def test_an_account_that_is_closed_cannot_sign_in_and_loses_its_session(eve):
    client = signed_in(eve)
    assert client.get("/admin/password_change/").status_code == 200
    services.deactivate_user(COMMAND, user=eve)
    assert client.get("/admin/password_change/").status_code == 302
    with one_event("session.refused"):
        assert attempt(Client(), password=PASSWORD).status_code == 200


@pytest.mark.any_engine
def test_guessing_is_stopped_with_a_page_that_says_so(eve, settings):
    client = Client(REMOTE_ADDR="192.0.2.66")
    for _ in range(settings.AXES_FAILURE_LIMIT):
        answer = attempt(client)
    assert answer.status_code == 429
    assert "Too many attempts" in answer.content.decode()
    with no_event():
        for _ in range(5):
            assert attempt(client, password=PASSWORD).status_code == 429
    assert Event.objects.filter(action="session.refused").count() == settings.AXES_FAILURE_LIMIT
    # Another address is another caller.
    with one_event("session.signed_in"):
        assert attempt(Client(REMOTE_ADDR="192.0.2.7"), password=PASSWORD).status_code == 302


@pytest.mark.any_engine
def test_the_pause_can_be_lifted(eve, settings, capsys):
    client = Client(REMOTE_ADDR="192.0.2.66")

    def lock_out():
        while attempt(client).status_code != 429:
            pass

    lock_out()
    with one_event("user.unlocked") as seen:
        services.unlock_user(COMMAND, user=eve)
    assert seen.event.before == {"addresses": 1}
    lock_out()
    with one_event("sign_in_guard.reset"):
        call_command("axes_reset_username", "eve")
    assert attempt(client, password=PASSWORD).status_code == 302


@pytest.mark.any_engine
def test_a_forged_forwarded_address_does_not_escape_the_pause(eve, settings):
    client = Client(REMOTE_ADDR="192.0.2.66")
    for number in range(settings.AXES_FAILURE_LIMIT):
        answer = attempt(client, headers={"x-forwarded-for": f"203.0.113.{number}"})
    assert answer.status_code == 429
    assert set(AccessAttempt.objects.values_list("ip_address", flat=True)) == {"192.0.2.66"}


# ---------------------------------------------------------------------- names sprayed from one address


def spray(address: str, count: int, start: int = 0):
    """Wrong sign-ins with another name each time, each from a fresh browser; the last answer."""
    for number in range(start, start + count):
        answer = attempt(
            Client(REMOTE_ADDR=address), f"guess{number}", headers={"user-agent": f"browser {number % 7}"}
        )
    return answer


def test_names_cannot_be_sprayed_from_one_address(eve, settings):
    settings.SIGN_IN_ADDRESS_LIMIT = 20
    assert spray("192.0.2.66", 19).status_code == 200
    answer = spray("192.0.2.66", 1, start=19)
    assert answer.status_code == 429
    said = answer.content.decode()
    assert "Too many attempts" in said and "from your address" in said and "axes_reset_ip" in said
    with no_event():
        for _ in range(3):
            assert attempt(Client(REMOTE_ADDR="192.0.2.66"), password=PASSWORD).status_code == 429
    assert AccessAttempt.objects.count() == 20, "attempts during the pause are not written down"
    # Another address is another caller.
    assert attempt(Client(REMOTE_ADDR="192.0.2.67"), password=PASSWORD).status_code == 302
    with one_event("sign_in_guard.reset"):
        call_command("axes_reset_ip", "192.0.2.66")
    assert attempt(Client(REMOTE_ADDR="192.0.2.66"), password=PASSWORD).status_code == 302


@pytest.mark.any_engine
def test_one_person_does_not_close_the_office(eve, settings):
    settings.SIGN_IN_ADDRESS_LIMIT = 20
    office = "192.0.2.66"
    for name in ("bob", "carol"):
        for _ in range(settings.SIGN_IN_ADDRESS_LIMIT):
            answer = attempt(Client(REMOTE_ADDR=office), name)
        assert answer.status_code == 429
        assert "this account is closed" in answer.content.decode()
    assert attempt(Client(REMOTE_ADDR=office), password=PASSWORD).status_code == 302


@pytest.mark.any_engine
def test_the_pause_of_an_address_ends(eve, settings, time_machine):
    settings.SIGN_IN_ADDRESS_LIMIT = 10
    time_machine.move_to("2030-01-01T12:00:00Z", tick=False)
    assert spray("192.0.2.66", 10).status_code == 429
    time_machine.move_to("2030-01-01T12:14:00Z", tick=False)
    assert attempt(Client(REMOTE_ADDR="192.0.2.66"), password=PASSWORD).status_code == 429
    time_machine.move_to("2030-01-01T12:16:00Z", tick=False)
    assert attempt(Client(REMOTE_ADDR="192.0.2.66"), password=PASSWORD).status_code == 302


@pytest.mark.any_engine
def test_addresses_of_one_ipv6_network_are_one_caller(eve, settings):
    settings.SIGN_IN_ADDRESS_LIMIT = 10
    for number in range(10):
        answer = attempt(Client(REMOTE_ADDR=f"2001:db8:0:7:{number}::{number:x}"), f"guess{number}")
    assert answer.status_code == 429
    assert set(AccessAttempt.objects.values_list("ip_address", flat=True)) == {"2001:db8:0:7::"}
    assert attempt(Client(REMOTE_ADDR="2001:db8:0:8::1"), password=PASSWORD).status_code == 302
    for number in range(10):
        answer = attempt(Client(REMOTE_ADDR="::ffff:192.0.2.5"), f"guess{number}")
    assert answer.status_code == 429
    assert attempt(Client(REMOTE_ADDR="192.0.2.5"), password=PASSWORD).status_code == 429
    assert attempt(Client(REMOTE_ADDR="192.0.2.6"), password=PASSWORD).status_code == 302


def test_a_pause_is_one_event_and_so_is_a_flood(eve, settings, monkeypatch):
    client = Client(REMOTE_ADDR="192.0.2.66")
    for _ in range(settings.AXES_FAILURE_LIMIT + 4):
        attempt(client)
    [paused] = Event.objects.filter(action="session.locked_out")
    assert (paused.object_name, paused.ip, paused.after) == ("eve", "192.0.2.66", {"minutes": 15})
    monkeypatch.setattr(signals, "MOST_REFUSALS", 5)
    spray("192.0.2.80", 12)
    [flood] = Event.objects.filter(action="session.refusals_passed_over")
    assert (flood.object_name, flood.after) == ("192.0.2.80", {"why": "more than 5 from this address"})
    monkeypatch.setattr(signals, "MOST_OF_ALL", Event.objects.filter(action="session.refused").count() + 2)
    before = Event.objects.count()
    for number in range(9):
        attempt(Client(REMOTE_ADDR=f"203.0.113.{number}"), f"guess{number}")
    assert Event.objects.count() == before + 3
    assert Event.objects.first().object_name == "many addresses"


def test_one_name_cannot_be_guessed_from_many_addresses_and_its_person_still_comes_in(eve, settings):
    settings.SIGN_IN_NAME_LIMIT = 10
    home = Client(REMOTE_ADDR="192.0.2.7")
    assert attempt(home, password=PASSWORD).status_code == 302
    answers = [attempt(Client(REMOTE_ADDR=f"203.0.113.{at}")).status_code for at in range(14)]
    assert answers == [200] * 9 + [429] * 5
    # The right password does not help a stranger's address either, so nothing tells that it was right.
    assert attempt(Client(REMOTE_ADDR="203.0.113.99"), password=PASSWORD).status_code == 429
    assert attempt(Client(REMOTE_ADDR="203.0.113.99"), "EVE", password=PASSWORD).status_code == 429
    assert attempt(Client(REMOTE_ADDR="203.0.113.99"), "carol").status_code == 200
    # From where eve is signed in, she signs in.
    assert attempt(Client(REMOTE_ADDR="192.0.2.7"), password=PASSWORD).status_code == 302
    attempt(Client(REMOTE_ADDR="203.0.113.98"), password=PASSWORD)
    services.unlock_user(COMMAND, user=eve)
    assert attempt(Client(REMOTE_ADDR="203.0.113.99"), password=PASSWORD).status_code == 302


@pytest.mark.any_engine
@pytest.mark.parametrize("peer", ["", "unix:"])
def test_a_caller_without_an_address_can_sign_in(eve, peer):
    client = Client(REMOTE_ADDR=peer)
    assert attempt(client).status_code == 200
    assert attempt(client, password=PASSWORD).status_code == 302


@pytest.mark.any_engine
def test_a_trusted_proxy_tells_the_address(eve, settings):
    settings.TRUSTED_PROXIES = ["192.0.2.0/24"]
    with one_event("session.refused") as seen:
        attempt(
            Client(REMOTE_ADDR="192.0.2.66"), headers={"x-forwarded-for": "1.1.1.1, 203.0.113.5, 192.0.2.67"}
        )
    assert seen.event.ip == "203.0.113.5"


def test_one_address_cannot_make_the_trail_grow_without_end(eve, monkeypatch):
    monkeypatch.setattr(signals, "MOST_REFUSALS", 5)
    client = Client(REMOTE_ADDR="192.0.2.66")
    for number in range(9):
        attempt(client, username=f"guess{number}")
    assert Event.objects.filter(action="session.refused").count() == 5
    with one_event("session.refused"):
        attempt(Client(REMOTE_ADDR="192.0.2.67"))


@pytest.mark.any_engine
def test_changing_ones_own_password(eve):
    client, elsewhere = signed_in(eve), signed_in(eve)
    new = "a different long phrase"
    form = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    with no_event():
        for bad, field in (
            ({**form, "old_password": "wrong"}, "old_password"),
            ({**form, "new_password2": "other"}, "new_password2"),
            ({**form, "new_password1": "short", "new_password2": "short"}, "new_password2"),
        ):
            answer = client.post("/admin/password_change/", bad)
            assert field in answer.context["form"].errors
    with one_event("user.password_changed") as seen:
        assert client.post("/admin/password_change/", form).status_code == 302
    assert seen.event.actor_name == "eve"
    assert client.get("/admin/password_change/done/").status_code == 200
    assert elsewhere.get("/admin/password_change/").status_code == 302
    eve.refresh_from_db()
    assert eve.check_password(new)


@pytest.mark.any_engine
def test_setting_somebodys_password_ends_their_sessions(eve):
    client = signed_in(eve)
    services.set_password(COMMAND, user=eve, password="a different long phrase")
    assert client.get("/admin/password_change/").status_code == 302


@pytest.mark.any_engine
@pytest.mark.parametrize("next_page", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_signing_in_leads_nowhere_else(eve, next_page):
    answer = Client().post(
        f"{SIGN_IN}?next={next_page}", {"username": "eve", "password": PASSWORD, "next": next_page}
    )
    assert answer.status_code == 302
    assert "evil" not in answer["Location"] and "javascript" not in answer["Location"]
