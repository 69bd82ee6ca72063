"""Models out of a provider's own list, and test calls before they are published: at a real HTTP server."""

from __future__ import annotations

import gzip
import json
import threading
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from llmops.audit.models import Event
from llmops.core.errors import Conflict, UnprocessableEntity
from llmops.core.money import parse_usd
from llmops.providers import services
from llmops.providers.listing import ListRefused, parsed
from llmops.providers.models import Model, ModelTrial, Provider
from tests.cast import COMMAND
from tests.providers.answering import answer

KEY = "sk-planted-9d1e77c0aa55"
BY = COMMAND
SOME = {
    "object": "list",
    "data": [
        {"id": "gpt-4o", "object": "model", "created": 1715367049, "owned_by": "system"},
        {"id": "gpt-4o-2024-08-06", "object": "model", "created": 1722814719},
        {"id": "text-embedding-3-small", "object": "model", "created": 1705948997},
        {"id": "own-model", "max_model_len": 32_768},
    ],
}


@pytest.fixture
def configured(db: None, answering: Any) -> Any:
    """A provider that answers with its list, and its key in use."""
    server = answering()
    server.script = answer(200, json.dumps(SOME).encode())
    provider = services.create_provider(
        BY, slug="up", kind="compatible", base_url=server.url, fields={"allow_private_network": True}
    )
    services.add_credential(BY, provider=provider, name="first", secret=KEY, activate=True)
    server.provider = provider
    return server


def a_model(provider: Provider, *, priced: bool = True, **fields: Any) -> Model:
    given = {"context_window": 8_000, "max_output_tokens": 1_000, "default_max_output_tokens": 100}
    model = services.create_model(
        BY, slug="m", provider=provider, upstream_model="own-model", **given | fields
    )
    for name, usd in (("input", "2"), ("output", "10")) if priced else ():
        services.add_price(BY, model=model, token_class=name, nano_per_million=parse_usd(usd))
    return model


def answered(prompt: int = 12, completion: int = 5, **details: Any) -> Any:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, **details}
    body = {"choices": [{"message": {"content": f"Hello, {KEY}"}}], "usage": usage}
    return answer(200, json.dumps(body).encode())


def test_a_list_says_what_is_known():
    openai = Provider(slug="openai", kind="openai", base_url="https://api.openai.com/v1")
    found = {one.name: one for one in parsed(openai, json.dumps(SOME).encode())}
    assert found["gpt-4o"].floats and not found["gpt-4o-2024-08-06"].floats
    assert not found["text-embedding-3-small"].floats
    assert (found["gpt-4o-2024-08-06"].window, found["gpt-4o-2024-08-06"].output) == (128_000, 16_384)
    assert found["gpt-4o-2024-08-06"].input_price == parse_usd("2.50")
    assert found["text-embedding-3-small"].output == 0
    assert found["own-model"].window == 32_768 and found["own-model"].input_price is None


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (
            b'{"data": [{"id": 5}, {"id": ""}, {"id": " a"}, {"id": "a\\u0000"}, {"id": "b", "created": "x"}, 7, null]}',
            ["b"],
        ),
        (
            b'{"data": [{"id": "b", "created": 1e300}, {"id": "b"}, {"id": "a", "context_window": true}]}',
            ["a", "b"],
        ),
        (b'{"data": []}', []),
    ],
)
def test_a_list_that_is_odd(body, names):
    provider = Provider(slug="p", kind="compatible", base_url="http://127.0.0.1:9/v1")
    assert [one.name for one in parsed(provider, body)] == names


@pytest.mark.parametrize("body", [b"", b"[]", b'{"data": {}}', b"\xff", b"[" * 100_000])
def test_what_is_no_list_is_refused(body):
    with pytest.raises(ListRefused, match="something else than a list"):
        parsed(Provider(slug="p", kind="compatible", base_url="http://127.0.0.1:9/v1"), body)


def packed(body: bytes, *, cut: int = 0) -> Any:
    small = gzip.compress(body)
    return answer(200, small[: len(small) - cut], **{"Content-Encoding": "gzip"})


@pytest.mark.any_engine
def test_a_compressed_list_is_unpacked(configured):
    configured.script = packed(json.dumps(SOME).encode())
    assert len(services.list_models(BY, provider=configured.provider)) == len(SOME["data"])


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("script", "said"),
    [
        (answer(401, KEY.encode()), "refused the key"),
        (answer(302, b"", Location="http://169.254.169.254/"), "a redirect, which is not followed"),
        (answer(200, b"<html>", kind="text/html"), "something else than a list"),
        (answer(200, b" " * (5 * 1024 * 1024)), "more than 4 MiB"),
        (packed(b" " * (64 * 1024 * 1024)), "more than 4 MiB"),
        (packed(b"{}", cut=4), "ends in the middle"),
        (answer(200, b"{}", **{"Content-Encoding": "gzip"}), "cannot be unpacked"),
        (answer(200, b"{}", **{"Content-Encoding": "br"}), "an encoding that was not asked for"),
    ],
)
def test_a_provider_that_tells_no_list(configured, script, said):
    configured.script = script
    before = Event.objects.count()
    with pytest.raises(Exception, match=said) as refused:
        services.list_models(BY, provider=configured.provider)
    assert KEY not in str(refused.value)
    [event] = Event.objects.order_by("-pk")[: Event.objects.count() - before]
    assert event.action == "provider.models_listed" and KEY not in str(event.after)
    assert len(configured.asked) == 1


