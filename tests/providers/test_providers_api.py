"""``/api/v1`` of providers: what each answers, to whom, and that a change is one event."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.providers.models import Credential, Model, Price, Provider, Route
from tests import configuring
from tests.cast import bearer, every_scope, issue, no_event, one_event, signed_in
from tests.kept import kept
from tests.providers.answering import answer

pytestmark = pytest.mark.django_db

API = "/api/v1"
MODEL = {
    "slug": "small",
    "provider": "sim",
    "upstream_model": "small-1",
    "context_window": 8000,
    "max_output_tokens": 1000,
    "default_max_output_tokens": 100,
    "capabilities": ["chat", "stream"],
    "parameters": {"temperature": 0.5},
}


@kept
def secret(cast):
    return every_scope(cast.support).secret


@pytest.fixture
def client(secret):
    return bearer(secret)


@kept
def everything():
    return configuring.everything()


def post(client, path, expect=201, **body):
    response = client.post(f"{API}{path}", body, content_type="application/json")
    assert response.status_code == expect, response.content
    return response.json()


def patch(client, path, expect=200, **body):
    response = client.patch(f"{API}{path}", body, content_type="application/json")
    assert response.status_code == expect, response.content
    return response.json()


def get(client, path, expect=200):
    response = client.get(f"{API}{path}")
    assert response.status_code == expect, response.content
    return response.json()


def test_from_nothing_to_a_published_route(client):
    with one_event("provider.created"):
        made = post(
            client,
            "/providers/",
            slug="sim",
            kind="simulator",
            base_url="http://127.0.0.1:9/v1",
            allow_private_network=True,
        )
    assert made["connect_timeout_ms"] == 5000
    with one_event("model.created"):
        made = post(client, "/models/", **MODEL)
    assert (made["current"]["version"], made["current"]["provider"]) == (1, "sim")
    with one_event("price.added"):
        price = post(client, "/models/small/prices/", token_class="input", usd_per_million="2.50")
    assert price["usd_per_million"] == "2.50"
    assert Price.objects.get().nano_per_million == 2_500_000_000
    with one_event("route.created"):
        made = post(client, "/routes/", slug="chat", targets=[{"model": "small"}], fallbacks=[], attempts=2)
    assert made["targets"] == [{"model": "small", "weight": 100}]
    pending = get(client, "/revisions/pending/")
    assert pending["publishable"]
    assert {problem["code"] for problem in pending["problems"]} == {"no_key", "unpriced"}
    with one_event("revision.published"):
        revision = post(client, "/revisions/", reason="first", expected_revision=0)
    assert (revision["number"], revision["live"]) == (1, True)


@pytest.mark.any_engine
def test_lists_and_single_rows_read_the_same(client):
    configuring.everything()
    for path, key in (
        ("/providers/", "slug"),
        ("/models/", "slug"),
        ("/routes/", "slug"),
        ("/credentials/", "id"),
    ):
        [row] = get(client, path)["results"]
        assert get(client, f"{path}{row[key]}/") == row
    assert get(client, "/models/small/")["prices"] == {"input": "2.50", "output": "10.00"}
    assert get(client, "/providers/?slug=none")["results"] == []


def test_changes_are_patches_with_one_event(client):
    configuring.everything()
    configuring.model("large")
    with one_event("provider.changed"):
        assert patch(client, "/providers/sim/", name="Sim", slug="sim")["name"] == "Sim"
    with one_event("route.changed"):
        changed = patch(client, "/routes/chat/", fallbacks=["large"], cache_ttl_s=60)
    assert (changed["fallbacks"], changed["targets"]) == (["large"], [{"model": "small", "weight": 100}])
    with no_event():
        patch(client, "/routes/chat/", cache_ttl_s=60)
    with one_event("model.pinned"):
        version = post(
            client, "/models/small/versions/", max_output_tokens=50, default_max_output_tokens=50, note="less"
        )
    assert (version["version"], version["note"], version["upstream_model"]) == (2, "less", "small")
    with no_event():
        assert post(client, "/models/small/versions/", 200, max_output_tokens=50)["version"] == 2
    assert [row["version"] for row in get(client, "/models/small/versions/")] == [2, 1]


@pytest.mark.any_engine
def test_switches(client):
    configuring.everything()
    for kind, path in (("provider", "/providers/sim/"), ("route", "/routes/chat/")):
        with one_event(f"{kind}.paused"):
            assert post(client, f"{path}pause/", 200, reason="broken")["pause_reason"] == "broken"
        with one_event(f"{kind}.resumed"):
            assert post(client, f"{path}resume/", 200)["paused_at"] is None
    for kind, path in (
        ("route", "/routes/chat/"),
        ("model", "/models/small/"),
        ("provider", "/providers/sim/"),
    ):
        with one_event(f"{kind}.archived"):
            assert post(client, f"{path}archive/", 200)["archived_at"]
    for kind, path in (
        ("provider", "/providers/sim/"),
        ("model", "/models/small/"),
        ("route", "/routes/chat/"),
    ):
        with one_event(f"{kind}.restored"):
            assert post(client, f"{path}restore/", 200)["archived_at"] is None


def test_a_key_from_staged_to_revoked(client, answering):
    server = answering()
    configuring.provider(base_url=server.url)
    with one_event("credential.added"):
        made = post(client, "/credentials/", provider="sim", name="primary", secret="sk-test-0123456789")
    assert made["state"] == "staged"
    assert "secret" not in made
    path = f"/credentials/{made['id']}"
    with one_event("credential.probed"):
        assert post(client, f"{path}/probe/", 200)["state"] == "probed"
    with one_event("credential.activated"):
        assert post(client, f"{path}/activate/", 200)["state"] == "active"
    server.script = answer(401)
    with one_event("credential.probed"):
        assert "401" in post(client, f"{path}/probe/", 200)["last_failure"]
    with one_event("credential.replaced"):
        post(client, f"{path}/replace-secret/", 200, source="env", reference="SIM_KEY")
    with one_event("credential.drained"):
        assert post(client, f"{path}/drain/", 200)["state"] == "draining"
    with one_event("credential.revoked"):
        assert post(client, f"{path}/revoke/", 200, reason="leaked")["state"] == "revoked"
    with no_event():
        assert post(client, f"{path}/activate/", 409)["error"]["code"] == "conflict"


#: Path, body, status, and the field that is named.
WRONG: list[tuple[str, dict[str, Any], int, str | None]] = [
    ("/providers/", {}, 400, "slug"),
    ("/providers/", {"slug": "a", "kind": "openai", "base_url": "http://x.example/v1"}, 400, "base_url"),
    (
        "/providers/",
        {"slug": "a", "kind": "openai", "base_url": "https://169.254.169.254/"},
        400,
        "base_url",
    ),
    ("/providers/", {"slug": "a", "kind": "x", "base_url": "https://h.example/v1"}, 400, "kind"),
    ("/providers/", {"slug": "sim", "kind": "openai", "base_url": "https://h.example/v1"}, 409, "slug"),
    (
        "/providers/",
        {"slug": "a", "kind": "openai", "base_url": "https://h.example/v1", "x": 1},
        400,
        "x",
    ),
    (
        "/providers/",
        {"slug": "a", "kind": "openai", "base_url": "https://h.example/v1", "name": "a\nb"},
        400,
        "name",
    ),
    ("/providers/", {"slug": "a", "kind": "openai", "base_url": ["x"]}, 400, "base_url"),
    ("/models/", {**MODEL, "slug": "x", "provider": "nobody"}, 400, "provider"),
    ("/models/", {**MODEL, "slug": "x", "context_window": 1.5}, 400, "context_window"),
    ("/models/", {**MODEL, "slug": "x", "context_window": 2**70}, 400, "context_window"),
    ("/models/", {**MODEL, "slug": "x", "parameters": {"stream": True}}, 400, "parameters"),
    ("/models/", {**MODEL, "slug": "x", "parameters": []}, 400, "parameters"),
    ("/models/", {**MODEL, "slug": "x", "capabilities": ["flying"]}, 400, "capabilities"),
    ("/models/", {**MODEL, "slug": "small"}, 409, "slug"),
    ("/models/small/prices/", {"token_class": "input", "usd_per_million": 2.5}, 400, "usd_per_million"),
    ("/models/small/prices/", {"token_class": "input", "usd_per_million": "-1"}, 400, "usd_per_million"),
    ("/models/small/prices/", {"token_class": "dreams", "usd_per_million": "1"}, 400, "token_class"),
    ("/models/small/prices/", {"token_class": "input"}, 400, "usd_per_million"),
    ("/models/small/versions/", {"revision": 9}, 400, "revision"),
    ("/models/small/versions/", {"max_output_tokens": 10**7}, 400, None),
    ("/routes/", {"slug": "r", "targets": [{"model": "nobody"}]}, 400, "targets"),
    ("/routes/", {"slug": "r", "targets": [{"model": "small", "weight": -1}]}, 400, "targets"),
    ("/routes/", {"slug": "r", "targets": "small"}, 400, "targets"),
    ("/routes/", {"slug": "r", "fallbacks": ["small", "small"]}, 400, "fallbacks"),
    ("/routes/", {"slug": "r", "attempts": 0}, 400, "attempts"),
    ("/routes/chat/pause/", {}, 400, "reason"),
    ("/routes/nobody/pause/", {"reason": "x"}, 404, None),
    ("/credentials/", {"provider": "sim", "name": "a"}, 400, "secret"),
    ("/credentials/", {"provider": "sim", "name": "a", "secret": "****"}, 400, "secret"),
    (
        "/credentials/",
        {"provider": "sim", "name": "a", "source": "vault", "reference": "x"},
        400,
        "reference",
    ),
    (
        "/credentials/",
        {"provider": "sim", "name": "a", "source": "env", "reference": "A B"},
        400,
        "reference",
    ),
    ("/credentials/", {"provider": "sim", "name": "primary", "secret": "sk-0123456789"}, 409, None),
    ("/credentials/nonsense/probe/", {}, 404, None),
    ("/revisions/", {}, 400, "reason"),
    ("/revisions/", {"reason": "x", "expected_revision": 5}, 409, None),
    ("/revisions/7/restore/", {"reason": "x"}, 404, None),
]


def on_one_engine_unless_it_conflicts(path, body, status, param):
    """What is taken, each engine says in its own way."""
    return pytest.param(path, body, status, param, marks=[] if status == 409 else [pytest.mark.any_engine])


@pytest.mark.parametrize(
    ("path", "body", "status", "param"), [on_one_engine_unless_it_conflicts(*row) for row in WRONG]
)
def test_what_is_wrong_is_named_and_leaves_nothing(client, everything, path, body, status, param):
    with no_event():
        error = post(client, path, status, **body)["error"]
    if param is not None:
        assert error["param"] == param, error
    assert error["message"]


def test_a_slug_stays(client):
    configuring.everything()
    for path in ("/providers/sim/", "/routes/chat/"):
        with no_event():
            assert patch(client, path, 400, slug="other")["error"]["param"] == "slug"


def test_nothing_can_be_removed_or_overwritten(client):
    configuring.everything()
    credential = Credential.objects.get()
    for path in ("/providers/sim/", "/models/small/", "/routes/chat/", f"/credentials/{credential.pk}/"):
        for method in (client.delete, client.put):
            with no_event():
                assert method(f"{API}{path}").status_code in (403, 405)
    assert (Provider.objects.count(), Model.objects.count(), Route.objects.count()) == (1, 1, 1)


LOOKING = ["/providers/", "/credentials/", "/models/", "/routes/", "/revisions/", "/revisions/pending/"]
#: who may look at which of the above
LOOKERS = {
    "alice": LOOKING,
    "bob": LOOKING,
    "carla": ["/models/", "/routes/"],
    "dan": LOOKING,
    "rita": [],
}
CHANGES = [
    ("/providers/", {"slug": "a", "kind": "openai", "base_url": "https://h.example/v1"}),
    ("/providers/sim/pause/", {"reason": "x"}),
    ("/credentials/", {"provider": "sim", "name": "a", "secret": "sk-0123456789"}),
    ("/models/", {**MODEL, "slug": "x"}),
    ("/models/small/prices/", {"token_class": "reasoning", "usd_per_million": "1"}),
    ("/routes/chat/pause/", {"reason": "x"}),
    ("/revisions/", {"reason": "x"}),
    ("/routes/", {"slug": "r"}),
]


@pytest.mark.any_engine
@pytest.mark.parametrize("who", LOOKERS)
def test_who_may_look(cast, who):
    configuring.everything()
    client = signed_in(getattr(cast, who))
    allowed = [path for path in LOOKING if client.get(f"{API}{path}").status_code == 200]
    assert allowed == LOOKERS[who]


@pytest.mark.any_engine
@pytest.mark.parametrize("who", ["bob", "carla", "dan", "rita", "charlie"])
def test_a_role_in_one_project_changes_nothing_of_the_organisation(cast, who):
    configuring.everything()
    client = signed_in(getattr(cast, who))
    for path, body in CHANGES:
        with no_event():
            response = client.post(f"{API}{path}", body, content_type="application/json")
        assert response.status_code in (403, 404), (path, response.content)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "scopes", [("inference",), ("read",), ("configure",), ("read", "budgets", "organisation")]
)
def test_a_key_of_a_project_changes_nothing_of_the_organisation(cast, scopes):
    configuring.everything()
    client = bearer(issue(cast.support, *scopes).secret)
    for path, body in CHANGES:
        with no_event():
            response = client.post(f"{API}{path}", body, content_type="application/json")
        assert response.status_code in (401, 403, 404), (path, response.content)


@pytest.mark.any_engine
def test_a_key_with_the_scopes_may(cast):
    configuring.everything()
    client = bearer(issue(cast.support, "configure", "organisation").secret)
    for path, body in CHANGES:
        with one_event():
            response = client.post(f"{API}{path}", body, content_type="application/json")
        assert response.status_code in (200, 201), (path, response.content)


@pytest.mark.any_engine
def test_nobody_is_told_anything_without_a_key(cast, client):
    from django.test import Client

    configuring.everything()
    for path in LOOKING:
        assert Client().get(f"{API}{path}").status_code == 401
