"""What calls brought: told once or many times, early or late, by whose call it is and nobody else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client

from llmops.core.errors import NotFound
from llmops.usage import services
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import CallOutcome, OutcomeKind, OutcomeRollup, RetentionMark
from llmops.usage.selectors import Span, SpendFilters
from llmops.usage.selectors.outcomes import Brought, outcomes_by
from llmops.usage.selectors.spend import midnight
from llmops.usage.services.outcomes import MOST_AT_ONCE, MOST_KINDS, Told, report_outcomes
from tests.cast import COMMAND, bearer, in_threads, issue, no_event, signed_in
from tests.usage.journals import Scribe

OUTCOMES = "/api/v1/outcomes/"


@pytest.fixture
def told(tmp_path: Path, cast: SimpleNamespace) -> SimpleNamespace:
    """Six calls of support and one of search, booked, and a service key of each."""
    keys = [issue(cast.support), issue(cast.search)]
    scribe = Scribe.at(tmp_path)

    def call(which: int, feature: str) -> str:
        project = (cast.support, cast.search)[which]
        return scribe.call(
            project=str(project.pk), key=str(keys[which].key.pk), feature=feature, cost=1_000
        ).call

    ours = [call(0, "triage" if number < 4 else "draft") for number in range(6)]
    theirs = call(1, "ranking")
    Ingester(tmp_path).run_once()
    return SimpleNamespace(
        ours=ours, theirs=theirs, service=bearer(keys[0].secret), other=bearer(keys[1].secret)
    )


def post(client: Client, body: Any) -> Any:
    return client.post(OUTCOMES, body, content_type="application/json")


def figures() -> dict[Any, list[Brought]]:
    today = midnight(datetime.now(UTC))
    return outcomes_by("feature", Span(today - timedelta(days=1), today + timedelta(days=1)), SpendFilters())


def test_a_service_tells_what_its_calls_brought(told: SimpleNamespace, cast: SimpleNamespace) -> None:
    with no_event():
        answer = post(
            told.service,
            [
                {"call_id": told.ours[0], "kind": "resolved", "value": "12.50"},
                {
                    "call_id": told.ours[1],
                    "kind": "resolved",
                    "at": "2026-01-05T08:00:00Z",
                    "note": "by phone",
                },
                {"call_id": told.ours[1], "kind": "thumbs_up"},
                {"call_id": told.ours[4], "kind": "resolved"},
            ],
        )
    assert answer.status_code == 200, answer.json()
    assert answer.json() == {
        "recorded": 4, "changed": 0, "unchanged": 0, "unknown": 0, "results": ["recorded"] * 4,
    }  # fmt: skip
    assert figures() == {
        "triage": [Brought("resolved", 2, 12_500_000_000), Brought("thumbs_up", 1, 0)],
        "draft": [Brought("resolved", 1, 0)],
    }
    listed = signed_in(cast.carla).get(OUTCOMES, {"kind": "resolved"}).json()["results"]
    assert {one["call_id"] for one in listed} == {told.ours[0], told.ours[1], told.ours[4]}
    assert signed_in(cast.charlie).get(OUTCOMES).json()["results"] == []


def test_telling_again_changes_nothing_and_the_last_word_counts(told: SimpleNamespace) -> None:
    body = {"outcomes": [{"call_id": told.ours[0], "kind": "converted", "value": "3"}]}
    assert post(told.service, body).json()["results"] == ["recorded"]
    for _ in range(3):
        assert post(told.service, body).json()["results"] == ["unchanged"]
    body["outcomes"][0]["value"] = "5"
    assert post(told.service, body).json()["results"] == ["changed"]
    twice = [{"call_id": told.ours[2], "kind": "converted", "value": value} for value in ("1", "2", "2")]
    assert post(told.service, twice).json()["results"] == ["recorded", "changed", "unchanged"]
    assert figures() == {"triage": [Brought("converted", 2, 7_000_000_000)]}
    assert CallOutcome.objects.count() == 2


def test_what_is_left_out_later_stays_as_it_was_told(told: SimpleNamespace) -> None:
    def tell(**given: Any) -> str:
        answer = post(told.service, [{"call_id": told.ours[0], "kind": "converted", **given}])
        assert answer.status_code == 200, answer.json()
        return str(answer.json()["results"][0])

    assert tell(value="3", note="by phone") == "recorded"
    assert tell() == "unchanged"
    assert tell(at="2026-01-05T08:00:00+01:00") == "changed"
    row = CallOutcome.objects.get()
    assert (row.value_nano, row.note, row.at) == (
        3_000_000_000, "by phone", datetime(2026, 1, 5, 7, tzinfo=UTC),
    )  # fmt: skip
    assert figures() == {"triage": [Brought("converted", 1, 3_000_000_000)]}
    assert tell(value=None, note="") == "changed"
    assert tell(value=None) == "unchanged"
    row = CallOutcome.objects.get()
    assert (row.value_nano, row.note) == (0, "")
    assert figures() == {"triage": [Brought("converted", 1, 0)]}


def test_another_project_s_call_is_as_unknown_as_none(told: SimpleNamespace) -> None:
    for unknown in (told.theirs, str(uuid4()), str(UUID(told.ours[0][:-6] + "000000"))):
        answer = post(told.service, [{"call_id": unknown, "kind": "resolved"}])
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "call_id"
    mixed = post(
        told.service, [{"call_id": call, "kind": "resolved"} for call in (told.theirs, told.ours[0])]
    )
    assert mixed.status_code == 200 and mixed.json()["results"] == ["unknown", "recorded"]
    assert post(told.other, [{"call_id": told.theirs, "kind": "resolved"}]).status_code == 200
    assert Client().post(OUTCOMES, "[]", content_type="application/json").status_code == 401


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('"x"', "outcomes"),
        ([], "outcomes"),
        ({"outcome": []}, "outcome"),
        ([1], "outcomes[0]"),
        ([{"kind": "resolved"}], "outcomes[0].call_id"),
        ([{"call_id": "7", "kind": "resolved"}], "outcomes[0].call_id"),
        ([{"call_id": str(UUID(int=1)), "kind": "Resolved!"}], "outcomes[0].kind"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "mood": 1}], "outcomes[0].mood"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "value": 1.5}], "outcomes[0].value"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "value": {}}], "outcomes[0].value"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "value": "-1"}], "outcomes[0].value"),
        (
            [
                {"call_id": str(UUID(int=1)), "kind": "ok", "value": "1"},
                {"call_id": str(UUID(int=1)), "kind": "ok", "value": "abc"},
            ],
            "outcomes[1].value",
        ),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "at": "2026-11-26 12:00"}], "outcomes[0].at"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "at": "2026-11-26"}], "outcomes[0].at"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "at": "tomorrow"}], "outcomes[0].at"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "at": "2126-01-01T00:00:00Z"}], "outcomes[0].at"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok", "note": "n" * 301}], "outcomes[0].note"),
        ([{"call_id": str(UUID(int=1)), "kind": "ok"}] * (MOST_AT_ONCE + 1), "outcomes"),
    ],
)
def test_what_cannot_be_read_is_named(cast: SimpleNamespace, body: Any, param: str) -> None:
    answer = post(bearer(issue(cast.support).secret), body)
    assert answer.status_code == 400, answer.json()
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["message"].startswith(param) or param == "outcome"


def test_a_project_has_only_so_many_kinds(told: SimpleNamespace, cast: SimpleNamespace) -> None:
    OutcomeKind.objects.bulk_create(
        [OutcomeKind(project_id=cast.support.pk, kind=f"k{number}") for number in range(MOST_KINDS)]
    )
    answer = post(told.service, [{"call_id": told.ours[0], "kind": "one_more"}])
    assert answer.status_code == 400 and "at most" in answer.json()["error"]["message"]
    assert post(told.service, [{"call_id": told.ours[0], "kind": "k3"}]).status_code == 200
    assert CallOutcome.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_tell_the_same_at_once_are_counted_once(told: SimpleNamespace) -> None:
    items = [Told(UUID(call), "resolved", 1_000) for call in told.ours]
    results = in_threads(*[lambda: report_outcomes(COMMAND, items, project_ids=None) for _ in range(4)])
    assert sorted(result.count("recorded") for result in results) == [0, 0, 0, 6], results
    assert sum(sums[0].count for sums in figures().values()) == 6


def test_a_rebuild_counts_outcomes_anew_and_retention_forgets_them(told: SimpleNamespace) -> None:
    report_outcomes(COMMAND, [Told(UUID(call), "resolved", 5) for call in told.ours], project_ids=None)
    right = figures()
    OutcomeRollup.objects.filter(feature="draft").delete()
    OutcomeRollup.objects.filter(feature="triage").update(outcomes=77)
    day = CallOutcome.objects.get(call_id=told.ours[0]).call_started_at.date()
    job = services.request_rebuild(COMMAND, day, enqueue=False)
    services.run_job(job.pk)
    job.refresh_from_db()
    assert figures() == right
    assert any("outcomes" in line for line in job.result["differences"])
    assert services.forget_outcomes() == 0
    RetentionMark.objects.create(pk=1, calls_since=midnight(datetime.now(UTC)) + timedelta(days=1))
    assert services.forget_outcomes() == 6
    assert figures() == right
    with pytest.raises(NotFound):
        report_outcomes(COMMAND, [Told(uuid4(), "resolved")], project_ids=None)


def test_nobody_makes_the_figures_of_all_impossible_to_sum(
    told: SimpleNamespace, cast: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key's outcomes are summed with everybody's, in columns of 64 bits."""

    def tell(number: int, value: str) -> Any:
        return post(told.service, [{"call_id": told.ours[number], "kind": "converted", "value": value}])

    refused = tell(0, "9200000000")
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "outcomes[0].value"
    assert tell(0, "1000000.000000001").status_code == 400
    monkeypatch.setattr("llmops.usage.services.outcomes.MOST_WORTH_A_DAY", 2_500_000 * 10**9)
    assert [tell(number, "1000000").status_code for number in range(3)] == [200, 200, 400]
    assert tell(2, "500000").status_code == 200
    assert tell(1, "1000000").json()["results"] == ["unchanged"]
    assert tell(1, "2").status_code == 200, "less always fits"
    assert figures()["triage"] == [Brought("converted", 3, 1_500_002 * 10**9)]


@pytest.mark.parametrize(
    "call", ["ffffffff-ffff-7fff-bfff-ffffffffffff", "00000000-0000-7000-8000-000000000000", "0" * 32]
)
def test_ids_of_no_moment_are_of_no_call(told: SimpleNamespace, call: str) -> None:
    answer = post(told.service, [{"call_id": call, "kind": "a"}, {"call_id": told.ours[0], "kind": "a"}])
    assert answer.status_code == 200 and answer.json()["results"] == ["unknown", "recorded"]
    assert post(told.service, [{"call_id": call, "kind": "a"}]).status_code == 404
