"""The admin pages of providers: one event each, refusals on the field, keys that cannot be read, rows of targets."""

from __future__ import annotations

import re

import pytest

from llmops.providers.models import Credential, Model, Price, Provider, Route
from llmops.providers.selectors import reveal
from tests import configuring
from tests.cast import no_event, one_event, signed_in
from tests.providers.answering import answer

pytestmark = pytest.mark.django_db

ADMIN = "/admin/providers"
SECRET = "sk-PLANTED-0123456789abcdef"


@pytest.fixture
def client(cast):
    return signed_in(cast.alice)


def fields_of(client, address) -> dict[str, str]:
    """What a browser would send when the form is saved as it is."""
    page = client.get(address)
    assert page.status_code == 200, page.content[:300]
    form = page.context["adminform"].form
    data: dict[str, str] = {}
    for bound in form:
        value = bound.value()
        if bound.name in ("targets", "fallbacks"):
            for index, (slug, weight) in enumerate(value or []):
                data[f"{bound.name}-{index}-model"] = slug
                data[f"{bound.name}-{index}-weight"] = str(weight)
        elif isinstance(value, bool):
            if value:
                data[bound.name] = "on"
        elif value is not None:
            data[bound.name] = value
    hidden = dict(re.findall(r'<input type="hidden" name="(_loaded)" value="([^"]*)"', page.content.decode()))
    return {
        **data,
        **hidden,
        **{f"{prefix}-{name}_FORMS": "0" for prefix in prefixes(page) for name in ("TOTAL", "INITIAL")},
    }


def prefixes(page) -> list[str]:
    return [formset.formset.prefix for formset in page.context["inline_admin_formsets"]]


def errors_of(response) -> dict[str, list[str]]:
    assert response.status_code == 200
    form = response.context["adminform"].form if "adminform" in response.context else response.context["form"]
    return {name: list(found) for name, found in form.errors.items()}


def management(*names: str) -> dict[str, str]:
    return {f"{prefix}-{name}_FORMS": "0" for prefix in names for name in ("TOTAL", "INITIAL")}


@pytest.mark.any_engine
def test_every_page_opens_with_its_rows(client):
    configuring.everything()
    small = configuring.model("spare")
    for kind, row in (
        ("provider", Provider.objects.get()),
        ("credential", Credential.objects.get()),
        ("model", small),
        ("price", Price.objects.first()),
        ("route", Route.objects.get()),
    ):
        name = getattr(row, "slug", None) or getattr(row, "name", None) or row.model.slug
        for address in (
            f"{ADMIN}/{kind}/",
            f"{ADMIN}/{kind}/add/",
            f"{ADMIN}/{kind}/{row.pk}/change/",
            f"{ADMIN}/{kind}/{row.pk}/history/",
        ):
            with no_event():
                page = client.get(address)
            assert page.status_code == 200, address
            if not address.endswith("/add/"):
                assert name in page.content.decode(), address


@pytest.mark.any_engine
def test_a_provider_is_added_changed_and_refused_on_its_field(client):
    form = {
        "slug": "openai", "name": "OpenAI", "kind": "openai", "base_url": "https://api.openai.com/v1",
        "connect_timeout_ms": "5000", "read_timeout_ms": "60000", "write_timeout_ms": "10000",
        "pool_timeout_ms": "10000", "max_connections": "100", "proxy_url": "", "organization": "",
        "provider_project": "", **management("credentials"),
    }  # fmt: skip
    for bad, field in (
        ({"base_url": "http://api.openai.com/v1"}, "base_url"),
        ({"base_url": "https://user:pw@api.openai.com/v1"}, "base_url"),
        ({"base_url": "https://10.0.0.1/v1"}, "base_url"),
        ({"proxy_url": "http://u:p@proxy:1"}, "proxy_url"),
        ({"connect_timeout_ms": "1"}, "connect_timeout_ms"),
    ):
        with no_event():
            assert field in errors_of(client.post(f"{ADMIN}/provider/add/", {**form, **bad})), bad
    with one_event("provider.created") as seen:
        assert client.post(f"{ADMIN}/provider/add/", form).status_code == 302
    assert seen.event.actor_name == "alice"
    provider = Provider.objects.get()
    address = f"{ADMIN}/provider/{provider.pk}/change/"
    data = fields_of(client, address)
    with one_event("provider.changed") as seen:
        assert client.post(address, {**data, "read_timeout_ms": "30000"}).status_code == 302
    assert seen.event.after == {"read_timeout_ms": 30000}
    with no_event():
        stale = errors_of(client.post(address, {**data, "read_timeout_ms": "10000"}))
    assert "Somebody changed this" in str(stale)


