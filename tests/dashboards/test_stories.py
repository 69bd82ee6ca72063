"""The story of one call: what was tried, what it cost and why, in words that outlive what they speak of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import pytest
from django.test import Client
from django.utils.html import escape

from llmops.access.models import Membership
from llmops.core.ids import uuid7
from llmops.core.verdicts import Finding, Verdict
from llmops.dashboards import words
from llmops.usage.models import Call, KeptObject
from tests.dashboards import seed
from tests.dashboards.conftest import signed_in
from tests.dashboards.reading import listed, text_of

pytestmark = pytest.mark.django_db


def test_the_story_of_a_call_that_failed_over_twice(alice: Client, stage: SimpleNamespace) -> None:
    window = seed.budget("support-month", "50", "31", value="support", project=stage.support)
    charge = {"window": window.pk, "held": 12_000_000, "cost": 7_206_000}
    (call,) = seed.store([seed.failed_over_twice(stage, datetime.now(UTC), charges=[charge])])
    page = alice.get(f"/calls/{call.pk}/")
    story, text = page.context["story"], text_of(page)
    assert [lane.model for lane in story.lanes] == [
        "gpt-4o-2024-08-06", "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "sim-large",
    ]  # fmt: skip
    assert [lane.failed for lane in story.lanes] == [True, True, True, False]
    assert "sim-large answered in" in text
    assert "4 attempts, 1 retry, 2 fallbacks" in text
    assert "Asked again 328 ms later, after HTTP 429." in text
    assert "Moved on from gpt-4o-2024-08-06 after HTTP 503." in text
    assert story.in_short == [
        "gpt-4o-2024-08-06 was asked twice in vain: the provider's own rate limit was reached (HTTP 429) and "
        "the provider failed (HTTP 503). Not charged.",
        "gpt-4o-mini-2024-07-18 was asked once in vain: the provider did not answer in time. It cost $0.000054.",
        "sim-large answered with HTTP 200. It cost $0.007152.",
    ]
    assert all(escape(line) in text for line in story.in_short)
    assert text.count("Simulator") >= 2
    # 556 at $3, 256 at $0.30, 143 at $15 for a million; the rest went to attempts that failed and were billed.
    assert "$0.0038898" not in text
    assert sum(row.cost_nano for row in story.tokens) == 556 * 3_000 + 256 * 300 + 143 * 15_000
    assert story.other_cost_nano == 7_206_000 - (556 * 3_000 + 256 * 300 + 143 * 15_000)
    assert "$0.007206" in text
    assert [(charge.budget, charge.held_nano, charge.cost_nano) for charge in story.charges] == [
        ("support-month", 12_000_000, 7_206_000)
    ]
    for label in ("project", "key", "route", "model", "revision"):
        assert alice.get(story.links[label]).status_code == 200, label
    assert str(call.pk) in listed(alice, story.neighbours)


@pytest.mark.any_engine
def test_who_was_passed_over_and_who_is_charged_at_its_hold_is_told(
    alice: Client, stage: SimpleNamespace
) -> None:
    silent = seed.attempt(
        1, "gpt-4o-2024-08-06", code="upstream_timeout", total_us=1_000_000, cost=9_000_000, note=words.AT_HOLD,
    )  # fmt: skip
    why = "after a time-out; gpt-4o-mini-2024-07-18 is passed over: circuit open"
    last = seed.attempt(
        2, "sim-large", status=200, total_us=400_000, started_us=1_000_100, cost=70_000, why=why
    )
    (call,) = seed.store(
        [
            seed.make_call(
                stage, datetime.now(UTC), model="sim-large", provider="simulator", attempt_count=2, fallback_count=1,
                cost_nano=9_070_000, attempts=[silent, last],
            )
        ]
    )  # fmt: skip
    page = alice.get(f"/calls/{call.pk}/")
    assert page.context["story"].in_short == [
        "gpt-4o-2024-08-06 was asked once in vain: the provider did not answer in time. Charged $0.009000, as held: nobody "
        "knows whether the provider bills it.",
        "gpt-4o-mini-2024-07-18 was passed over: its breaker is open, because it failed too often.",
        "sim-large answered with HTTP 200. It cost $0.000070.",
    ]
    assert "Attempt 1 is charged at the hold, because nobody knew what it cost." in text_of(page)


@pytest.mark.any_engine
def test_a_call_that_met_one_model_has_nothing_to_sum_up(alice: Client, stage: SimpleNamespace) -> None:
    (call,) = seed.store(
        [seed.make_call(stage, datetime.now(UTC), attempts=[seed.attempt(1, "a", status=200)])]
    )
    assert alice.get(f"/calls/{call.pk}/").context["story"].in_short == []


@pytest.mark.any_engine
def test_a_call_of_one_attempt_costs_what_its_tokens_cost(alice: Client, stage: SimpleNamespace) -> None:
    (call,) = seed.store([seed.make_call(stage, datetime.now(UTC))])
    story = alice.get(f"/calls/{call.pk}/").context["story"]
    assert story.other_cost_nano == 0
    assert sum(part.microseconds for part in story.parts) == call.total_us


@pytest.mark.any_engine
def test_what_a_call_heard_and_made_is_priced_class_by_class_in_its_tier(
    alice: Client, stage: SimpleNamespace
) -> None:
    prices = {
        "audio_input": 40_000, "image_input": 5_000, "audio_output": 80_000, "image_output": 50_000, "seconds": 100_000,
        "characters": 15_000, "images": 40_000_000, "input_priority": 4_250, "output_priority": 17_000,
    }  # fmt: skip
    number = seed.republished("gpt-4o-2024-08-06", prices)
    used = {
        "revision": number, "input_tokens": 100, "cached_input_tokens": 0, "output_tokens": 60, "audio_input_tokens": 30,
        "image_input_tokens": 20, "audio_output_tokens": 25, "image_output_tokens": 15, "characters": 7, "seconds": 8,
        "images": 2,
    }  # fmt: skip
    media = 30 * 40_000 + 20 * 5_000 + 25 * 80_000 + 15 * 50_000 + 7 * 15_000 + 8 * 100_000 + 2 * 40_000_000
    plain, dear = media + 50 * 2_500 + 20 * 10_000, media + 50 * 4_250 + 20 * 17_000
    now = datetime.now(UTC)
    standard, priority = seed.store(
        [
            seed.make_call(stage, now, cost_nano=plain, **used),
            seed.make_call(stage, now, cost_nano=dear, service_tier="priority", **used),
        ]
    )
    for call, cost in ((standard, plain), (priority, dear)):
        page = alice.get(f"/calls/{call.pk}/")
        story, text = page.context["story"], text_of(page)
        assert sum(row.cost_nano for row in story.tokens) == cost
        assert story.other_cost_nano == 0
        assert ("service tier priority" in text) is (call is priority)
        for said in ("Input, audio 30", "Output, images 15", "Characters spoken 7", "Seconds of audio heard 8", "Images made 2"):  # fmt: skip
            assert said in text
        assert "160 tokens" in text


@pytest.mark.any_engine
def test_what_is_unknown_is_explained(alice: Client, stage: SimpleNamespace) -> None:
    now = datetime.now(UTC)
    unknown, interrupted, refused = seed.store(
        [seed.unknown(stage, now), seed.interrupted(stage, now), seed.refused(stage, now)]
    )
    said = text_of(alice.get(f"/calls/{unknown.pk}/"))
    assert "cannot be known from here" in said
    assert "Charged whole, because the outcome is unknown" in said
    assert "Not known: the process died." in said
    assert "got no [DONE]" in text_of(alice.get(f"/calls/{interrupted.pk}/"))
    said = text_of(alice.get(f"/calls/{refused.pk}/"))
    assert "Nothing went to a provider" in said
    assert "support-month allows no more until" in said


@pytest.mark.any_engine
def test_what_is_unknown_names_what_the_provider_keeps_of_it(alice: Client, stage: SimpleNamespace) -> None:
    now = datetime.now(UTC)
    unknown, other, known = seed.store(
        [seed.unknown(stage, now), seed.unknown(stage, now), seed.make_call(stage, now)]
    )
    for call, name in ((unknown, "resp_kept_of_it"), (known, "resp_of_a_known_one")):
        KeptObject.objects.create(
            object_id=name, provider="openai", kind="response", project_id=call.project_id, key_id=call.key_id,
            made_at=now + timedelta(seconds=1), details={"call": str(call.pk)},
        )  # fmt: skip
    said = text_of(alice.get(f"/calls/{unknown.pk}/"))
    assert "Kept at the provider as resp_kept_of_it" in said
    for call in (other, known):
        assert "Kept at the provider" not in text_of(alice.get(f"/calls/{call.pk}/"))


@pytest.mark.any_engine
def test_an_errand_is_told_as_one(alice: Client, stage: SimpleNamespace) -> None:
    [errand] = seed.store(
        [
            seed.make_call(
                stage, datetime.now(UTC), endpoint="files.list", model="", provider="openai", cost_nano=0
            )
        ]
    )
    assert "openai answered in" in text_of(alice.get(f"/calls/{errand.pk}/"))


@pytest.mark.any_engine
def test_verdicts_of_policies_are_told_in_words(alice: Client, stage: SimpleNamespace) -> None:
    verdicts = [
        Verdict(
            "privacy", 3, "before", "personal_data", "redact", [Finding("email", "messages[0].content", 2)]
        ),
        Verdict("house-rules", 1, "after", "deny", "block", [Finding("rivals")], "after 1 more attempt"),
        Verdict("old", 2, "after", "a kind that is no more", "allow", [Finding("x")]),
    ]
    (call,) = seed.store([seed.make_call(stage, datetime.now(UTC), verdicts=msgspec.to_builtins(verdicts))])
    page = alice.get(f"/calls/{call.pk}/")
    rows, text = page.context["story"].verdicts, text_of(page)
    assert [(one.policy, one.version, one.stopped) for one in rows] == [
        ("privacy", 3, False),
        ("house-rules", 1, True),
        ("old", 2, False),
    ]
    assert "email twice at messages[0].content" in text
    assert "taken out before the provider saw it" in text
    assert "The answer was kept back" in text and "(after 1 more attempt)" in text
    told = alice.get(f"/api/v1/calls/{call.pk}/").json()
    assert told["verdicts"][0] == msgspec.to_builtins(verdicts[0])


def test_a_story_survives_what_it_spoke_of(alice: Client, stage: SimpleNamespace) -> None:
    odd = seed.make_call(
        stage, datetime.now(UTC), project_id=uuid7(), key_id=uuid7(), route="gone", model="gone", provider="gone",
        revision=999, cost_nano=1, charges=[{"window": 10**9, "held": 1, "cost": 1}, {"budget": str(uuid7()), "cost": 1}],
        attempts=[seed.attempt(1, "gone", credential="not-an-id", status=200)],
    )  # fmt: skip
    seed.store([odd])
    page = alice.get(f"/calls/{odd.pk}/")
    assert page.status_code == 200
    assert "deleted since" in text_of(page)


@pytest.mark.any_engine
def test_links_show_to_those_who_may_follow_them(stage: SimpleNamespace) -> None:
    (call,) = seed.store([seed.make_call(stage, datetime.now(UTC))])
    Membership.objects.create(user=stage.charlie, project=stage.support, role="finance")
    story = signed_in(stage.charlie).get(f"/calls/{call.pk}/").context["story"]
    # Finance sees models and routes, but neither keys nor revisions.
    assert story.links["model"]
    assert story.links["route"]
    assert (story.links["key"], story.links["revision"]) == ("", "")


def test_a_refusal_leads_to_its_budget(stage: SimpleNamespace, alice: Client) -> None:
    window = seed.budget("one-cent", "0.01", "0.009995", value="support", project=stage.support)
    told = "The budget 'one-cent' has $0.000005 of its $0.01 left. It resets at 2026-11-28 00:00 UTC."
    refused = seed.make_call(
        stage, datetime.now(UTC), status=Call.REFUSED, http_status=429, error_code="insufficient_quota",
        error_message=told, model="", provider="", attempt_count=0, streamed=False, ttft_us=None,
    )  # fmt: skip
    seed.store([refused])
    page = alice.get(f"/calls/{refused.pk}/")
    text = page.content.decode()
    assert f'href="/admin/budgets/budget/{window.budget_id}/change/">Open the budget</a>' in text
    assert 'It resets at <time datetime="2026-11-28T00:00Z"' in text
    assert "It went to no provider" in text and "First token" not in text
    assert "Refused before a model was chosen" in alice.get("/calls/").content.decode()
    assert alice.get(f"/calls/{refused.pk}/").status_code == 200
