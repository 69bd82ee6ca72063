"""``/metrics``: what is counted, who may read it, and that nothing a caller sent becomes a label."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmops.core.verdicts import AFTER, BEFORE, BLOCK, REDACT, Verdict
from llmops.gateway.telemetry import metrics as module
from llmops.gateway.telemetry.metrics import Metrics
from llmops.usage.records import Ended, Origin, Outcome
from tests.gateway.responding import a_response
from tests.gateway.responding import ask as respond_to
from tests.gateway.rig import (
    DONE,
    KEY,
    USD,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_credential,
    a_key,
    a_model,
    a_route,
    answers,
    ask,
    chunk,
    completion,
    eventually,
    fails,
    streams,
    usage,
    usage_chunk,
)
from tests.gateway.test_policing import EMAIL, policy
from tests.gateway.test_policing import SECRET as A_SECRET

SCRAPER = "llmops_scraper1_" + "s" * 40


async def scraped(rig: Rig) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(sample, labels) -> value."""
    answer = await rig.start(b"", path="/metrics", method="GET", key=SCRAPER).done()
    assert (answer.status, answer.headers["content-type"].startswith("text/plain")) == (200, True)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def total(samples: Any, name: str, **labels: str) -> float:
    """Sum of all samples of a name that have these labels."""
    return sum(
        value for (sample, found), value in samples.items() if sample == name and labels.items() <= set(found)
    )


def configured(rig: Rig, **what: Any) -> None:
    what.setdefault("routes", (a_route(),))
    keys = {KEY: a_key(), SCRAPER: a_key("scraper", scopes=frozenset({"metrics"}))}
    rig.configure(keys=keys, **what)


async def test_calls_are_counted_by_how_they_ended(rig: Rig) -> None:
    configured(rig, budgets=(a_budget(limit_nano=USD),))
    rig.upstream.does(
        answers(used=usage(10, 5, cached=4)), fails(400, "bad"), streams(chunk("a"), usage_chunk(), DONE)
    )
    await rig.chat(model="chat")
    await rig.chat(model="chat")
    await rig.chat(model="chat", stream=True)
    await rig.chat(model="nothing-like-that")
    found = await scraped(rig)
    assert total(found, "llmops_requests_total") == 4
    assert total(found, "llmops_requests_total", route="chat", model="small", status="ok", code="") == 2
    assert total(found, "llmops_requests_total", status="error", code="upstream_400") == 1
    assert total(found, "llmops_requests_total", status="refused", code="model_not_found", model="") == 1
    assert total(found, "llmops_streamed_requests_total") == 1
    assert total(found, "llmops_time_to_first_token_seconds_count", route="chat") == 1
    assert total(found, "llmops_request_duration_seconds_count") == 4
    assert total(found, "llmops_attempts_total", provider="up", model="small", code="") == 2
    assert total(found, "llmops_tokens_total", project="support", model="small", **{"class": "input"}) == 20
    assert total(found, "llmops_tokens_total", **{"class": "cached_input"}) == 4
    spent = sum(one.outcome.cost for one in rig.ended() if one.outcome)
    assert total(found, "llmops_cost_nanodollars_total") == spent > 0
    assert total(found, "llmops_in_flight") == 0
    assert total(found, "llmops_budget_held_nanodollars", budget="team") == 0
    assert total(found, "llmops_budget_available_nanodollars", budget="team") > 0
    assert total(found, "llmops_ready") == 1
    assert total(found, "llmops_journal_healthy") == 1
    assert "process_resident_memory_bytes" in {name for name, _ in found}


async def test_the_buckets_of_a_histogram_add_up(rig: Rig) -> None:
    configured(rig)
    for _ in range(5):
        await rig.chat(model="chat")
    found = await scraped(rig)
    buckets = sorted(
        (float(dict(labels)["le"]), value)
        for (name, labels), value in found.items()
        if name == "llmops_request_duration_seconds_bucket"
    )
    assert [value for _, value in buckets] == sorted(value for _, value in buckets)
    assert buckets[-1] == (float("inf"), 5)
    assert total(found, "llmops_overhead_duration_seconds_count") == 5