@pytest.mark.any_engine
def test_a_key_is_added_and_never_shown(client):
    sim = configuring.provider()
    form = {"provider": str(sim.pk), "name": "primary", "source": "sealed", "secret": SECRET, "reference": ""}
    for bad, field in (
        ({"secret": ""}, "secret"),
        ({"secret": "****"}, "secret"),
        ({"source": "env", "secret": ""}, "reference"),
        ({"source": "env", "reference": "CONSOLE_MASTER_KEYS", "secret": ""}, "reference"),
        ({"source": "vault", "reference": "x", "secret": ""}, "reference"),
    ):
        with no_event():
            response = client.post(f"{ADMIN}/credential/add/", {**form, **bad})
        assert field in errors_of(response), bad
        assert SECRET not in response.content.decode()
    with one_event("credential.added"):
        assert client.post(f"{ADMIN}/credential/add/", form).status_code == 302
    credential = Credential.objects.get()
    assert reveal(credential, to=credential.provider.base_url) == SECRET
    page = client.get(f"{ADMIN}/credential/{credential.pk}/change/").content.decode()
    assert SECRET not in page
    assert credential.sealed not in page


@pytest.mark.any_engine
def test_a_key_goes_its_way_by_buttons(client, answering):
    server = answering()
    sim = configuring.provider(base_url=server.url)
    credential = configuring.credential(sim)
    address = f"{ADMIN}/credential/{credential.pk}"

    def press(button, event, *, status=302, **data):
        with no_event():
            assert client.get(f"{address}/{button}/").status_code == 200
        with one_event(event):
            response = client.post(f"{address}/{button}/", data)
        assert response.status_code == status, response.content.decode()[-2000:]
        credential.refresh_from_db()
        return response

    server.script = answer(401)
    assert "401" in press("probe", "credential.probed", status=200).content.decode()
    server.script = answer(200)
    press("probe", "credential.probed")
    assert credential.state == "probed"
    press("activate", "credential.activated")
    press("replace", "credential.replaced", source="sealed", secret=SECRET, reference="")
    assert reveal(credential, to=credential.provider.base_url) == SECRET
    press("drain", "credential.drained", reason="rotating")
    press("revoke", "credential.revoked", reason="leaked")
    assert credential.state == "revoked"
    with no_event():
        page = client.post(f"{address}/activate/", {"unprobed_reason": "x"})
    assert "revoked" in page.content.decode()


@pytest.mark.any_engine
def test_an_unprobed_key_asks_for_a_reason(client):
    credential = configuring.credential()
    address = f"{ADMIN}/credential/{credential.pk}/activate/"
    with no_event():
        assert "Probe it first" in client.post(address, {}).content.decode()
    with one_event("credential.activated"):
        client.post(address, {"unprobed_reason": "the provider is away"})


MODEL = {
    "slug": "small", "upstream_model": "small-1", "floats_reason": "", "context_window": "8000",
    "max_output_tokens": "1000", "default_max_output_tokens": "100", "parameters": '{"temperature": 0}',
    "capabilities": ["chat"], "note": "", **management("prices", "versions"),
}  # fmt: skip


