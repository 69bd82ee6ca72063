"""What calls said is read by those who may, where their project has it kept for people, and every reading is on the record."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from llmops.access.models import Project
from llmops.audit.models import Event
from llmops.core.errors import NotFound
from llmops.usage.ingest.loop import Ingester
from llmops.usage.journal import JournalWriter
from llmops.usage.models import Call, KeptAnswer, KeptText
from llmops.usage.records import ANSWER, TextKept
from llmops.usage.services import remove_kept_texts
from llmops.usage.texts import CLOSED, GONE, NONE_KEPT, NOT_THIS, read_texts, standing_of
from tests.cast import COMMAND, bearer, issue
from tests.console.world import a_call
from tests.usage.texts_kept import keep_texts, open_project

pytestmark = pytest.mark.django_db


@pytest.fixture
def call(cast: Any) -> Call:
    open_project(cast.support)
    made = a_call(cast.support, endpoint="chat.completions", route="chat")
    keep_texts(made)
    return made


def test_what_is_kept_is_read_on_the_record(call):
    found = read_texts(COMMAND, calls=[call], why="read")[call.pk]
    assert found.asked == [("user", "Say hello")] and found.answered == [("text", "Hello")]
    assert found.request == {"messages": [{"role": "user", "content": "Say hello"}]}
    event = Event.objects.order_by("-sequence")[0]
    assert (event.action, event.object_id, event.project_id) == (
        "usage.texts_read",
        str(call.pk),
        call.project_id,
    )
    assert event.after == {"for": "read", "calls": [str(call.pk)]}
    assert "hello" not in str(event.__dict__).lower()


def test_why_there_is_nothing_to_read(call, cast):
    assert standing_of(call).there
    assert standing_of(a_call(cast.support)).why == NOT_THIS
    later = timezone.now() + timedelta(days=8)
    assert standing_of(call, now=later).why == GONE
    # What was kept while nobody was to read it stays closed.
    KeptText.objects.update(readable=False)
    assert standing_of(call).why == NOT_THIS
    KeptText.objects.update(readable=True)
    Project.objects.filter(pk=cast.support.pk).update(keep_texts_readable=False)
    assert standing_of(call).why == CLOSED
    with pytest.raises(NotFound):
        read_texts(COMMAND, calls=[call], why="read")
    Project.objects.filter(pk=cast.support.pk).update(keep_texts_percent=0)
    assert standing_of(call).why == NONE_KEPT
    assert not Event.objects.filter(action="usage.texts_read").exists()


def test_a_text_of_another_call_does_not_open(call, cast):
    other = a_call(cast.support)
    row = KeptText.objects.get(pk=call.pk)
    KeptText.objects.create(
        call_id=other.pk,
        project_id=row.project_id,
        started_at=row.started_at,
        sealed=row.sealed,
        readable=True,
    )
    with pytest.raises(NotFound):
        read_texts(COMMAND, calls=[other], why="read")


def test_answers_go_with_their_texts(call, cast):
    assert remove_kept_texts(now=timezone.now() + timedelta(days=8)) == 2
    assert not KeptAnswer.objects.exists() and not KeptText.objects.exists()


@pytest.mark.any_engine
def test_the_api_is_for_those_who_may(call, cast):
    address = f"/api/v1/calls/{call.pk}/texts/"
    answer = bearer(issue(cast.support, "texts").secret).post(address)
    assert answer.status_code == 200 and answer.json()["answered"] == [["text", "Hello"]]
    assert bearer(issue(cast.support, "read").secret).post(address).status_code == 403
    assert bearer(issue(cast.search, "texts").secret).post(address).status_code == 404
    client = Client()
    for user, expected in ((cast.bob, 200), (cast.carla, 403), (cast.dan, 403)):
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        assert client.post(address).status_code == expected, user


@pytest.mark.django_db(transaction=True)
def test_the_journal_brings_answers_once(tmp_path: Path):
    call, project = uuid4(), uuid4()
    writer = JournalWriter(tmp_path)
    known = {"at": 1, "call": str(call), "project": str(project), "started": 1_795_000_000 * 10**9}
    said = TextKept(n=0, sealed="v1.k.y", readable=True, part=ANSWER, **known)
    for _ in range(2):
        writer.append(TextKept(n=0, sealed="v1.k.x", readable=True, **known))
        writer.append(said)
        # Of a part that a later version may keep.
        writer.append(TextKept(n=0, sealed="v1.k.z", part="sound", **known))
        Ingester(tmp_path).run_once()
    writer.close()
    [row] = KeptAnswer.objects.all()
    assert (row.call_id, row.project_id, row.sealed) == (call, project, "v1.k.y")
    [text] = KeptText.objects.all()
    assert text.readable and text.sealed == "v1.k.x"