async def test_what_is_under_way_shows(rig: Rig) -> None:
    configured(rig, routes=(a_route(max_concurrency=1, queue_size=1),))
    release = asyncio.Event()

    async def script(asked: Asked, reply: Reply) -> None:
        await release.wait()
        await reply.json(completion())

    rig.upstream.does(script)
    calls = [rig.start(ask("chat"))]
    await eventually(lambda: len(rig.upstream.asked) == 1)
    calls.append(rig.start(ask("chat")))
    await eventually(lambda: rig.plane.gates.all["chat", "small"].queued == 1)
    assert (await rig.chat(model="chat")).status == 429
    found = await scraped(rig)
    where = {"route": "chat", "target": "small"}
    assert total(found, "llmops_in_flight") == 2
    assert total(found, "llmops_target_in_flight", **where) == 1
    assert total(found, "llmops_target_limit", **where) == 1
    assert total(found, "llmops_target_queued", **where) == 1
    assert total(found, "llmops_queue_refused_total", **where) == 1
    release.set()
    for one in calls:
        await one.done()
    assert total(await scraped(rig), "llmops_queue_duration_seconds_count", route="chat") == 1


async def test_retries_fallbacks_breakers_and_the_cache_show(rig: Rig) -> None:
    route = a_route("chat", "small", fallbacks=("large",), attempts=3, cache_ttl_s=60, breaker_min_calls=1)
    configured(rig, models=(a_model(), a_model("large")), routes=(route,))
    rig.upstream.does(fails(500), answers())
    await rig.chat(model="chat")
    rig.upstream.does(answers())
    await rig.chat(model="chat", text="x")
    rig.configure(
        models=(a_model(), a_model("large")),
        routes=(a_route(cache_ttl_s=60),),
        keys={KEY: a_key(), SCRAPER: a_key("scraper", scopes=frozenset({"metrics"}))},
    )
    await rig.chat(model="chat", text="y")
    await rig.chat(model="chat", text="y")
    found = await scraped(rig)
    assert total(found, "llmops_fallbacks_total", route="chat") >= 1
    assert total(found, "llmops_breaker_state", route="chat", target="small") == 2
    assert total(found, "llmops_attempts_total", code="upstream_500") == 1


async def test_answers_out_of_the_cache_show_what_they_saved(rig: Rig) -> None:
    configured(rig, routes=(a_route(cache_ttl_s=60),), budgets=(a_budget(limit_nano=USD),))
    for _ in range(3):
        await rig.chat(model="chat")
    found = await scraped(rig)
    assert total(found, "llmops_cache_requests_total", result="miss") == 1
    assert total(found, "llmops_cache_requests_total", result="hit") == 2
    cost = total(found, "llmops_cost_nanodollars_total", project="support")
    assert total(found, "llmops_cache_saved_nanodollars_total", project="support") == 2 * cost > 0
    assert total(found, "llmops_cache_entries") == 1


async def test_only_a_key_for_metrics_reads_them_and_it_reads_nothing_else(rig: Rig) -> None:
    configured(rig)
    for key, status in ((None, 401), ("llmops_wrongkey_" + "w" * 40, 401), (KEY, 403), (SCRAPER, 200)):
        answer = await rig.start(b"", path="/metrics", method="GET", key=key).done()
        assert answer.status == status
        assert answer.headers["x-request-id"]
    assert (await rig.chat(model="chat", how={"key": SCRAPER})).status == 403
    assert (await rig.start(b"", path="/metrics", key=SCRAPER).done()).status == 405


async def test_open_metrics_where_the_scraper_asks_for_it(rig: Rig) -> None:
    configured(rig)
    await rig.chat(model="chat")
    answer = await rig.start(
        b"", path="/metrics", method="GET", key=SCRAPER, headers={"accept": "application/openmetrics-text"}
    ).done()
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


