"""Figures from the provider itself: with whose key, what is sent, what is taken over, and what a refusal says."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from io import StringIO
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import CommandError, call_command

from llmops.audit.models import Event
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.core.money import NANO
from llmops.providers import reports
from llmops.providers import services as providers
from llmops.providers.models import Credential, Provider
from llmops.usage import services
from llmops.usage.models import Job, ProviderFigure, ProviderImport, StatementSource
from llmops.usage.services import fetching
from tests.cast import COMMAND, no_event, one_event, person, signed_in
from tests.providers.answering import Answering, Script, answer

KEY = "sk-admin-planted-55d0c1"


def today() -> date:
    """Asked for anew each time: a run of all tests may go on past midnight."""
    return datetime.now(UTC).date()


def yesterday() -> date:
    return today() - timedelta(days=1)


def stamp(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def page(results: list[dict[str, Any]], *, following: str | None = None, day: date | None = None) -> bytes:
    day = day or yesterday()
    bucket = {
        "object": "bucket",
        "start_time": stamp(day),
        "end_time": stamp(day) + 86_400,
        "results": results,
    }
    body = {"object": "page", "data": [bucket], "has_more": following is not None, "next_page": following}
    return json.dumps(body).encode()


def figures(request: BaseHTTPRequestHandler) -> None:
    """As OpenAI answers: usage in two pages, one of embeddings, costs by line item."""
    asked = urlsplit(request.path)
    if asked.path.endswith("/completions"):
        if "page" in parse_qs(asked.query):
            used = [{"input_tokens": 7, "output_tokens": 1, "num_model_requests": 1, "model": "gpt-b"}]
            answer(200, page(used, day=yesterday() - timedelta(days=1)))(request)
            return
        used = [{"input_tokens": 100, "input_cached_tokens": 40, "output_tokens": 20, "num_model_requests": 2, "model": "gpt-a"}]  # fmt: skip
        answer(200, page(used, following="p2"))(request)
    elif asked.path.endswith("/embeddings"):
        answer(200, page([{"input_tokens": 9, "num_model_requests": 1, "model": "embed"}]))(request)
    else:
        paid = [{"amount": {"value": 0.25, "currency": "usd"}, "line_item": "gpt-a, input"}]
        answer(200, page(paid))(request)


@pytest.fixture
def source(
    cast: SimpleNamespace, answering: Callable[[], Answering], monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """A provider over real HTTP whose figures are asked for with a key that is no key for calls."""
    monkeypatch.setattr(fetching, "send", lambda task, key: None)
    server = answering()
    server.script = figures
    provider = providers.create_provider(
        COMMAND, slug="openai", kind="openai", base_url=server.url, fields={"allow_private_network": True}
    )
    key = providers.add_credential(COMMAND, provider=provider, name="reports", secret=KEY)
    services.set_source(COMMAND, provider=provider, credential=key)
    return SimpleNamespace(server=server, provider=provider, key=key, cast=cast)


def fetch(source: SimpleNamespace, first: date | None = None, last: date | None = None) -> Job:
    last = last or yesterday()
    first = first or yesterday() - timedelta(days=1)
    job = services.request_fetch(COMMAND, provider=source.provider, first=first, last=last)
    done = services.run_job(job.pk)
    assert done is not None
    return done


def test_usage_and_costs_are_taken_over_like_files(source: SimpleNamespace) -> None:
    job = fetch(source)
    assert job.state == Job.DONE, job.message
    assert "taken over" in job.message
    usage, costs = ProviderImport.objects.order_by("pk")
    assert (usage.source, usage.has_tokens, usage.has_cost) == ("api", True, False)
    assert (costs.source, costs.has_tokens, costs.has_cost) == ("api", False, True)
    told = {
        (one.model, one.input_tokens, one.output_tokens)
        for one in ProviderFigure.objects.filter(statement=usage)
    }
    assert told == {("gpt-a", 100, 20), ("gpt-b", 7, 1), ("embed", 9, 0)}
    assert ProviderFigure.objects.get(statement=costs).cost_nano == NANO // 4
    paths = [urlsplit(path).path.removeprefix("/v1") for _, path, _, _ in source.server.asked]
    assert paths == [
        "/organization/usage/completions", "/organization/usage/completions", "/organization/usage/embeddings",
        "/organization/costs",
    ]  # fmt: skip
    assert {headers["Authorization"] for _, _, headers, _ in source.server.asked} == {f"Bearer {KEY}"}
    asked = parse_qs(urlsplit(source.server.asked[0][1]).query)
    assert asked["start_time"] == [str(stamp(yesterday() - timedelta(days=1)))]
    assert asked["end_time"] == [str(stamp(today()))]

    # The same again says the same, and nothing anywhere has the key.
    assert fetch(source).state == Job.DONE
    assert not [event for event in Event.objects.all() if KEY in str(event.after) + str(event.before)]
    assert KEY not in str(list(Job.objects.values())) + str(list(ProviderImport.objects.values()))


@pytest.mark.parametrize(
    "script, said",
    [
        (answer(401, f'{{"error": "Incorrect key {KEY}"}}'.encode()), "administrator's key"),
        (answer(403), "administrator's key"),
        (answer(404), "Export a CSV"),
        (answer(400), "Choose others"),
        (answer(429), "Try again in some minutes"),
        (answer(500), "Try again later"),
        (answer(302, Location="http://127.0.0.1:9/"), "redirect"),
        (answer(200, b"<html>"), "Import a CSV instead"),
        (answer(200, b"[1]"), "Import a CSV instead"),
        (answer(200, page([], following="again")), "does not come to an end"),
        (answer(200, page([{"input_tokens": -1, "model": "x"}])), "not a number of tokens"),
        (answer(200, b"x" * 5_000), "more than"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do_and_takes_nothing_over(
    source: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, script: Script, said: str
) -> None:
    monkeypatch.setattr(reports, "MOST_BYTES", 4_000)
    source.server.script = script
    job = fetch(source)
    assert job.state == Job.FAILED
    assert said in job.message and KEY not in job.message
    assert len(job.message) < 300
    assert not ProviderImport.objects.exists()


def test_days_without_any_use_are_told_as_such(source: SimpleNamespace) -> None:
    source.server.script = answer(200, page([]))
    job = fetch(source)
    assert job.state == Job.DONE, job.message
    usage, costs = ProviderImport.objects.order_by("pk")
    assert (usage.has_tokens, usage.has_cost, costs.has_tokens, costs.has_cost) == (True, False, False, True)
    assert {one.input_tokens for one in ProviderFigure.objects.all()} == {0}


def test_a_provider_that_hangs_is_given_up(source: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    released = source.server.stop
    source.server.script = lambda request: released.wait(20)
    with pytest.raises(reports.ReportRefused, match="did not answer completely"):
        reports.fetch_report(source.provider, KEY, "/organization/costs", {}, deadline_s=0.2)
    released.set()


def test_costs_that_are_refused_leave_no_usage_behind(source: SimpleNamespace) -> None:
    def half(request: BaseHTTPRequestHandler) -> None:
        answer(403)(request) if "costs" in request.path else figures(request)

    source.server.script = half
    assert fetch(source).state == Job.FAILED
    assert not ProviderImport.objects.exists()


def test_nothing_goes_to_an_address_that_is_refused(source: SimpleNamespace) -> None:
    Provider.objects.filter(pk=source.provider.pk).update(allow_private_network=False)
    job = fetch(source)
    assert job.state == Job.FAILED
    assert "Nothing was sent" in job.message
    assert source.server.asked == []


def test_a_key_for_calls_is_never_taken(source: SimpleNamespace) -> None:
    calls = providers.add_credential(
        COMMAND, provider=source.provider, name="calls", secret="sk-calls-1", activate=True
    )
    with no_event(), pytest.raises(InvalidRequest, match="in use for calls"):
        services.set_source(COMMAND, provider=source.provider, credential=calls)
    # Neither is the chosen one, once somebody uses it for calls all the same.
    Credential.objects.filter(pk=source.key.pk).update(state="active")
    with no_event(), pytest.raises(InvalidRequest, match="in use for calls"):
        fetch(source)
    Credential.objects.filter(pk=source.key.pk).update(state="revoked")
    with no_event(), pytest.raises(InvalidRequest, match="revoked"):
        fetch(source)
    assert source.server.asked == []


def test_what_cannot_be_asked_for_leaves_no_trace(source: SimpleNamespace) -> None:
    for first, last, field in (
        (yesterday(), today(), "to"),
        (yesterday(), yesterday() - timedelta(days=1), "from"),
        (yesterday() - timedelta(days=200), yesterday(), "from"),
    ):
        with no_event(), pytest.raises(InvalidRequest) as refused:
            services.request_fetch(COMMAND, provider=source.provider, first=first, last=last)
        assert refused.value.param == field
    services.request_fetch(COMMAND, provider=source.provider, first=yesterday(), last=yesterday())
    with no_event(), pytest.raises(Conflict, match="being fetched already"):
        services.request_fetch(COMMAND, provider=source.provider, first=yesterday(), last=yesterday())
    services.set_source(COMMAND, provider=source.provider, credential=None)
    with no_event(), pytest.raises(NotFound, match="Choose one"):
        services.request_fetch(COMMAND, provider=source.provider, first=yesterday(), last=yesterday())


def test_every_day_is_asked_for_once(source: SimpleNamespace) -> None:
    with one_event("statement_source.changed"):
        services.set_source(COMMAND, provider=source.provider, credential=source.key, daily=True)
    with no_event():
        services.set_source(COMMAND, provider=source.provider, credential=source.key, daily=True)
    due = StatementSource.objects.get().next_run_at
    assert due is not None and due.hour == 6
    now = datetime.now(UTC)
    assert now < due and services.fetch_daily(now) == 0
    StatementSource.objects.update(next_run_at=now)
    with one_event("provider_statement.fetch_requested"):
        assert services.fetch_daily(now) == 1
    assert services.fetch_daily(now) == 0
    job = Job.objects.get(kind=services.FETCH)
    first, last = (date.fromisoformat(job.arguments[name]) for name in ("from", "to"))
    assert (last - first).days == 6
    assert StatementSource.objects.get().next_run_at == due
    # A key that may not be taken any more is told on the page, once for that day.
    Credential.objects.filter(pk=source.key.pk).update(state="active")
    job.delete()
    StatementSource.objects.update(next_run_at=now)
    assert services.fetch_daily(now) == services.fetch_daily(now) == 0
    assert "in use for calls" in Job.objects.get(kind=services.FETCH, state=Job.FAILED).message


def test_the_page_lets_finance_fetch_and_operators_choose_the_key(source: SimpleNamespace) -> None:
    finance = signed_in(person("fiona", ("finance", None)))
    operator = signed_in(person("olaf", ("operator", None)))
    at = "/reconciliation/"
    shown = finance.get(f"{at}?provider=openai").content.decode()
    assert "Fetch from openai" in shown and 'name="credential"' not in shown and KEY not in shown
    key = {"act": "key", "provider": "openai", "credential": str(source.key.pk), "daily": "1"}
    assert finance.post(at, key).status_code == 403
    days = {
        "act": "fetch",
        "provider": "openai",
        "from": yesterday().isoformat(),
        "to": yesterday().isoformat(),
    }
    assert operator.post(at, days).status_code == 403
    with one_event("statement_source.changed"):
        assert operator.post(at, key).status_code == 302
    with one_event("provider_statement.fetch_requested"):
        assert finance.post(at, days).status_code == 302
    again = finance.post(at, days)
    assert again.status_code == 400 and "being fetched already" in again.content.decode()
    assert Job.objects.filter(kind=services.FETCH).count() == 1
    assert "Waiting for a worker" in finance.get(f"{at}?provider=openai").content.decode()


def test_the_command_says_what_came_of_it(source: SimpleNamespace) -> None:
    said = StringIO()
    call_command("usage", "fetch", "--provider", "openai", "--from", str(yesterday()), stdout=said)
    assert "taken over" in said.getvalue()
    source.server.script = answer(403)
    with pytest.raises(CommandError, match="administrator's key"):
        call_command("usage", "fetch", "--provider", "openai")
    with pytest.raises(CommandError, match="no provider"):
        call_command("usage", "fetch", "--provider", "nobody")
