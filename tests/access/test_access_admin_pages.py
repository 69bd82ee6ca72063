"""The admin pages of this room: one event each, errors on the field, secrets shown once, stale saves refused."""

from __future__ import annotations

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client

from llmops.access import services
from llmops.access.authentication import find_key
from llmops.access.models import Membership, Project, ServiceKey
from llmops.access.secrets import GENERATED
from tests.cast import AS_SHOWN, COMMAND, acting, issue, no_event, one_event, person, signed_in

pytestmark = pytest.mark.django_db


def loaded(client, address):
    """The hidden fields of a form, as a browser would send them."""
    page = client.get(address)
    assert page.status_code == 200, page.content[:500]
    return dict(re.findall(r'<input type="hidden" name="(_loaded)" value="([^"]*)"', page.content.decode()))


def key_form(project, **fields):
    return {
        "project": str(project.pk),
        "name": "ci",
        "scopes": ["inference"],
        "allowed_routes": "*",
        "allowed_models": "",
        "rpm": "60",
        "tpm": "",
        "concurrency": "",
        "priority": "interactive",
        "expires_at_0": "",
        "expires_at_1": "",
        **fields,
    }


def errors_of(response):
    return {name: list(found) for name, found in response.context["adminform"].form.errors.items()}


@pytest.mark.any_engine
def test_a_new_key_is_shown_once_and_kept_nowhere(cast):
    client = signed_in(cast.bob)
    with one_event("service_key.created") as seen:
        answer = client.post("/admin/access/servicekey/add/", key_form(cast.support))
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    secret = GENERATED.search(answer.content.decode()).group()
    key = ServiceKey.objects.get(name="ci")
    assert find_key(secret) == key
    assert seen.event.actor_name == "bob"
    assert seen.event.project_id == cast.support.pk
    assert secret not in str(seen.event.after)
    assert secret not in str(client.session.items())
    assert all(secret not in str(row.get_decoded()) for row in Session.objects.all())
    for address in ("/admin/access/servicekey/", f"/admin/access/servicekey/{key.pk}/change/"):
        page = client.get(address).content.decode()
        assert secret not in page
        assert key.secret_hash not in page
    assert not LogEntry.objects.exists()


@pytest.mark.any_engine
def test_rotating_shows_the_new_secret_once(cast):
    issued = issue(cast.support, name="ci")
    client = signed_in(cast.bob)
    address = f"/admin/access/servicekey/{issued.key.pk}/rotate/"
    with no_event():
        assert client.get(address).status_code == 200
    assert find_key(issued.secret) == issued.key
    with one_event("service_key.rotated") as seen:
        answer = client.post(address, {"grace_hours": "1", "reason": "a laptop was lost"})
    secret = GENERATED.search(answer.content.decode()).group()
    assert "no-store" in answer["Cache-Control"]
    assert find_key(secret) == find_key(issued.secret) == issued.key
    assert seen.event.reason == "a laptop was lost"


@pytest.mark.any_engine
@pytest.mark.parametrize("action", ["rotate", "revoke"])
def test_a_button_acts_on_post_with_a_token_only(cast, action):
    key = issue(cast.support).key
    address = f"/admin/access/servicekey/{key.pk}/{action}/"
    client = signed_in(cast.bob)
    guarded = Client(enforce_csrf_checks=True)
    guarded.force_login(cast.root)
    with no_event():
        page = client.get(address)
        assert page.status_code == 200
        assert b"csrfmiddlewaretoken" in page.content
        assert client.put(address).status_code == 405
        assert guarded.post(address, {"grace_hours": 1}).status_code == 403
    key.refresh_from_db()
    assert key.revoked_at is None
    with one_event():
        assert client.post(address, {"grace_hours": 1}).status_code in (200, 302)


def test_a_name_that_is_taken_is_said_at_the_name_and_nothing_is_kept(cast):
    issue(cast.support, name="ci")
    client = signed_in(cast.bob)
    with no_event():
        answer = client.post("/admin/access/servicekey/add/", key_form(cast.support))
    assert answer.status_code == 200
    assert "already has a key 'ci'" in errors_of(answer)["name"][0]
    assert ServiceKey.objects.count() == 1


@pytest.mark.any_engine
def test_scopes_beyond_ones_own_are_refused_at_the_field(cast):
    client = signed_in(cast.bob)
    for scope in ("members", "budgets", "audit", "organisation", "configure"):
        with no_event():
            answer = client.post(
                "/admin/access/servicekey/add/", key_form(cast.support, scopes=["inference", scope])
            )
        assert "scopes" in errors_of(answer), scope
    assert not ServiceKey.objects.exists()


