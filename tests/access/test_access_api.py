"""``/api/v1`` of this room over HTTP: who gets in, what bad input gets, what another tenant sees (nothing)."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from llmops.access import services
from llmops.access.authentication import find_key
from llmops.access.models import Membership, Project, ServiceKey
from llmops.access.secrets import GENERATED
from tests.cast import COMMAND, PASSWORD, bearer, every_scope, issue, no_event, one_event, signed_in
from tests.kept import kept

pytestmark = pytest.mark.django_db
KEYS, PROJECTS, MEMBERS, USERS = (
    f"/api/v1/{name}/" for name in ("service-keys", "projects", "memberships", "users")
)


@kept
def secret(cast):
    return every_scope(cast.support).secret


def send(client, method, address, body=None):
    return getattr(client, method)(address, json.dumps(body or {}), content_type="application/json")


def refused(answer, status, param=None):
    assert answer.status_code == status, answer.content
    error = answer.json()["error"]
    assert error["message"]
    if param is not None:
        assert error["param"] == param, error
    return error


def test_a_key_that_is_paused_reads_and_does_nothing_until_it_is_resumed(cast):
    issued = every_scope(cast.support)
    caller, other = bearer(issued.secret), bearer(issue(cast.support, "read").secret)
    rotated = send(caller, "post", f"{KEYS}{issued.key.pk}/rotate/").json()["secret"]
    with one_event("service_key.paused"):
        paused = send(bearer(rotated), "post", f"{KEYS}{issued.key.pk}/pause/", {"reason": "It loops."})
    assert paused.status_code == 200
    with no_event():
        for secret in (issued.secret, rotated):
            for method, address in (
                ("get", KEYS),
                ("get", PROJECTS),
                ("post", f"{KEYS}{issued.key.pk}/resume/"),
                ("get", "/api/v1/schema/"),
            ):
                error = refused(getattr(bearer(secret), method)(address), 403)
                assert error["code"] == "key_paused" and "paused: It loops. Ask" in error["message"]
    assert other.get(PROJECTS).status_code == 200
    services.resume_service_key(COMMAND, key=issued.key)
    assert caller.get(KEYS).status_code == 200


def unusable_keys(cast):
    revoked = issue(cast.support, "read")
    services.revoke_service_key(COMMAND, key=revoked.key)
    expired = issue(cast.support, "read")
    ServiceKey.objects.filter(pk=expired.key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    rotated = issue(cast.support, "read")
    services.rotate_service_key(COMMAND, key=rotated.key, grace=timedelta(0))
    archived = issue(cast.search, "read")
    services.archive_project(COMMAND, project=cast.search)
    good = issue(cast.support, "read").secret
    return [
        *(f"Bearer {one.secret}" for one in (revoked, expired, rotated, archived)),
        "Bearer",
        "Bearer ",
        f"Bearer {good} extra",
        f"Bearer {good}x",
        f"Bearer {good[:-1]}",
        f"Bearer {good.upper()}",
        f"Basic {good}",
        good,
        f"Token {good}",
        "Bearer ' OR 1=1 --",
        "Bearer \xff\xfe",
        "Bearer " + "x" * 100_000,
        "Bearer %00",
    ]


def test_every_unusable_key_gets_the_same_answer(cast):
    answers = [Client(headers={"authorization": header}).get(KEYS) for header in unusable_keys(cast)]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["error"]["code"] == "invalid_api_key"
    assert answers[0]["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.any_engine
def test_a_bad_key_is_not_saved_by_a_good_session(cast):
    client = signed_in(cast.root)
    assert client.get(KEYS, headers={"authorization": "Bearer nonsense"}).status_code == 401
    weak = issue(cast.support, "inference").secret
    assert client.get(KEYS, headers={"authorization": f"Bearer {weak}"}).status_code == 403


@pytest.mark.any_engine
def test_without_anything_it_is_401(cast):
    for address in (
        KEYS,
        PROJECTS,
        MEMBERS,
        USERS,
        "/api/v1/audit-events/",
        "/api/v1/schema/",
    ):
        refused(Client().get(address), 401)
    assert Client().get("/api/v1/docs/").status_code == 401


@pytest.mark.any_engine
def test_a_session_needs_its_token_to_change_anything(cast):
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.root)
    assert client.get(PROJECTS).status_code == 200
    with no_event():
        refused(send(client, "post", PROJECTS, {"slug": "x"}), 403)
    assert not Project.objects.filter(slug="x").exists()


def test_a_key_is_issued_shown_once_and_used(cast):
    admin = bearer(issue(cast.support, "keys", "read").secret)
    with one_event("service_key.created") as seen:
        answer = send(
            admin, "post", KEYS, {"project": "support", "name": "ci", "rpm": 60, "allowed_routes": ["chat"]}
        )
    assert answer.status_code == 201
    assert "no-store" in answer["Cache-Control"]
    body = answer.json()
    assert GENERATED.fullmatch(body["secret"])
    assert find_key(body["secret"]).pk == ServiceKey.objects.get(name="ci").pk
    assert (body["scopes"], body["allowed_routes"], body["allowed_models"], body["rpm"]) == (
        ["inference"],
        ["chat"],
        [],
        60,
    )
    assert seen.event.actor_kind == "service_key"
    assert seen.event.request_id == answer["x-request-id"]
    for address in (KEYS, f"{KEYS}{body['id']}/"):
        shown = admin.get(address).content.decode()
        assert body["prefix"] in shown
        assert body["secret"] not in shown
        assert "hash" not in shown


def test_rotate_and_revoke(cast):
    admin = bearer(every_scope(cast.support).secret)
    first = issue(cast.support)
    address = f"{KEYS}{first.key.pk}/"
    with one_event("service_key.rotated"):
        answer = send(admin, "post", f"{address}rotate/", {"grace_seconds": 60, "reason": "yearly"})
    assert answer.status_code == 200
    assert find_key(answer.json()["secret"]) == find_key(first.secret) == first.key
    with no_event():
        refused(send(admin, "post", f"{address}rotate/", {"grace_seconds": -1}), 400, "grace_seconds")
        refused(send(admin, "post", f"{address}rotate/", {"grace_seconds": 10**9}), 400, "grace_seconds")
        refused(send(admin, "post", f"{address}rotate/", {"grace": 60}), 400, "grace")
    with one_event("service_key.revoked"):
        assert send(admin, "post", f"{address}revoke/").json()["revoked_at"]
    with no_event():
        refused(send(admin, "post", f"{address}revoke/"), 409)
    assert find_key(first.secret) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", None),
        ("name", ""),
        ("name", "x" * 81),
        ("name", ["a"]),
        ("name", "nul\0"),
        ("project", "nowhere"),
        ("project", None),
        ("project", {"slug": "support"}),
        ("scopes", "inference"),
        ("scopes", ["admin"]),
        ("scopes", []),
        ("scopes", [{}]),
        ("rpm", 0),
        ("rpm", "many"),
        ("rpm", 10**30),
        ("rpm", 1.5),
        ("tpm", True),
        ("concurrency", -5),
        ("expires_at", "tomorrow"),
        ("expires_at", "2001-01-01T00:00:00Z"),
        ("allowed_routes", "chat"),
        ("allowed_routes", [""]),
        ("allowed_models", [None]),
        ("limit", 5),
        ("secret_hash", "0" * 64),
    ],
)
def test_bad_fields_are_named(secret, field, value):
    admin = bearer(secret)
    before = ServiceKey.objects.count()
    with no_event():
        answer = send(admin, "post", KEYS, {"project": "support", "name": "n", field: value})
    assert answer.status_code == 400, answer.content
    error = answer.json()["error"]
    assert error["param"] == field or (error["code"] == "parse_error" and "\0" in str(value)), error
    assert ServiceKey.objects.count() == before


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"7",
        b'{"name": "a", "name": "b"}',
        b'{"name": NaN}',
        b'{"name": "\\ud800"}',
        b'{"name": "\\u0000"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"rpm": ' + b"9" * 10_000 + b"}",
    ],
)
def test_bodies_that_are_not_an_object_are_400(cast, body):
    client = bearer(every_scope(cast.support).secret)
    for address in (KEYS, PROJECTS, MEMBERS, USERS):
        with no_event():
            answer = client.post(address, body, content_type="application/json")
        assert answer.status_code == 400, (address, answer.content)
        assert answer.json()["error"]["message"]


@pytest.mark.any_engine
def test_a_body_that_is_too_large_is_413(cast, settings):
    settings.MAX_API_BYTES = 1000
    client = bearer(every_scope(cast.support).secret)
    refused(client.post(KEYS, b'{"name": "' + b"x" * 2000 + b'"}', content_type="application/json"), 413)


@pytest.mark.any_engine
def test_other_media_types_and_methods(cast):
    client = bearer(every_scope(cast.support).secret)
    assert client.post(KEYS, {"name": "x"}).status_code == 415
    assert client.post(KEYS, "<a/>", content_type="application/xml").status_code == 415
    assert client.put(KEYS, "{}", content_type="application/json").status_code == 405
    assert client.delete(PROJECTS).status_code == 405
    key = issue(cast.support).key
    assert client.delete(f"{KEYS}{key.pk}/").status_code == 405
    assert client.get(f"{KEYS}{key.pk}/rotate/").status_code == 405


@pytest.mark.parametrize(
    "address",
    [
        "/api/",
        "/api/v2/",
        "/api/v1/",
        "/api/v1/nothing/",
        "/api/v1/service-keys/not-a-uuid/",
        "/api/v1/service-keys/00000000-0000-0000-0000-000000000000/",
        "/api/v1/users/99999999999999999999999/",
        "/api/v1/users/abc/",
        "/api/v1/projects/..%2f..%2fetc/",
        "/api/v1/memberships/%F0%9F%98%80/",
    ],
)
def test_what_is_not_there_is_a_404_in_json(cast, address):
    answer = signed_in(cast.root).get(address)
    assert answer["Content-Type"] == "application/json"
    refused(answer, 404)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "address",
    ["/api/v1/projects/no%00thing/", "/api/v1/projects/?slug=%00", "/admin/access/project/?q=%00", "/%00"],
)
def test_an_address_with_nul_is_a_400(cast, address):
    assert signed_in(cast.root).get(address).status_code == 400


@pytest.mark.any_engine
def test_a_fault_is_a_500_in_json_without_its_reason(cast, monkeypatch):
    def breaks(*args, **kwargs):
        raise ZeroDivisionError("a secret reason")

    monkeypatch.setattr(services, "create_project", breaks)
    client = signed_in(cast.root, raise_request_exception=False)
    answer = send(client, "post", PROJECTS, {"slug": "x"})
    error = refused(answer, 500)
    assert "secret reason" not in answer.content.decode()
    assert answer["x-request-id"] in error["message"]


def test_another_projects_rows_do_not_exist(cast):
    theirs = issue(cast.search).key
    membership = Membership.objects.get(user=cast.charlie)
    for client in (bearer(every_scope_but_organisation(cast).secret), signed_in(cast.bob)):
        with no_event():
            for method, address in (
                ("get", f"{KEYS}{theirs.pk}/"),
                ("patch", f"{KEYS}{theirs.pk}/"),
                ("post", f"{KEYS}{theirs.pk}/rotate/"),
                ("post", f"{KEYS}{theirs.pk}/revoke/"),
                ("get", f"{PROJECTS}search/"),
            ):
                answer = client.get(address) if method == "get" else send(client, method, address)
                assert answer.status_code == 404, (method, address, answer.content)
                assert "search" not in answer.content.decode()
            unknown, foreign = (
                refused(send(client, "post", KEYS, {"project": slug, "name": "n"}), 400, "project")["message"]
                for slug in ("nowhere", "search")
            )
        assert unknown.replace("nowhere", "") == foreign.replace("search", "")
        assert "search" not in client.get(PROJECTS).content.decode()
    strong = bearer(every_scope_but_organisation(cast).secret)
    for method in ("patch", "delete"):
        assert send(strong, method, f"{MEMBERS}{membership.pk}/").status_code == 404
    assert "charlie" not in strong.get(MEMBERS).content.decode()
    refused(strong.get(USERS), 403)
    refused(strong.get(f"{USERS}{cast.charlie.pk}/"), 403)


def every_scope_but_organisation(cast):
    from llmops.access.rules import SCOPES

    return issue(cast.support, *(scope for scope in SCOPES if scope != "organisation"))


def test_projects(cast):
    client = bearer(every_scope(cast.support).secret)
    with one_event("project.created"):
        answer = send(client, "post", PROJECTS, {"slug": "new", "owner": "a@example.com"})
    assert (answer.status_code, answer.json()["name"]) == (201, "new")
    with one_event("project.changed"):
        assert send(client, "patch", f"{PROJECTS}new/", {"name": "New"}).json()["name"] == "New"
    with one_event("project.archived"):
        assert send(client, "post", f"{PROJECTS}new/archive/", {"reason": "done"}).json()["archived_at"]
    with one_event("project.restored"):
        assert send(client, "post", f"{PROJECTS}new/restore/").json()["archived_at"] is None
    with no_event():
        refused(send(client, "post", PROJECTS, {"slug": "new"}), 409, "slug")
        refused(send(client, "post", PROJECTS, {"slug": "N e w"}), 400, "slug")
        refused(send(client, "post", PROJECTS, {}), 400, "slug")
        refused(send(client, "patch", f"{PROJECTS}new/", {"slug": "other"}), 400, "slug")
        refused(send(client, "patch", f"{PROJECTS}new/", {"owner": "nobody"}), 400, "owner")
        refused(send(client, "post", f"{PROJECTS}new/restore/"), 409)


def test_memberships(cast):
    client = bearer(every_scope(cast.support).secret)
    with one_event("member.added"):
        answer = send(client, "post", MEMBERS, {"user": "charlie", "project": "support", "role": "finance"})
    assert answer.status_code == 201
    address = f"{MEMBERS}{answer.json()['id']}/"
    with one_event("member.role_changed"):
        assert send(client, "patch", address, {"role": "auditor"}).json()["role"] == "auditor"
    with no_event():
        refused(send(client, "patch", address, {"user": "bob"}), 400)
        refused(send(client, "patch", address, {}), 400, "role")
        refused(send(client, "post", MEMBERS, {"user": "ghost", "role": "finance"}), 400, "user")
        refused(
            send(client, "post", MEMBERS, {"user": "charlie", "project": "support", "role": "auditor"}),
            409,
            "role",
        )
    with one_event("member.removed"):
        assert client.delete(address).status_code == 204
    with one_event("member.added"):
        answer = send(client, "post", MEMBERS, {"user": "charlie", "role": "finance"})
    assert answer.json()["project"] is None


def test_accounts(cast):
    client = signed_in(cast.root)
    with one_event("user.created"):
        answer = send(client, "post", USERS, {"username": "eve", "password": PASSWORD})
    assert answer.status_code == 201
    assert "password" not in answer.json()
    address = f"{USERS}{answer.json()['id']}/"
    for action, path, body in (
        ("user.changed", "", {"email": "e@example.com"}),
        ("user.password_set", "set-password/", {"password": f"{PASSWORD}!"}),
        ("user.deactivated", "deactivate/", {"reason": "left"}),
        ("user.activated", "activate/", {}),
        ("user.unlocked", "unlock/", {}),
    ):
        with one_event(action):
            answer = send(client, "post" if path else "patch", f"{address}{path}", body)
        assert answer.status_code == 200
        assert PASSWORD not in answer.content.decode()
    with no_event():
        refused(send(client, "post", USERS, {"username": "eve"}), 409, "username")
        refused(send(client, "post", USERS, {"username": "weak", "password": "short"}), 400, "password")
        refused(send(client, "post", f"{address}activate/"), 409)
        refused(send(client, "patch", address, {"is_active": False, "password": "x"}), 400, "password")


def test_lists_are_pages_and_filters_bite(cast):
    for number in range(3):
        issue(cast.support, name=f"k{number}")
    issue(cast.search, name="other")
    client = signed_in(cast.root)
    page = client.get(f"{KEYS}?page_size=2").json()
    assert len(page["results"]) == 2
    assert len(client.get(page["next"]).json()["results"]) == 2
    assert [key["name"] for key in client.get(f"{KEYS}?project__slug=search").json()["results"]] == ["other"]


@pytest.mark.any_engine
def test_the_schema_and_its_page(cast):
    client = signed_in(cast.bob)
    schema = client.get("/api/v1/schema/", headers={"accept": "application/json"})
    assert schema.status_code == 200
    assert "/api/v1/service-keys/{id}/rotate/" in schema.content.decode()
    # Made once for everybody, and not as whoever came first wished to have it called.
    for accept in ("application/json", "application/vnd.oai.openapi+json"):
        again = client.get("/api/v1/schema/?version=mine", headers={"accept": accept})
        assert (again.content, again["content-type"].split(";")[0]) == (schema.content, accept)
    page = client.get("/api/v1/docs/")
    assert page.status_code == 200
    assert "cdn" not in page.content.decode()
    # A key with no right to look does not get them.
    refused(bearer(issue(cast.support, "inference").secret).get("/api/v1/schema/"), 403)


def test_use_is_noted_at_most_once_a_minute(cast, django_assert_num_queries):
    issued = issue(cast.support, "read")
    client = bearer(issued.secret)
    client.get(PROJECTS)
    issued.key.refresh_from_db()
    first = issued.key.last_used_at
    assert first is not None
    with django_assert_num_queries(2):
        client.get(PROJECTS)
    issued.key.refresh_from_db()
    assert issued.key.last_used_at == first
