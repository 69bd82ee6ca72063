"""Policies tried on what calls asked: counted, on the record, without a text; what is kept goes when it is to go."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from llmops.access import services as access
from llmops.access.models import Membership
from llmops.audit.models import Event
from llmops.base.master_keys import master_keys
from llmops.policies import services as policies
from llmops.policies.stored_trial import outcome_of
from llmops.usage import trying
from llmops.usage.ingest.loop import Ingester
from llmops.usage.journal import JournalWriter
from llmops.usage.models import KeptText
from llmops.usage.records import TextKept, kept_text_identity
from llmops.usage.services import remove_kept_texts
from llmops.usage.trying import try_on_calls
from tests.cast import COMMAND

ADA = "Write to ada@example.com"


def keep(project: Any, *texts: str, days_ago: float = 0.0, route: str = "chat") -> list[UUID]:
    made = []
    for text in texts:
        call = uuid4()
        sealed = master_keys().seal(json.dumps([["user", text]]), identity=kept_text_identity(call))
        KeptText.objects.create(
            call_id=call,
            project_id=project.pk,
            route=route,
            started_at=timezone.now() - timedelta(days=days_ago),
            sealed=sealed,
        )
        made.append(call)
    return made


@pytest.fixture
def policy(cast: Any) -> Any:
    return policies.create_policy(
        COMMAND,
        slug="careful",
        checks=[
            {
                "kind": "personal_data",
                "stage": "before",
                "action": "redact",
                "settings": {"kinds": ["email"]},
            },
            {
                "kind": "deny",
                "stage": "before",
                "action": "block",
                "settings": {"rules": [{"name": "weapons", "words": ["bomb"]}]},
            },
        ],
    )


def tried(user: Any, policy: Any, calls: int = 1_000) -> str:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    address = reverse("admin:policies_policy_try_on_calls", args=[policy.pk])
    return client.post(address, {"calls": str(calls)}).content.decode()


@pytest.mark.any_engine
def test_what_a_version_would_have_done(cast, policy):
    [written, *_] = keep(
        cast.support, ADA, "hello", "how to build a bomb", "a bomb for bob@example.com", "hi"
    )
    page = tried(cast.alice, policy)
    assert "Version 1 would have blocked 2 of 5 calls, redacted 1." in page
    assert "Deny list: block" in page and "Personal data: redact" in page
    assert reverse("dashboards:call", args=[written]) in page
    # No text of a call stands anywhere.
    event = Event.objects.latest("pk")
    assert event.action == "policy.tried_on_calls"
    assert event.after["calls"] == 5 and event.after["outcome"] == {"redact": 1, "allow": 2, "block": 2}
    for told in (page, str(event.after)):
        assert "ada@example.com" not in told and "build" not in told


@pytest.mark.any_engine
def test_the_last_ones(cast, policy):
    keep(cast.support, ADA, days_ago=2)
    keep(cast.support, "hello", "hi")
    assert "would have let all of 2 calls pass as they were" in tried(cast.alice, policy, calls=2)
    assert "would have redacted 1 of 3 calls" in tried(cast.alice, policy, calls=3)


@pytest.mark.any_engine
def test_without_texts_it_says_what_to_do(cast, policy):
    assert "no project that you may see has its texts kept" in tried(cast.alice, policy)
    access.update_project(COMMAND, project=cast.support, keep_texts_percent=10)
    assert "the texts of support are kept from now on" in tried(cast.alice, policy)


@pytest.mark.any_engine
def test_only_of_projects_that_one_may_see(cast, policy):
    keep(cast.support, ADA)
    keep(cast.search, ADA, ADA)
    person = cast.charlie
    Membership.objects.filter(user=person).delete()
    assert "would have" not in tried(person, policy)
    Membership.objects.create(user=person, project=None, role="operator")
    assert "of 3 calls" in tried(person, policy)


@pytest.mark.any_engine
def test_what_cannot_be_opened_is_counted_and_passed_over(cast, policy):
    keep(cast.support, ADA)
    # Sealed for another call.
    KeptText.objects.create(
        call_id=uuid4(),
        project_id=cast.support.pk,
        started_at=timezone.now(),
        sealed=KeptText.objects.get().sealed,
    )
    page = tried(cast.alice, policy)
    assert "redacted 1 of 1 calls" in page and "1 could not be opened" in page


@pytest.fixture
def told_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is a step of a trial, and two of them are read at once."""
    monkeypatch.setattr(trying, "STEP_S", 0.0)
    monkeypatch.setattr(trying, "_PIECE", 2)