@pytest.mark.any_engine
def test_without_a_key_nothing_is_asked(configured):
    configured.provider.credentials.update(state="draining")
    with pytest.raises(Conflict, match="no key in use"):
        services.list_models(BY, provider=configured.provider)
    assert configured.asked == []


def test_a_test_call_costs_what_it_used_and_is_on_record(configured):
    model = a_model(configured.provider)
    configured.script = answered()
    trial = services.try_model(BY, model=model)
    assert trial.state == ModelTrial.ANSWERED
    # 12 tokens at 2 USD a million, 5 at 10.
    assert trial.charged_nano == 12 * 2_000 + 5 * 10_000
    assert trial.held_nano == 200 * 2_000 + 256 * 10_000
    event = Event.objects.latest("pk")
    assert event.action == "model.tested" and event.after["cost_usd"] == "0.000074"
    [(method, path, headers, body)] = configured.asked
    assert (method, path, headers["Authorization"]) == ("POST", "/v1/chat/completions", f"Bearer {KEY}")
    assert json.loads(body)["max_tokens"] == 256
    # Nothing of the answer is kept.
    assert KEY not in str(event.after) + trial.told


@pytest.mark.parametrize(
    ("script", "state", "charged"),
    [
        (answer(404), "failed", 0),
        (answer(500), "failed", 0),
        (answer(200, b"{}"), "answered", None),
        (answered(prompt=-5), "answered", None),
        (answered(prompt=12, completion=True), "answered", 12 * 2_000),
    ],
)
def test_what_a_test_call_counts_as(configured, script, state, charged):
    model = a_model(configured.provider)
    configured.script = script
    trial = services.try_model(BY, model=model)
    assert trial.state == state
    assert trial.charged_nano == (trial.held_nano if charged is None else charged)


def test_an_answer_that_never_ends_is_counted_at_the_most(configured):
    model = a_model(configured.provider)
    Provider.objects.update(read_timeout_ms=200)

    def silent(request: Any) -> None:
        configured.stop.wait(20)

    configured.script = silent
    trial = services.try_model(BY, model=model)
    assert trial.state == ModelTrial.UNKNOWN and trial.charged_nano == trial.held_nano
    configured.stop.set()


@pytest.mark.any_engine
def test_what_cannot_be_bounded_is_not_sent(configured):
    with pytest.raises(UnprocessableEntity, match="no price"):
        services.try_model(BY, model=a_model(configured.provider, priced=False))
    assert configured.asked == []


@pytest.mark.django_db(transaction=True)
def test_many_at_once_stay_within_the_limit(configured, settings):
    model = a_model(configured.provider)
    configured.script = answer(200, b"{}")
    settings.MODEL_TRIALS_NANO_A_DAY = 3 * (200 * 2_000 + 256 * 10_000) + 5
    outcomes: list[str] = []

    def call() -> None:
        from django.db import connection

        try:
            outcomes.append(services.try_model(BY, model=model).state)
        except Conflict as refused:
            outcomes.append("refused" if "CONSOLE_MODEL_TRIALS_USD" in refused.message else refused.message)
        finally:
            connection.close()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    configured.script = answer(200, json.dumps(SOME).encode())
    assert len(services.list_models(COMMAND, provider=configured.provider)) == 4
    assert configured.asked.pop()[1] == "/v1/models"
    assert sorted(outcomes) == ["answered"] * 3 + ["refused"] * 5
    assert len(configured.asked) == 3


@pytest.mark.any_engine
def test_in_the_browser(configured, cast):
    client = Client()
    client.force_login(cast.alice, backend="django.contrib.auth.backends.ModelBackend")
    page = client.post(
        reverse("admin:providers_model_from_a_list"),
        {"provider": str(configured.provider.pk), "search": "OWN"},
    ).content.decode()
    assert "up lists 4 models; 1 are shown" in page
    assert "upstream_model=own-model&amp;slug=own-model&amp;context_window=32768" in page
    form = client.get(
        reverse("admin:providers_model_add"),
        {
            "provider": str(configured.provider.pk),
            "upstream_model": "own-model",
            "slug": "own-model",
            "context_window": "32768",
        },
    ).content.decode()
    assert 'value="own-model"' in form and 'value="32768"' in form
    model = a_model(configured.provider)
    configured.script = answered()
    address = reverse("admin:providers_model_test_call", args=[model.pk])
    assert "It can cost" in client.get(address).content.decode()
    done = client.post(address, follow=True).content.decode()
    assert "It answered in" in done and "12 tokens in, 5 out, 0.000074 USD" in done
    configured.script = answer(404)
    assert "does not know" in client.post(address).content.decode()
    assert KEY not in page + done