async def test_nothing_that_a_caller_sent_becomes_a_label(rig: Rig) -> None:
    configured(rig)
    await rig.chat(
        model="PLANTED-model",
        text="PLANTED-text",
        user="PLANTED-user",
        how={
            "headers": {
                "x-request-id": "PLANTED-id",
                "x-llmops-feature": "PLANTED-feature",
                "x-llmops-tags": "PLANTED-tag",
                "x-llmops-session": "PLANTED-session",
            }
        },
    )
    answer = await rig.start(b"", path="/metrics", method="GET", key=SCRAPER).done()
    assert b"PLANTED" not in answer.body


async def test_what_policies_said_shows(rig: Rig) -> None:
    checks = (("personal_data", BEFORE, REDACT, {}), ("secrets", AFTER, BLOCK, {}))
    configured(rig, policies=[policy(*checks)])
    rig.upstream.does(answers("fine"), answers(f"Use {A_SECRET}"))
    await rig.chat(text=EMAIL)
    await rig.chat(text=EMAIL)
    found = await scraped(rig)
    name = "llmops_policy_verdicts_total"
    assert total(found, name, policy="strict", check="personal_data", action="redact") == 2
    assert total(found, name, policy="strict", check="secrets", action="block") == 1
    assert total(found, name) == 3


async def test_a_credential_shows_as_refused_until_it_is_taken_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmops.gateway.attempts.credentials.AVOID_S", 0.0)
    entries = (a_credential(name="first"), a_credential(name="second"))
    configured(rig, credentials={"up": entries})
    rig.upstream.does(fails(401, "invalid_api_key"), answers())
    assert (await rig.chat()).status == 200
    name = "llmops_credential_refused"
    found = await scraped(rig)
    assert {one: total(found, name, provider="up", credential=one) for one in ("first", "second")} == {
        "first": 1,
        "second": 0,
    }
    for _ in range(3):
        await rig.chat()
    assert total(await scraped(rig), name) == 0


async def test_responses_in_the_background_show_while_they_are_followed(rig: Rig) -> None:
    configured(rig)
    running = a_response(status="queued", output=[], usage=None)

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(running)

    rig.upstream.does(script)
    await rig.call(respond_to(background=True), path="/v1/responses")
    assert total(await scraped(rig), "llmops_background_followed") == 1
    rig.plane.background.saw("up", "resp_1", json.dumps(a_response()).encode())
    await eventually(lambda: len(rig.plane.background) == 0)
    assert total(await scraped(rig), "llmops_background_followed") == 0


def an_end(number: int) -> Ended:
    who = Origin(call="c", started=0, project="p", key="k", endpoint="chat", revision=1, route=f"r{number}")
    verdict = Verdict(f"policy-{number}", 1, BEFORE, "secrets", BLOCK)
    outcome = Outcome(status="ok", http=200, model="m", total_us=10, verdicts=[verdict])
    return Ended(n=0, at=0, attempt=0, origin=who, outcome=outcome)


def test_the_number_of_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 10)
    counted = Metrics()
    for number in range(1_000):
        counted.note(an_end(number))
    assert len(counted.requests) <= 11
    assert sum(one.calls for one in counted.requests.values()) == 1_000
    assert len(counted.verdicts) <= 11
    assert sum(counted.verdicts.values()) == 1_000


async def test_what_waits_to_be_booked_and_how_old_the_news_are(rig: Rig) -> None:
    configured(rig)
    await rig.chat(model="chat")
    rig.plane.heard(1)
    found = await scraped(rig)
    assert total(found, "llmops_journal_unbooked_records") == rig.journal.sequence - 1
    assert 0 <= total(found, "llmops_live_state_age_seconds") < 60
    changed = rig.configure(
        routes=(a_route(),), version=2, keys={SCRAPER: a_key(scopes=frozenset({"metrics"}))}
    )
    changed.changed_at = time.time() - 0.3
    changed.live_version = 3
    rig.plane.swap(changed)
    assert total(await scraped(rig), "llmops_live_state_delay_seconds_count") == 0, (
        "the same numbers are no news"
    )