@pytest.mark.any_engine
def test_another_projects_key_is_not_there(cast):
    key = issue(cast.search).key
    client = signed_in(cast.bob)
    with no_event():
        for page in ("change", "history", "rotate", "revoke", "delete"):
            assert client.get(f"/admin/access/servicekey/{key.pk}/{page}/").status_code == 404, page
            assert client.post(f"/admin/access/servicekey/{key.pk}/{page}/", {}).status_code in (403, 404), (
                page
            )
        answer = client.post("/admin/access/servicekey/add/", key_form(cast.search))
    assert "project" in errors_of(answer)
    assert b"Product search" not in client.get("/admin/access/servicekey/add/").content
    assert str(key.pk) not in client.get("/admin/access/servicekey/").content.decode()


@pytest.mark.any_engine
def test_a_key_is_changed_in_place(cast):
    key = issue(cast.support, name="ci").key
    client = signed_in(cast.bob)
    address = f"/admin/access/servicekey/{key.pk}/change/"
    form = {**key_form(cast.support, rpm="7", allowed_routes="chat\n embed \n"), **loaded(client, address)}
    with one_event("service_key.changed") as seen:
        assert client.post(address, form).status_code == 302
    key.refresh_from_db()
    assert (key.rpm, key.allowed_routes) == (7, ["chat", "embed"])
    assert seen.event.before == {"allowed_routes": ["*"], "rpm": None}
    assert seen.event.after == {"allowed_routes": ["chat", "embed"], "rpm": 7}


def test_a_stale_save_is_refused_and_says_what_changed(cast):
    key = issue(cast.support, name="ci").key
    client = signed_in(cast.bob)
    address = f"/admin/access/servicekey/{key.pk}/change/"
    form = {**key_form(cast.support, rpm="7"), **loaded(client, address)}
    services.update_service_key(acting(cast.alice), key=key, tpm=5000)
    with no_event():
        answer = client.post(address, form)
    said = " ".join(answer.context["adminform"].form.non_field_errors())
    assert "alice" in said
    assert "tpm: nothing → 5000" in said
    # Only what happened since the page was opened.
    assert "service_key.created" not in said
    key.refresh_from_db()
    assert (key.rpm, key.tpm) == (None, 5000)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "sent",
    [
        "",
        "/",
        "yesterday",
        "yesterday/today",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00/2026-01-01T00:00:00",
    ],
)
def test_a_form_that_does_not_say_what_it_saw_is_refused(cast, sent):
    key = issue(cast.support, name="ci").key
    client = signed_in(cast.bob)
    with no_event():
        answer = client.post(
            f"/admin/access/servicekey/{key.pk}/change/",
            {**key_form(cast.support, rpm="7"), "_loaded": sent},
        )
    assert answer.context["adminform"].form.non_field_errors()


@pytest.mark.any_engine
def test_a_revoked_key_is_only_looked_at(cast):
    key = issue(cast.support, name="ci").key
    services.revoke_service_key(COMMAND, key=key)
    client = signed_in(cast.bob)
    with no_event():
        page = client.get(f"/admin/access/servicekey/{key.pk}/change/")
        assert page.status_code == 200
        assert b'name="_save"' not in page.content
        assert b"/rotate/" not in page.content
        again = client.post(f"/admin/access/servicekey/{key.pk}/rotate/", {"grace_hours": 0})
    assert "was revoked" in again.content.decode()


@pytest.mark.any_engine
def test_the_bulk_delete_of_django_is_gone(cast):
    key = issue(cast.support).key
    client = signed_in(cast.root)
    page = client.get("/admin/access/servicekey/").content.decode()
    assert "delete_selected" not in page
    with no_event():
        client.post(
            "/admin/access/servicekey/",
            {"action": "delete_selected", "_selected_action": [str(key.pk)], "post": "yes"},
        )
    assert ServiceKey.objects.filter(pk=key.pk).exists()