def as_it_goes_on(user: Any, policy: Any) -> Any:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    address = reverse("admin:policies_policy_try_on_calls", args=[policy.pk])
    return client.post(address, {"calls": "1000"}, headers={"accept": "application/x-ndjson"})


def test_a_page_is_told_how_far_it_is(cast, policy, told_each_call):
    # All of one moment, and calls that come while others are looked at.
    moment = timezone.now()
    keep(cast.support, ADA, "hello", "bomb", "hi", "a bomb for bob@example.com")
    KeptText.objects.update(started_at=moment)
    answer = as_it_goes_on(cast.alice, policy)
    assert answer["content-type"] == "application/x-ndjson"
    lines = iter(answer.streaming_content)
    told = [json.loads(next(lines)), json.loads(next(lines))]
    keep(cast.support, ADA)
    told += [json.loads(line) for line in lines]
    assert [one["done"] for one in told] == [0, 1, 2, 3, 4, 5, 5]
    assert {one["of"] for one in told} == {5}
    assert [one["over"] for one in told] == [False] * 6 + [True]
    last = told[-1]
    assert (last["matched"], last["words"]) == (3, "would have blocked 2 of 5 calls, redacted 1")
    assert "so far" in told[3]["html"] and "Version 1 would have blocked 2 of 5 calls" in last["html"]
    assert last["html"].count(reverse("dashboards:call", args=[uuid4()]).split("/calls/")[0] + "/calls/") == 3
    event = Event.objects.get(action="policy.tried_on_calls")
    assert event.after["calls"] == 5


def test_whoever_goes_away_ends_it_and_what_was_read_is_on_record(cast, policy, told_each_call):
    keep(cast.support, ADA, "hello", "bomb")
    trials = try_on_calls(COMMAND, policy=policy, version=policy.current, projects=None)
    for _ in range(3):
        next(trials)
    assert not Event.objects.filter(action="policy.tried_on_calls").exists()
    trials.close()
    assert Event.objects.get(action="policy.tried_on_calls").after["calls"] == 2


@pytest.mark.any_engine
def test_where_nobody_is_shown_how_far_it_is_it_stops_and_says_so(cast, policy, told_each_call):
    keep(cast.support, ADA, "hello", "bomb")
    trial = outcome_of(try_on_calls(COMMAND, policy=policy, version=policy.current, projects=None), seconds=0)
    assert trial.stopped and trial.done < 3
    assert Event.objects.get(action="policy.tried_on_calls").after["calls"] == trial.looked


@pytest.mark.any_engine
def test_what_is_wrong_with_the_question_is_told_as_a_page(cast, policy):
    client = Client()
    client.force_login(cast.alice, backend="django.contrib.auth.backends.ModelBackend")
    address = reverse("admin:policies_policy_try_on_calls", args=[policy.pk])
    answer = client.post(address, {"calls": "0"}, headers={"accept": "application/x-ndjson"})
    assert answer["content-type"].startswith("text/html") and b"greater than or equal to 1" in answer.content


def test_texts_go_when_their_project_says(cast):
    access.update_project(COMMAND, project=cast.support, keep_texts_percent=10, keep_texts_days=3)
    keep(cast.support, "new", days_ago=2)
    keep(cast.support, "old", days_ago=4)
    keep(cast.search, "of a project that keeps none")
    assert remove_kept_texts(batch=1) == 2
    assert KeptText.objects.count() == 1
    access.update_project(COMMAND, project=cast.support, keep_texts_percent=0)
    assert remove_kept_texts() == 1


@pytest.mark.django_db(transaction=True)
def test_the_journal_brings_them_once(tmp_path: Path):
    call, project = uuid4(), uuid4()
    writer = JournalWriter(tmp_path)
    said = TextKept(
        n=0,
        at=1,
        call=str(call),
        project=str(project),
        started=1_795_000_000 * 10**9,
        sealed="v1.k.x",
        route="chat",
    )
    writer.append(said)
    Ingester(tmp_path).run_once()
    writer.append(said)
    Ingester(tmp_path).run_once()
    [row] = KeptText.objects.all()
    assert (row.call_id, row.project_id, row.route, row.sealed) == (call, project, "chat", "v1.k.x")
    writer.close()
    # Outside of a transaction, as a page asks.
    made = policies.create_policy(
        COMMAND, slug="p", checks=[{"kind": "injection", "stage": "before", "action": "allow"}]
    )
    trial = outcome_of(try_on_calls(COMMAND, policy=made, version=made.current, projects=None))
    assert (trial.looked, trial.unreadable) == (0, 1)
