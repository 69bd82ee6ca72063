"""A second factor at sign-in, recovery codes, who must have one, and sessions that are seen and ended."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from django.test import Client

from llmops.access import services
from llmops.access.models import SecondFactor, SignIn
from llmops.access.services import second_factors
from llmops.base.requests import user_actor
from llmops.core import one_time
from llmops.core.errors import InvalidRequest
from tests.cast import COMMAND, PASSWORD, in_threads, no_event, one_event, signed_in
from tests.providers.test_credentials import whole_database

pytestmark = pytest.mark.django_db
SIGN_IN, CODE, FACTOR = "/admin/login/", "/account/code/", "/account/second-factor/"


@pytest.fixture
def eve(cast):
    return services.create_user(COMMAND, username="eve", password=PASSWORD)


def turn_on(user: Any) -> tuple[bytes, list[str]]:
    offered, seed = services.offer_factor(user)
    # The code of the step before: the present one is free for the sign-in that follows.
    code = one_time.code_at(seed, int(time.time()) // 30 - 1)
    return seed, services.add_factor(user_actor(user), user=user, offered=offered, code=code)


def present(seed: bytes) -> str:
    return one_time.code_at(seed, int(time.time()) // 30)


def password(client: Client, username: str = "eve", next_: str = "") -> Any:
    return client.post(SIGN_IN, {"username": username, "password": PASSWORD, "next": next_})


def is_in(client: Client) -> bool:
    return client.get("/admin/password_change/").status_code == 200


@pytest.mark.any_engine
def test_the_password_alone_opens_nothing(eve):
    seed, _ = turn_on(eve)
    client = Client(REMOTE_ADDR="192.0.2.9")
    with no_event():
        answer = password(client, next_="/calls/")
    assert answer["Location"] == CODE
    assert not is_in(client)
    assert client.get("/api/v1/projects/").status_code == 401
    page = client.get(CODE)
    assert (page.status_code, "unsafe" in page["Content-Security-Policy"]) == (200, False)
    with one_event("session.refused") as seen:
        assert "not the present one" in client.post(CODE, {"code": "000000"}).content.decode()
    assert (seen.event.object_name, seen.event.ip) == ("eve", "192.0.2.9")
    assert not is_in(client)
    with one_event("session.signed_in") as seen:
        assert client.post(CODE, {"code": present(seed)})["Location"] == "/calls/"
    assert seen.event.after == {"by": "password and app"}
    assert is_in(client)
    # The same code lets nobody else in.
    other = Client()
    password(other)
    other.post(CODE, {"code": present(seed)})
    assert not is_in(other)


@pytest.mark.any_engine
def test_without_a_password_there_is_no_code_page_and_it_does_not_stay(eve, monkeypatch):
    turn_on(eve)
    assert Client().get(CODE)["Location"] == SIGN_IN
    client = Client()
    password(client)
    later = time.time() + 301
    monkeypatch.setattr("llmops.access.account_views.time.time", lambda: later)
    assert client.get(CODE)["Location"] == SIGN_IN
    assert client.post(CODE, {"code": "000000"})["Location"] == SIGN_IN


def test_a_recovery_code_works_once(eve):
    _, codes = turn_on(eve)
    for expected in (True, False):
        client = Client()
        password(client)
        client.post(CODE, {"code": codes[0].upper()})
        assert is_in(client) is expected
    assert len(SecondFactor.objects.get().recovery_hashes) == 9


def test_guessing_is_stopped(eve):
    seed, _ = turn_on(eve)
    client = Client()
    password(client)
    for _ in range(second_factors.MOST_FAILURES):
        assert client.post(CODE, {"code": "000000"}).status_code == 200
    with no_event():
        answer = client.post(CODE, {"code": present(seed)})
    assert answer.status_code == 429
    assert "15 minutes" in answer.content.decode()
    assert not is_in(client)


@pytest.mark.django_db(transaction=True)
def test_of_two_with_the_same_code_one_gets_in():
    eve = services.create_user(COMMAND, username="eve", password=PASSWORD)
    seed, codes = turn_on(eve)
    for code in (present(seed), codes[0]):
        results = in_threads(*[lambda code=code: services.take_code(eve, code)] * 6)
        assert sum(isinstance(one, str) for one in results) == 1, results
        assert all(isinstance(one, str | InvalidRequest) for one in results)


@pytest.mark.any_engine
def test_the_pages_turn_it_on_and_off(eve):
    client = signed_in(eve)
    page = client.get(FACTOR)
    text = page.content.decode()
    assert "<svg" in text
    assert "style=" not in text.split("<main")[1], "the strict policy would not apply it"
    assert "no-store" in page["Cache-Control"]
    offered = re.search(r'name="seed" value="([^"]+)"', text).group(1)
    seed = services.opened_offer(eve, offered)
    with no_event():
        again = client.post(FACTOR, {"seed": offered, "code": "12"})
    assert offered in again.content.decode(), "the app need not be set up anew after a slip"
    with one_event("second_factor.added") as seen:
        done = client.post(FACTOR, {"seed": offered, "code": present(seed)})
    codes = re.findall(r"<li><code>([a-z2-7-]{19})</code>", done.content.decode())
    assert len(codes) == 10
    assert "no-store" in done["Cache-Control"]
    assert seed.hex() not in str(vars(seen.event))
    stored = SecondFactor.objects.get()
    assert seed.hex() not in stored.sealed
    assert not any(code in str(stored.recovery_hashes) for code in codes)
    everything = whole_database()
    assert "second_factor.added" in everything
    plain = [
        seed.hex(),
        one_time.shown_seed(seed).replace(" ", ""),
        *codes,
        *(code.replace("-", "") for code in codes),
    ]
    assert not any(secret in everything for secret in plain)
    assert "10 recovery codes left" in client.get("/account/").content.decode()
    with no_event():
        assert client.post("/account/second-factor/remove/", {"code": "000000"}).status_code == 400
    with one_event("second_factor.codes_renewed"):
        fresh = client.post("/account/second-factor/codes/", {"code": codes[0]}).content.decode()
    assert codes[1] not in fresh
    with no_event():
        assert client.post("/account/second-factor/remove/", {"code": codes[1]}).status_code == 400
    new = re.findall(r"<li><code>([a-z2-7-]{19})</code>", fresh)
    with one_event("second_factor.removed"):
        client.post("/account/second-factor/remove/", {"code": new[0]})
    assert not SecondFactor.objects.exists()


@pytest.mark.any_engine
def test_a_seed_that_was_offered_to_somebody_else_is_refused(eve, cast):
    offered, seed = services.offer_factor(cast.bob)
    client = signed_in(eve)
    with no_event():
        client.post(FACTOR, {"seed": offered, "code": present(seed)})
        client.post(FACTOR, {"seed": "v1.x.y", "code": present(seed)})
    assert not SecondFactor.objects.exists()


def test_an_administrator_resets_it_and_nobody_else(eve, cast):
    turn_on(eve)
    bob, alice = signed_in(cast.bob), signed_in(cast.alice)
    assert bob.post(f"/admin/auth/user/{eve.pk}/reset-factor/", {"reason": ""}).status_code == 404
    with one_event("second_factor.reset"):
        alice.post(f"/admin/auth/user/{eve.pk}/reset-factor/", {"reason": "lost phone"})
    client = Client()
    password(client)
    assert is_in(client)
    # A superuser's is reset by superusers only.
    turn_on(cast.root)
    alice.post(f"/admin/auth/user/{cast.root.pk}/reset-factor/", {"reason": ""})
    assert SecondFactor.objects.filter(user=cast.root).exists()


# Who must have one ------------------------------------------------------------------------------------------------------


@pytest.mark.any_engine
def test_who_must_have_one_reaches_nothing_until_it_is_on(eve, cast, settings):
    settings.SECOND_FACTOR_REQUIRED = ["admin"]
    bob, alice = signed_in(cast.bob), signed_in(cast.alice)
    assert bob.get("/").status_code == 200
    for path in ("/", "/admin/access/project/", "/account/", "/admin/password_change/"):
        assert alice.get(path)["Location"] == FACTOR, path
    api = alice.get("/api/v1/projects/")
    assert (api.status_code, "second factor" in api.json()["error"]["message"]) == (403, True)
    page = alice.get(FACTOR).content.decode()
    assert "Your role takes a second factor" in page
    offered = re.search(r'name="seed" value="([^"]+)"', page).group(1)
    seed = services.opened_offer(cast.alice, offered)
    alice.post(FACTOR, {"seed": offered, "code": present(seed)})
    assert alice.get("/").status_code == 200
    # A session that began before is asked to sign in anew.
    older = signed_in(cast.alice)
    assert older.get("/")["Location"].startswith(SIGN_IN)
    settings.SECOND_FACTOR_REQUIRED = ["all"]
    assert bob.get("/")["Location"] == FACTOR
    assert signed_in(cast.root).get("/")["Location"] == FACTOR
    assert bob.post("/admin/logout/").status_code == 200


# Sessions ---------------------------------------------------------------------------------------------------------------


def test_ones_own_sessions_are_seen_and_ended(eve, cast):
    here, there = Client(REMOTE_ADDR="192.0.2.1"), Client(REMOTE_ADDR="192.0.2.2", HTTP_USER_AGENT="Phone/1")
    for client in (here, there):
        password(client)
    page = here.get("/account/").content.decode()
    assert "192.0.2.2" in page
    assert "Phone/1" in page
    assert page.count("This one") == 1
    other = SignIn.objects.get(ip="192.0.2.2")
    assert signed_in(cast.bob).post(f"/account/sessions/{other.pk}/end/").status_code == 404
    assert is_in(there)
    with one_event("session.ended") as seen:
        here.post(f"/account/sessions/{other.pk}/end/")
    assert seen.event.before["from"] == "192.0.2.2"
    assert not is_in(there)
    assert is_in(here)
    password(there)
    with one_event("session.others_ended"):
        here.post("/account/sessions/end-others/")
    assert (is_in(here), is_in(there)) == (True, False)
    here.post("/admin/logout/")
    assert not SignIn.objects.filter(user=eve).exists()


def test_a_session_that_changed_its_key_is_still_the_same(eve):
    here, there = Client(), Client()
    for client in (here, there):
        password(client)
    new = "another long phrase of words"
    changed = here.post(
        "/admin/password_change/", {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    )
    assert changed.status_code == 302
    assert SignIn.objects.filter(session_key=here.session.session_key).exists()
    here.post("/account/sessions/end-others/")
    assert is_in(here)


def test_an_administrator_ends_somebodys_sessions(eve, cast):
    client = Client()
    password(client)
    alice = signed_in(cast.alice)
    with one_event("user.sessions_ended"):
        alice.post(f"/admin/auth/user/{eve.pk}/end-sessions/", {"reason": "left a tablet"})
    assert not is_in(client)