@pytest.mark.any_engine
def test_projects_are_made_changed_archived_and_restored(cast):
    client = signed_in(cast.alice)
    with one_event("project.created"):
        client.post(
            "/admin/access/project/add/",
            {"slug": "new", "name": "New", "owner": "", "cost_center": "", **AS_SHOWN},
        )
    project = Project.objects.get(slug="new")
    address = f"/admin/access/project/{project.pk}"
    with one_event("project.changed") as seen:
        client.post(
            f"{address}/change/",
            {
                "name": "Newer",
                "owner": "a@example.com",
                "cost_center": "",
                **AS_SHOWN,
                **loaded(client, f"{address}/change/"),
            },
        )
    assert seen.event.before == {"name": "New", "owner": ""}
    with one_event("project.archived"):
        assert client.post(f"{address}/archive/", {"reason": "over"}).status_code == 302
    with no_event():
        assert "already archived" in client.post(f"{address}/archive/", {}).content.decode()
    with one_event("project.restored"):
        client.post(f"{address}/restore/", {})
    with no_event():
        assert client.get(f"{address}/delete/").status_code == 403
        assert client.post(f"{address}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.any_engine
def test_a_bad_slug_is_said_at_the_slug(cast):
    client = signed_in(cast.alice)
    for slug in ("Ünder", "a b", "-x", "", "x" * 64, "support"):
        with no_event():
            answer = client.post("/admin/access/project/add/", {"slug": slug, "name": "n", **AS_SHOWN})
        assert list(errors_of(answer)) == ["slug"], slug


@pytest.mark.any_engine
def test_members_come_change_and_go(cast):
    client = signed_in(cast.alice)
    with one_event("member.added"):
        answer = client.post(
            "/admin/access/membership/add/",
            {"person": "charlie", "role": "finance", "project": str(cast.support.pk)},
        )
    assert answer.status_code == 302
    membership = Membership.objects.get(user=cast.charlie, project=cast.support)
    address = f"/admin/access/membership/{membership.pk}"
    with one_event("member.role_changed"):
        client.post(f"{address}/change/", {"role": "auditor", **loaded(client, f"{address}/change/")})
    with one_event("member.removed"):
        assert client.post(f"{address}/delete/", {"post": "yes"}).status_code == 302
    assert not Membership.objects.filter(pk=membership.pk).exists()
    with no_event():
        answer = client.post("/admin/access/membership/add/", {"person": "nobody", "role": "finance"})
        assert list(errors_of(answer)) == ["person"]
        answer = client.post("/admin/access/membership/add/", {"person": "bob", "role": "king"})
        assert list(errors_of(answer)) == ["role"]


@pytest.mark.any_engine
def test_the_administrator_of_one_project_stays_in_it(cast):
    pam = person("pam", ("admin", cast.support))
    client = signed_in(pam)
    with one_event("member.added"):
        client.post(
            "/admin/access/membership/add/",
            {"person": "charlie", "role": "finance", "project": str(cast.support.pk)},
        )
    with no_event():
        for place in ("", str(cast.search.pk)):
            answer = client.post(
                "/admin/access/membership/add/", {"person": "pam", "role": "admin", "project": place}
            )
            assert "project" in errors_of(answer), place
        theirs = Membership.objects.get(user=cast.charlie, project=cast.search)
        assert client.get(f"/admin/access/membership/{theirs.pk}/change/").status_code == 404
        assert client.get("/admin/auth/user/").status_code == 403
    assert b"charlie" in client.get("/admin/access/membership/").content
    assert b"alice" not in client.get("/admin/access/membership/").content


def test_removing_the_last_administrator_is_a_message_and_changes_nothing(cast):
    cast.root.delete()
    membership = Membership.objects.get(user=cast.alice)
    client = signed_in(cast.alice)
    with no_event():
        answer = client.post(
            f"/admin/access/membership/{membership.pk}/delete/", {"post": "yes"}, follow=True
        )
    assert "last administrator" in answer.content.decode()
    assert Membership.objects.filter(pk=membership.pk).exists()


@pytest.mark.any_engine
def test_accounts_are_made_changed_closed_and_opened(cast):
    client = signed_in(cast.root)
    with one_event("user.created") as seen:
        answer = client.post(
            "/admin/auth/user/add/",
            {"username": "eve", "email": "eve@example.com", "password": "correct horse battery staple"},
        )
    assert answer.status_code == 302, errors_of(answer)
    assert "correct horse" not in str(seen.event.after)
    eve = type(cast.root).objects.get(username="eve")
    address = f"/admin/auth/user/{eve.pk}"
    with one_event("user.changed"):
        client.post(
            f"{address}/change/", {"email": "e@example.com", "first_name": "Eve", "is_superuser": "on"}
        )
    with one_event("user.password_set"):
        client.post(
            f"{address}/set-password/",
            {"password": "another long password", "again": "another long password"},
        )
    with one_event("user.deactivated"):
        client.post(f"{address}/deactivate/", {"reason": "left"})
    with one_event("user.activated"):
        client.post(f"{address}/activate/", {})
    with one_event("user.unlocked"):
        client.post(f"{address}/unlock/", {})
    eve.refresh_from_db()
    assert eve.check_password("another long password")
    with no_event():
        weak = client.post(f"{address}/set-password/", {"password": "short", "again": "short"})
        assert "password" in weak.context["form"].errors
        differ = client.post(f"{address}/set-password/", {"password": "a" * 14, "again": "b" * 14})
        assert "again" in differ.context["form"].errors
        taken = client.post("/admin/auth/user/add/", {"username": "EVE"})
        assert "username" in errors_of(taken)


@pytest.mark.any_engine
def test_groups_are_gone(cast):
    assert signed_in(cast.root).get("/admin/auth/group/").status_code == 404


@pytest.mark.any_engine
def test_history_shows_the_trail(cast):
    key = issue(cast.support, name="ci").key
    services.update_service_key(acting(cast.alice), key=key, rpm=3)
    page = signed_in(cast.bob).get(f"/admin/access/servicekey/{key.pk}/history/").content.decode()
    assert "rpm: nothing → 3" in page
    assert "alice" in page
