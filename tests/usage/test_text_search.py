"""Words are found in what calls said, newest first, within bounds; each search is on record with what it showed, without the words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from llmops.access.models import Project
from llmops.audit.models import Event
from llmops.core.digests import digest
from llmops.core.errors import InvalidRequest, NotFound
from llmops.usage import text_search
from llmops.usage.models import Call, KeptText
from llmops.usage.text_search import search_texts
from tests.cast import COMMAND
from tests.console.world import a_call
from tests.usage.texts_kept import keep_texts, open_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def support(cast: Any) -> Project:
    open_project(cast.support)
    return Project.objects.get(pk=cast.support.pk)


def kept(
    project: Project, asked: str, answered: str | None = "Hello", *, ago_s: int = 0, **told: Any
) -> Call:
    call = a_call(project, started_at=timezone.now() - timedelta(seconds=ago_s))
    keep_texts(call, asked, answered, **told)
    return call


def test_words_are_found_in_questions_and_answers_newest_first(support):
    old = kept(support, "the  Invoice\nNUMBER is missing", ago_s=60)
    new = kept(support, "hello", "Your invoice number is 7.", ago_s=10)
    kept(support, "nothing of the kind", ago_s=5)

    found = search_texts(COMMAND, project=support, words=" invoice   number ")

    assert [hit.call_id for hit in found.hits] == [new.pk, old.pk]
    assert [(hit.part, hit.answered, hit.found) for hit in found.hits] == [
        ("text", True, "invoice number"),
        ("user", False, "Invoice\nNUMBER"),
    ]
    assert (found.looked_at, found.reached, found.next_cursor) == (3, old.started_at, None)


def test_a_search_is_on_record_without_its_words(support):
    call = kept(support, "my number is 555-1234")
    search_texts(COMMAND, project=support, words="555-1234")
    event = Event.objects.order_by("-sequence")[0]
    assert (event.action, event.project_id) == ("usage.texts_searched", support.pk)
    assert event.after == {"words": digest("555-1234"), "looked_at": 1, "shown": [str(call.pk)]}
    assert "555-1234" not in str(event.__dict__)


def test_one_search_goes_on_where_the_one_before_it_stopped(support, monkeypatch):
    monkeypatch.setattr(text_search, "MOST_LOOKED_AT", 3)
    monkeypatch.setattr(text_search, "_BATCH", 2)
    at = timezone.now() - timedelta(seconds=30)
    # Two in each moment, so that a page ends between two of the same one.
    calls = [a_call(support, started_at=at - timedelta(seconds=n // 2)) for n in range(8)]
    for number, call in enumerate(calls):
        keep_texts(call, f"number {number}")
    seen, cursor, pages = [], "", 0
    while True:
        found = search_texts(COMMAND, project=support, words="number", cursor=cursor)
        seen += [hit.call_id for hit in found.hits]
        pages += 1
        if found.next_cursor is None:
            break
        cursor = found.next_cursor
    assert sorted(seen) == sorted(call.pk for call in calls) and len(seen) == 8 and pages == 3


def test_a_search_without_time_left_says_how_far_it_got(support):
    for ago in range(4):
        kept(support, "hello", ago_s=ago)
    found = search_texts(COMMAND, project=support, words="hello", most_s=0)
    assert found.looked_at == 1 and found.next_cursor is not None


def test_what_is_not_for_people_is_not_looked_through(support, cast):
    other = kept(cast.search, "secret word")
    open_project(cast.search)
    closed, late = kept(support, "secret word"), kept(support, "secret word", ago_s=8 * 86400)
    KeptText.objects.filter(pk=closed.pk).update(readable=False)
    found = search_texts(COMMAND, project=support, words="secret word")
    assert (found.hits, found.looked_at) == ([], 0) and other and late
    Project.objects.filter(pk=support.pk).update(keep_texts_readable=False)
    with pytest.raises(NotFound):
        search_texts(COMMAND, project=Project.objects.get(pk=support.pk), words="secret word")


@pytest.mark.parametrize("words", ["", " ", "x", "y" * 201])
def test_words_that_are_none_are_refused(support, words):
    with pytest.raises(InvalidRequest, match="words"):
        search_texts(COMMAND, project=support, words=words)


@pytest.mark.parametrize(
    "cursor", ["x", "2026-01-01|y", "2026-01-01T00:00:00|01a1fce7-74a2-73ee-a145-f499cb5a79fb"]
)
def test_a_place_that_no_search_gave_is_refused(support, cursor):
    with pytest.raises(InvalidRequest, match="after"):
        search_texts(COMMAND, project=support, words="hello", cursor=cursor)


def test_words_are_no_pattern(support):
    kept(support, "costs 3.50 (net)")
    assert not search_texts(COMMAND, project=support, words="3x50").hits
    assert search_texts(COMMAND, project=support, words="3.50 (net").hits


def test_the_page_marks_what_it_found_and_escapes_it(support, cast):
    call = kept(support, "see <b>the invoice</b> now")
    client = Client()
    client.force_login(cast.bob)
    page = client.post("/calls/search/", {"words": "THE invoice", "project": "support", "reach": "7"})
    text = page.content.decode()
    assert page.status_code == 200 and f"/calls/{call.pk}/" in text
    assert "see &lt;b&gt;<mark>the invoice</mark>&lt;/b&gt; now" in text and "1 call says so" in text
    refused = client.post("/calls/search/", {"words": "invoice", "project": "search", "reach": ""})
    assert refused.status_code == 400 and "project: choose one of the list" in refused.content.decode()
    assert client.get("/calls/").content.decode().count("/calls/search/") == 1