@pytest.mark.any_engine
def test_a_model_is_added_and_a_change_is_a_version(client):
    sim = configuring.provider()
    form = {**MODEL, "provider": str(sim.pk)}
    for bad, field in (
        ({"parameters": "[1]"}, "parameters"),
        ({"parameters": "{"}, "parameters"),
        ({"parameters": '{"model": "x"}'}, "parameters"),
        ({"capabilities": ["flying"]}, "capabilities"),
        ({"context_window": "-1"}, "context_window"),
        ({"slug": "A B"}, "slug"),
        ({"provider": ""}, "provider"),
    ):
        with no_event():
            assert field in errors_of(client.post(f"{ADMIN}/model/add/", {**form, **bad})), bad
    with one_event("model.created"):
        assert client.post(f"{ADMIN}/model/add/", form).status_code == 302
    model = Model.objects.get()
    assert model.current.parameters == {"temperature": 0}
    address = f"{ADMIN}/model/{model.pk}/change/"
    data = fields_of(client, address)
    with no_event():
        assert client.post(address, data).status_code == 302
    with one_event("model.pinned") as seen:
        assert (
            client.post(address, {**data, "max_output_tokens": "500", "note": "cheaper"}).status_code == 302
        )
    assert seen.event.reason == "cheaper"
    assert seen.event.after["max_output_tokens"] == 500
    assert "parameters" not in seen.event.after
    assert model.versions.count() == 2


@pytest.mark.any_engine
def test_a_floating_alias_is_refused_on_its_field(client):
    openai = configuring.provider("openai", kind="openai", base_url="https://api.openai.com/v1")
    form = {**MODEL, "provider": str(openai.pk), "slug": "gpt-4o", "upstream_model": "gpt-4o"}
    with no_event():
        assert "alias" in str(errors_of(client.post(f"{ADMIN}/model/add/", form))["upstream_model"])
    with one_event("model.created"):
        client.post(f"{ADMIN}/model/add/", {**form, "floats_reason": "we want the newest"})


@pytest.mark.any_engine
def test_prices_are_written_in_usd_per_million(client):
    small = configuring.model("small")
    form = {
        "model": str(small.pk),
        "token_class": "input",
        "usd_per_million": "2.50",
        "effective_from_0": "",
        "effective_from_1": "",
        "source": "price list",
    }
    for bad in ("2,50", "-1", "", "1e-20", "NaN"):
        with no_event():
            assert "usd_per_million" in errors_of(
                client.post(f"{ADMIN}/price/add/", {**form, "usd_per_million": bad})
            ), bad
    with one_event("price.added"):
        assert client.post(f"{ADMIN}/price/add/", form).status_code == 302
    assert Price.objects.get().nano_per_million == 2_500_000_000
    with one_event("price.added"):
        client.post(
            f"{ADMIN}/model/{small.pk}/price/",
            {
                "token_class": "input",
                "usd_per_million": "3",
                "effective_from_0": "2100-01-01",
                "effective_from_1": "00:00:00",
                "source": "",
            },
        )
    assert "2.50" in client.get(f"{ADMIN}/model/").content.decode()
    price = Price.objects.first()
    with no_event():
        assert client.post(f"{ADMIN}/price/{price.pk}/change/", form).status_code == 403
        assert client.post(f"{ADMIN}/price/{price.pk}/delete/", {"post": "yes"}).status_code == 403


ROUTE = {
    "slug": "chat", "description": "", "attempts": "3", "total_timeout_ms": "90000", "breaker_failure_percent": "50",
    "breaker_window_s": "60", "breaker_min_calls": "20", "breaker_cooldown_s": "30", "cache_ttl_s": "0", "clamp_output": "on",
    "context_strategy": "refuse", "last_resort": "none", "max_concurrency": "0", "queue_size": "200",
    "queue_timeout_ms": "5000", "keep_alive_s": "15",
}  # fmt: skip


