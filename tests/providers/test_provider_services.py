"""Changes to providers, models, prices and routes: one event each, drafts until published, versions that never change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from llmops.base.live import LIVE_STATE, REVISION, versions
from llmops.core.errors import Conflict, InvalidRequest
from llmops.providers import services
from llmops.providers.models import Model, ModelConfig, Price, Provider, Route
from tests import configuring
from tests.cast import in_threads, no_event, one_event
from tests.configuring import OPERATOR

pytestmark = pytest.mark.django_db


def test_a_provider_is_made_changed_and_put_away_with_one_event_each():
    with one_event("provider.created") as seen:
        provider = services.create_provider(
            OPERATOR,
            slug="openai",
            kind="openai",
            base_url="https://api.openai.com/v1/",
            fields={"name": "OpenAI"},
        )
    assert provider.base_url == "https://api.openai.com/v1"
    assert seen.event.after["slug"] == "openai"
    assert seen.event.object_type == "providers.provider"
    with one_event("provider.changed") as seen:
        services.update_provider(
            OPERATOR, provider=provider, changes={"read_timeout_ms": 30_000, "name": "OpenAI"}
        )
    assert (seen.event.before, seen.event.after) == ({"read_timeout_ms": 60_000}, {"read_timeout_ms": 30_000})
    with no_event():
        services.update_provider(OPERATOR, provider=provider, changes={"read_timeout_ms": 30_000})
    with one_event("provider.archived"):
        services.archive_provider(OPERATOR, provider=provider)
    with pytest.raises(Conflict), no_event():
        services.archive_provider(OPERATOR, provider=provider)
    with one_event("provider.restored"):
        services.unarchive_provider(OPERATOR, provider=provider)


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("slug", {"slug": "Has Blanks"}),
        ("slug", {"slug": ""}),
        ("kind", {"kind": "claude"}),
        ("base_url", {"base_url": "http://api.openai.com/v1"}),
        ("base_url", {"base_url": "https://key@api.openai.com/v1"}),
        ("base_url", {"base_url": "https://169.254.169.254/v1"}),
        ("proxy_url", {"fields": {"proxy_url": "http://user:pw@proxy:1"}}),
        ("connect_timeout_ms", {"fields": {"connect_timeout_ms": 0}}),
        ("connect_timeout_ms", {"fields": {"connect_timeout_ms": 10**12}}),
        ("connect_timeout_ms", {"fields": {"connect_timeout_ms": -1}}),
        ("connect_timeout_ms", {"fields": {"connect_timeout_ms": "soon"}}),
        ("name", {"fields": {"name": "a\x00b"}}),
        ("name", {"fields": {"name": "a\nb"}}),
        ("name", {"fields": {"name": "\ud800"}}),
        ("name", {"fields": {"name": "x" * 121}}),
        ("paused_at", {"fields": {"paused_at": timezone.now()}}),
        ("id", {"fields": {"id": 1}}),
    ],
)
def test_a_bad_provider_is_refused_by_its_field(field, values):
    given = {"slug": "openai", "kind": "openai", "base_url": "https://api.openai.com/v1", **values}
    with pytest.raises(InvalidRequest) as refused, no_event():
        services.create_provider(OPERATOR, **given)
    assert refused.value.param == field
    assert not Provider.objects.exists()


def test_a_slug_is_taken_once():
    configuring.provider("a")
    with pytest.raises(Conflict), no_event():
        configuring.provider("a")


def test_a_provider_that_serves_a_model_cannot_be_put_away_and_neither_a_model_in_a_route():
    sim, small, chat = configuring.everything()
    with pytest.raises(Conflict, match="small"), no_event():
        services.archive_provider(OPERATOR, provider=sim)
    with pytest.raises(Conflict, match="chat"), no_event():
        services.archive_model(OPERATOR, model=small)
    services.archive_route(OPERATOR, route=chat)
    services.archive_model(OPERATOR, model=small)
    services.archive_provider(OPERATOR, provider=sim)
    with pytest.raises(InvalidRequest, match="archived"), no_event():
        configuring.model("other", sim)
    with pytest.raises(InvalidRequest, match="archived"), no_event():
        configuring.route("other", small)


@pytest.mark.parametrize("kind", ["provider", "route"])
def test_pausing_is_live_at_once_and_needs_a_reason(kind):
    row = configuring.everything()[0 if kind == "provider" else 2]
    pause, resume = getattr(services, f"pause_{kind}"), getattr(services, f"resume_{kind}")
    with pytest.raises(InvalidRequest) as refused, no_event():
        pause(OPERATOR, **{kind: row}, reason="  ")
    assert refused.value.param == "reason"
    before = versions()
    with one_event(f"{kind}.paused") as seen:
        pause(OPERATOR, **{kind: row}, reason="it answers nonsense")
    assert seen.event.reason == "it answers nonsense"
    after = versions()
    assert after[LIVE_STATE] == before.get(LIVE_STATE, 0) + 1
    assert after.get(REVISION) == before.get(REVISION)
    with pytest.raises(Conflict), no_event():
        pause(OPERATOR, **{kind: row}, reason="again")
    with one_event(f"{kind}.resumed"):
        resume(OPERATOR, **{kind: row})
    row.refresh_from_db()
    assert (row.paused_at, row.pause_reason) == (None, "")
    with pytest.raises(Conflict), no_event():
        resume(OPERATOR, **{kind: row})


def test_drafts_do_not_touch_what_data_planes_hold():
    before = versions()
    sim = configuring.provider()
    small = configuring.model("small", sim, prices={"input": "1.00"})
    chat = configuring.route("chat", small)
    services.update_provider(OPERATOR, provider=sim, changes={"name": "other"})
    services.pin_model(OPERATOR, model=small, changes={"context_window": 9_000})
    services.update_route(OPERATOR, route=chat, changes={"attempts": 2})
    services.archive_route(OPERATOR, route=chat)
    assert versions() == before


def test_a_change_of_a_model_is_a_new_version_and_the_old_one_stays():
    small = configuring.model("small")
    first = small.current
    with one_event("model.pinned") as seen:
        second = services.pin_model(
            OPERATOR,
            model=small,
            changes={"max_output_tokens": 2_000, "parameters": {"temperature": 0.5}},
            note="more",
        )
    assert (second.version, second.max_output_tokens) == (2, 2_000)
    assert seen.event.before == {
        "version": 1,
        "max_output_tokens": 1_000,
        "parameters": {},
        "digest": first.digest,
    }
    small.refresh_from_db()
    assert small.current == second
    first.refresh_from_db()
    assert first.max_output_tokens == 1_000
    with no_event():
        assert services.pin_model(OPERATOR, model=small, changes={"max_output_tokens": 2_000}) == second
    assert ModelConfig.objects.count() == 2


def test_equal_versions_have_equal_digests_whatever_the_order_of_their_members():
    one = configuring.model(
        "one", upstream_model="m", parameters={"a": 1, "b": [1, 2]}, capabilities=["tools", "chat"]
    )
    two = configuring.model(
        "two", upstream_model="m", parameters={"b": [1, 2], "a": 1}, capabilities=["chat", "tools", "chat"]
    )
    assert one.current.digest == two.current.digest


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("capabilities", {"capabilities": ["flying"]}),
        ("capabilities", {"capabilities": "chat"}),
        ("parameters", {"parameters": {"model": "x"}}),
        ("parameters", {"parameters": ["x"]}),
        ("context_window", {"context_window": 0}),
        ("context_window", {"context_window": "many"}),
        ("default_max_output_tokens", {"default_max_output_tokens": -1}),
        ("upstream_model", {"upstream_model": ""}),
        ("upstream_model", {"upstream_model": " gpt"}),
        ("upstream_model", {"upstream_model": "a\nb"}),
        ("version", {"version": 7}),
        ("digest", {"digest": "0" * 64}),
    ],
)
def test_a_bad_version_is_refused_by_its_field(field, changes):
    small = configuring.model("small")
    with pytest.raises(InvalidRequest) as refused, no_event():
        services.pin_model(OPERATOR, model=small, changes=changes)
    assert refused.value.param == field
    assert small.versions.count() == 1


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "changes", [{"default_max_output_tokens": 1_001}, {"max_output_tokens": 8_001}, {"context_window": 999}]
)
def test_the_outputs_must_fit_into_each_other(changes):
    small = configuring.model("small")
    with pytest.raises(InvalidRequest), no_event():
        services.pin_model(OPERATOR, model=small, changes=changes)


def test_a_floating_alias_needs_a_reason_for_that_very_name():
    openai = configuring.provider("openai", kind="openai", base_url="https://api.openai.com/v1")
    with pytest.raises(InvalidRequest, match="alias") as refused, no_event():
        configuring.model("gpt-4o", openai)
    assert refused.value.param == "upstream_model"
    assert not Model.objects.exists()
    model = configuring.model("gpt-4o", openai, floats_reason="we want the newest")
    assert (model.current.floats, model.current.floats_reason) == (True, "we want the newest")
    with pytest.raises(InvalidRequest, match="alias"), no_event():
        services.pin_model(OPERATOR, model=model, changes={"upstream_model": "gpt-5"})
    pinned = services.pin_model(OPERATOR, model=model, changes={"upstream_model": "gpt-4o-2024-08-06"})
    assert (pinned.floats, pinned.floats_reason) == (False, "")


def test_moving_a_model_to_a_provider_whose_aliases_float_is_asked_about_too():
    openai = configuring.provider("openai", kind="openai", base_url="https://api.openai.com/v1")
    small = configuring.model("small")
    with pytest.raises(InvalidRequest, match="alias"), no_event():
        services.pin_model(OPERATOR, model=small, changes={"provider": openai})


def test_prices_are_dated_and_only_added():
    small = configuring.model("small")
    with one_event("price.added") as seen:
        first = services.add_price(OPERATOR, model=small, token_class="input", nano_per_million=2_500_000_000)
    assert seen.event.after["usd_per_million"] == "2.50"
    assert abs(first.effective_from - timezone.now()) < timedelta(minutes=1)
    later = datetime(2030, 1, 1, tzinfo=UTC)
    with one_event("price.added") as seen:
        services.add_price(
            OPERATOR, model=small, token_class="input", nano_per_million=1, effective_from=later
        )
    assert seen.event.before == {"usd_per_million": "2.50"}
    with pytest.raises(Conflict), no_event():
        services.add_price(
            OPERATOR, model=small, token_class="input", nano_per_million=2, effective_from=later
        )


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "values",
    [
        {"nano_per_million": -1},
        {"nano_per_million": 2.5},
        {"nano_per_million": True},
        {"nano_per_million": "2.50"},
        {"nano_per_million": 2**63},
        # Calls at such prices would add up to more than a column of the ledger holds.
        {"nano_per_million": 10**13 + 1},
        {"nano_per_million": 10**17 + 1, "token_class": "images"},
        {"token_class": "dreams"},
        {"effective_from": datetime(2026, 1, 1)},  # noqa: DTZ001
        {"source": "x" * 201},
        {"source": "a\nb"},
    ],
)
def test_a_bad_price_is_refused(values):
    small = configuring.model("small")
    with pytest.raises(InvalidRequest), no_event():
        services.add_price(
            OPERATOR, **{"model": small, "token_class": "input", "nano_per_million": 1, **values}
        )
    assert not Price.objects.exists()


@pytest.mark.parametrize("table", ["providers_model_config", "providers_price"])
@pytest.mark.parametrize("change", ["UPDATE {} SET created_by = 'me'", "DELETE FROM {}"])
def test_the_database_itself_refuses_to_change_versions_and_prices(table, change):
    configuring.everything()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table} ORDER BY id")
        before = cursor.fetchall()
        assert before
        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            cursor.execute(change.format(table))
        cursor.execute(f"SELECT * FROM {table} ORDER BY id")
        assert cursor.fetchall() == before


def test_the_orm_cannot_change_a_version_either():
    version = configuring.model("small").current
    version.max_output_tokens = 1
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        version.save()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        Price.objects.create(
            model=version.model, token_class="input", nano_per_million=1, effective_from=timezone.now()
        ).delete()


def test_a_route_is_changed_as_a_whole_with_one_event():
    small, large = configuring.model("small"), configuring.model("large")
    with one_event("route.created") as seen:
        chat = services.create_route(
            OPERATOR,
            slug="chat",
            targets=[(small, 80), (large, 20)],
            fallbacks=[small],
            fields={"attempts": 4},
        )
    assert seen.event.after["targets"] == {"large": 20, "small": 80}
    with no_event():
        services.update_route(OPERATOR, route=chat, targets=[(large, 20), (small, 80)], fallbacks=[small])
    with one_event("route.changed") as seen:
        services.update_route(OPERATOR, route=chat, changes={"attempts": 2}, fallbacks=[large, small])
    assert seen.event.before == {"attempts": 4, "fallbacks": ["small"]}
    assert seen.event.after == {"attempts": 2, "fallbacks": ["large", "small"]}


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("slug", lambda model: {"slug": "no/slash"}),
        ("attempts", lambda model: {"fields": {"attempts": 0}}),
        ("attempts", lambda model: {"fields": {"attempts": 11}}),
        ("total_timeout_ms", lambda model: {"fields": {"total_timeout_ms": 1}}),
        ("breaker_failure_percent", lambda model: {"fields": {"breaker_failure_percent": 101}}),
        ("targets", lambda model: {"targets": [(model, 1), (model, 2)]}),
        ("fallbacks", lambda model: {"fallbacks": [model, model]}),
        ("targets", lambda model: {"targets": [(model, -1)]}),
        ("targets", lambda model: {"targets": [(model, 10**9)]}),
        ("archived_at", lambda model: {"fields": {"archived_at": None}}),
    ],
)
def test_a_bad_route_is_refused_by_its_field(field, make):
    small = configuring.model("small")
    given = {"slug": "chat", "targets": [(small, 100)], **make(small)}
    with pytest.raises(InvalidRequest) as refused, no_event():
        services.create_route(OPERATOR, **given)
    assert refused.value.param == field
    assert not Route.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_changes_of_one_model_at_once_make_two_versions():
    small = configuring.model("small")
    outcomes = in_threads(
        *(
            lambda size=size: services.pin_model(OPERATOR, model=small, changes={"context_window": size})
            for size in (9_000, 10_000, 11_000, 12_000)
        )
    )
    assert sorted(version.version for version in outcomes) == [2, 3, 4, 5]
    small.refresh_from_db()
    assert small.current.version == 5


@pytest.mark.django_db(transaction=True)
def test_two_providers_of_one_name_at_once_make_one():
    outcomes = in_threads(*(lambda: configuring.provider("same") for _ in range(4)))
    assert sum(isinstance(outcome, Provider) for outcome in outcomes) == 1
    assert all(isinstance(outcome, Provider | Conflict) for outcome in outcomes), outcomes
