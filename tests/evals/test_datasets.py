"""Calls kept as cases: added by who may, never changed; what was copied goes with the call's own texts."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import Error, transaction
from django.utils import timezone

from llmops.access.models import Project
from llmops.core.errors import Conflict, InvalidRequest, NotFound
from llmops.evals import services
from llmops.evals.models import Case, CaseText, Dataset
from llmops.evals.selectors import cases_of
from llmops.usage.models import Call
from llmops.usage.services import remove_kept_texts
from tests.access.test_service_keys import every_text_in_the_database
from tests.cast import COMMAND, one_event, person, signed_in
from tests.console.world import a_call
from tests.usage.texts_kept import keep_texts, open_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def dataset(cast: Any) -> Dataset:
    open_project(cast.support, days=7)
    return services.create_dataset(
        COMMAND, project=cast.support, name="Greetings", description="How we greet"
    )


def kept(project: Any, asked: str = "Secretly hi", **known: Any) -> Call:
    made = a_call(project, endpoint="chat.completions", model="sim-small", **known)
    keep_texts(made, asked, "Hello you")
    return made


def exported(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in services.export_dataset(COMMAND, dataset=dataset)]


def test_a_case_says_what_was_asked_answered_and_expected(dataset, cast):
    call = kept(cast.support, prompt_name="hello", prompt_version=2)
    with one_event("dataset.case_added") as seen:
        case = services.add_case(
            COMMAND, dataset=dataset, call=call, expected="Confidentially hello", note="short"
        )
    assert seen.event.after == {"case": 1, "call": str(call.pk), "digest": case.digest}
    assert seen.event.project_id == cast.support.pk
    with one_event("dataset.exported"):
        [line] = exported(dataset)
    assert line["input"] == {"messages": [{"role": "user", "content": "Secretly hi"}]}
    assert line["output"] == [["text", "Hello you"]] and line["expected"] == "Confidentially hello"
    assert (line["case"], line["source_call"], line["note"]) == (1, str(call.pk), "short")
    assert line["prompt"] == {"name": "hello", "version": 2}
    stored = every_text_in_the_database()
    assert not any("Secretly" in text or "Confidentially" in text for text in stored)


def test_numbers_have_no_gaps_and_a_call_is_in_it_once(dataset, cast):
    calls = [kept(cast.support) for _ in range(3)]
    assert [services.add_case(COMMAND, dataset=dataset, call=one).n for one in calls] == [1, 2, 3]
    with pytest.raises(Conflict, match="already"):
        services.add_case(COMMAND, dataset=dataset, call=calls[0])
    # Two that said the same are told by their digests.
    assert Case.objects.values("digest").distinct().count() == 1
    assert Dataset.objects.get().cases_made == 3


def test_only_calls_of_its_project_whose_texts_are_kept(dataset, cast):
    open_project(cast.search)
    with pytest.raises(InvalidRequest, match="stays in it"):
        services.add_case(COMMAND, dataset=dataset, call=kept(cast.search))
    with pytest.raises(NotFound, match="not kept"):
        services.add_case(COMMAND, dataset=dataset, call=a_call(cast.support))
    with pytest.raises(InvalidRequest, match="expected"):
        services.add_case(COMMAND, dataset=dataset, call=kept(cast.support), expected="x" * 40_000)
    assert not Case.objects.exists()


def test_names_are_taken_once_for_each_project(dataset, cast):
    with pytest.raises(Conflict):
        services.create_dataset(COMMAND, project=cast.support, name=" Greetings ")
    with pytest.raises(InvalidRequest):
        services.create_dataset(COMMAND, project=cast.support, name="")
    services.create_dataset(COMMAND, project=cast.search, name="Greetings")


def test_a_case_is_never_changed_or_removed(dataset, cast):
    case = services.add_case(COMMAND, dataset=dataset, call=kept(cast.support), note="as it was")
    for change in (
        lambda: Case.objects.update(note="another"),
        lambda: Case.objects.update(digest="0" * 64),
        lambda: Case.objects.filter(pk=case.pk)._raw_delete("default"),
    ):
        with pytest.raises(Error), transaction.atomic():
            change()


def test_copies_go_when_the_texts_of_their_calls_go(dataset, cast):
    old = kept(cast.support, started_at=timezone.now() - timedelta(days=6))
    new = kept(cast.support)
    for call in (old, new):
        services.add_case(COMMAND, dataset=dataset, call=call, expected="Hello")
    later = timezone.now() + timedelta(days=2)
    assert remove_kept_texts(now=later) == 2 and services.remove_copied_texts(now=later, batch=1) == 1
    first, second = exported(dataset)
    assert first["input"] is None and first["output"] is None and first["expected"] == "Hello"
    assert second["output"] == [["text", "Hello you"]]
    assert [row.until is None for row in cases_of(dataset)] == [False, True]
    # At once, whether or not somebody came by to remove them.
    Project.objects.filter(pk=cast.support.pk).update(keep_texts_readable=False)
    assert [line["output"] for line in exported(dataset)] == [None, None]
    assert services.remove_copied_texts() == 1 and not CaseText.objects.exists()


@pytest.mark.any_engine
def test_the_pages(dataset, cast):
    call = kept(cast.support)
    client = signed_in(cast.bob)
    assert b"Put into a dataset" in client.get(f"/calls/{call.pk}/").content
    page = client.get(f"/datasets/add/{call.pk}/")
    assert page.status_code == 200 and b"Greetings" in page.content
    wrong = client.post(f"/datasets/add/{call.pk}/", {"dataset": "x"})
    assert wrong.status_code == 400 and b"choose one of the list" in wrong.content
    added = client.post(
        f"/datasets/add/{call.pk}/", {"dataset": str(dataset.pk), "expected": "Hello", "note": "n"}
    )
    assert added.status_code == 302 and added["location"] == f"/datasets/{dataset.pk}/"
    shown = client.get(added["location"])
    assert b"for 7 days after the call" in shown.content and str(call.pk) in shown.content.decode()
    assert b"Secretly" not in shown.content
    file = client.post(added["location"])
    assert file["content-disposition"] == 'attachment; filename="greetings.jsonl"'
    assert json.loads(
        b"".join(file.streaming_content) if not hasattr(file.streaming_content, "__aiter__") else b"{}"
    )
    assert client.get("/datasets/").status_code == 200
    unkept = a_call(cast.support, endpoint="chat.completions")
    assert b"not among those that are kept" in client.get(f"/datasets/add/{unkept.pk}/").content
    auditor = signed_in(person("ada", ("auditor", cast.support)))
    assert auditor.get(f"/datasets/{dataset.pk}/").status_code == 200
    assert auditor.post(f"/datasets/{dataset.pk}/").status_code == 403
    assert signed_in(cast.charlie).get(f"/datasets/{dataset.pk}/").status_code == 404