@pytest.mark.any_engine
def test_a_route_is_one_form_with_rows(client):
    small, large = configuring.model("small"), configuring.model("large")
    rows = {
        "targets-0-model": "small", "targets-0-weight": "80", "targets-1-model": "", "targets-1-weight": "100",
        "targets-2-model": "large", "targets-2-weight": "", "fallbacks-0-model": "large", "fallbacks-1-model": "small",
    }  # fmt: skip
    for bad, field in (
        ({"targets-0-weight": "-1"}, "targets"),
        ({"targets-0-weight": "much"}, "targets"),
        ({"targets-0-model": "nobody"}, "targets"),
        ({"targets-0-model": "large"}, "targets"),
        ({"fallbacks-0-model": "small"}, "fallbacks"),
        ({"attempts": "0"}, "attempts"),
    ):
        with no_event():
            response = client.post(f"{ADMIN}/route/add/", {**ROUTE, **rows, **bad})
        assert field in errors_of(response), bad
        # What was typed is shown again.
        assert 'value="80"' in response.content.decode() or "targets-0-weight" in bad
    with one_event("route.created") as seen:
        assert client.post(f"{ADMIN}/route/add/", {**ROUTE, **rows}).status_code == 302
    assert seen.event.after["targets"] == {"large": 100, "small": 80}
    assert seen.event.after["fallbacks"] == ["large", "small"]
    route = Route.objects.get()
    address = f"{ADMIN}/route/{route.pk}/change/"
    data = fields_of(client, address)
    with no_event():
        assert client.post(address, data).status_code == 302
    data = fields_of(client, address)
    changed = {name: value for name, value in data.items() if not name.startswith("fallbacks-")}
    with one_event("route.changed") as seen:
        assert client.post(address, changed).status_code == 302
    assert seen.event.after == {"fallbacks": []}
    assert {row.model for row in route.targets.all()} == {small, large}


@pytest.mark.any_engine
@pytest.mark.parametrize(("kind", "index"), [("provider", 0), ("route", 2)])
def test_pause_and_archive_are_buttons(client, kind, index):
    row = configuring.everything()[index]
    address = f"{ADMIN}/{kind}/{row.pk}"
    with no_event():
        assert client.post(f"{address}/pause/", {"reason": ""}).status_code == 200
    with one_event(f"{kind}.paused"):
        assert client.post(f"{address}/pause/", {"reason": "broken"}).status_code == 302
    assert "broken" in client.get(f"{address}/change/").content.decode()
    with one_event(f"{kind}.resumed"):
        assert client.post(f"{address}/resume/", {}).status_code == 302
    if kind == "provider":
        with no_event():
            assert "small" in client.post(f"{address}/archive/", {}).content.decode()
        return
    with one_event(f"{kind}.archived"):
        assert client.post(f"{address}/archive/", {}).status_code == 302
    # What is archived can be looked at and brought back, not changed.
    page = client.get(f"{address}/change/")
    assert page.status_code == 200
    assert "small (100)" in page.content.decode()
    with no_event():
        assert client.post(f"{address}/change/", {**ROUTE, "attempts": "9"}).status_code == 403
    with one_event(f"{kind}.restored"):
        assert client.post(f"{address}/restore/", {}).status_code == 302


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("who", "opens"),
    [
        ("bob", {"provider", "credential", "model", "price", "route"}),
        ("carla", {"model", "price", "route"}),
        ("dan", {"provider", "credential", "model", "price", "route"}),
        ("rita", set()),
    ],
)
def test_who_may_look_and_that_a_role_in_a_project_changes_nothing(cast, who, opens):
    configuring.everything()
    person = signed_in(getattr(cast, who))
    for kind, model in (
        ("provider", Provider),
        ("credential", Credential),
        ("model", Model),
        ("price", Price),
        ("route", Route),
    ):
        row = model.objects.first()
        seen = person.get(f"{ADMIN}/{kind}/").status_code == 200
        assert seen == (kind in opens), kind
        assert (person.get(f"{ADMIN}/{kind}/{row.pk}/change/").status_code == 200) == seen, kind
        with no_event():
            assert person.get(f"{ADMIN}/{kind}/add/").status_code == 403
            assert person.post(f"{ADMIN}/{kind}/add/", {}).status_code == 403
            for button in ("pause", "archive", "revoke", "drain", "price"):
                assert person.post(f"{ADMIN}/{kind}/{row.pk}/{button}/", {"reason": "x"}).status_code in (
                    302,
                    403,
                    404,
                )
    assert not Route.objects.filter(paused_at__isnull=False).exists()
