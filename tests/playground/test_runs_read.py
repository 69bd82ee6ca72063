"""Answers are read once, written down as they come, and told from where a page left off, whoever asks and by whichever process."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test import AsyncClient, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from llmops.core.errors import InvalidRequest
from llmops.playground import desk, follow, reading, services
from llmops.playground.models import Run
from tests.cast import acting, signed_in
from tests.console.world import a_call
from tests.playground.conftest import CALL, event, head, refuses, says, sent, some_text, talks_on

pytestmark = pytest.mark.django_db(transaction=True)


def eventually(true, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def lab(open_lab: SimpleNamespace, plane: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(desk, "LINGER_S", 0.05)
    yield open_lab
    # Nobody reads on into the next test's database.
    for one in list(desk.DESK._readings.values()):
        one.stop("person")
    eventually(lambda: desk.DESK._thread is None)


def start(lab, **changes):
    return services.start_run(
        acting(lab.bob), user=lab.bob, project=lab.support, column=some_text(lab, **changes)
    )


def state_of(run):
    return Run.objects.values_list("state", flat=True).get(pk=run.pk)


def follower(lab, run, told=0):
    request = RequestFactory().get("/playground/events/")
    request.user = lab.bob
    return follow.Follower(request, [run], [told], [str(run.pk)])


def told(chunks):
    found = []
    for chunk in chunks:
        for line in chunk.decode().splitlines():
            if line.startswith("data: "):
                found.append(json.loads(line[6:]))
    return found


def text_of(events):
    return "".join(one["v"] for told in events for one in told.get("events", ()) if one["t"] == "text")


def test_an_answer_is_read_once_and_written_down(lab, plane):
    run = start(lab)
    eventually(lambda: state_of(run) == Run.DONE)
    assert len(plane.asked) == 1
    headers, body = plane.asked[0]
    assert headers["x-llmops-feature"] == "playground"
    assert headers["x-llmops-user"] == f"playground:{lab.bob.pk}"
    assert headers["authorization"].startswith("Bearer llmops_")
    assert body["messages"] == [{"role": "user", "content": "hi"}] and body["stream"] is True
    run.refresh_from_db()
    assert str(run.call_id) == CALL and run.ended_at is not None
    page = follower(lab, run)
    events = told(page.look())
    assert text_of(events) == "Hello there"
    kinds = [one["t"] for told_ in events for one in told_.get("events", ())]
    assert kinds[:2] == ["head", "first"] and kinds[-2:] == ["end", "state"]
    # The call is not in the ledger yet.
    assert not page.done[0]
    a_call(lab.support, pk=CALL, cost_nano=1_500_000)
    figures = told(page.look())[-1]
    assert figures["end"] and figures["figures"]["cost"] == "$0.001500" and page.done == [True]
    assert figures["figures"]["link"] == f"/calls/{CALL}/"


def test_a_page_that_comes_back_is_told_what_it_missed_and_nothing_twice(lab, plane):
    gate = threading.Event()
    plane.script = says("one ", "two ", "three", gate=gate)
    run = start(lab)
    first = follower(lab, run)
    heard = ""
    deadline = time.monotonic() + 60
    while "two" not in heard:
        assert time.monotonic() < deadline
        heard += text_of(told(first.look()))
        time.sleep(0.02)
    mark = first.told[0]
    # The page is gone; the answer goes on and is read on.
    gate.set()
    eventually(lambda: state_of(run) == Run.DONE)
    again = follower(lab, run, told=mark)
    assert heard + text_of(told(again.look())) == "one two three"
    assert text_of(told(follower(lab, run).look())) == "one two three"
    assert len(plane.asked) == 1


def test_the_stream_over_the_web_goes_on_after_the_last_event(lab, plane):
    run = start(lab)
    eventually(lambda: state_of(run) == Run.DONE)
    a_call(lab.support, pk=CALL)
    client = AsyncClient()
    asyncio.run(client.aforce_login(lab.bob))

    async def stream(**headers: str) -> bytes:
        answer = await client.get(f"/playground/events/?run={run.pk}", headers=headers)
        assert answer["content-type"].startswith("text/event-stream")
        return b"".join([part async for part in answer.streaming_content])

    whole = asyncio.run(stream())
    assert text_of(told([whole])) == "Hello there" and b"event: over" in whole
    last = max(int(line[4:]) for line in whole.decode().splitlines() if line.startswith("id: "))
    rest = told([asyncio.run(stream(**{"last-event-id": str(last)}))])
    assert text_of(rest) == ""
    assert any(one.get("end") for one in rest)


@pytest.mark.parametrize("mark", ["1.2", "x", "-1", "1" * 12])
def test_marks_of_other_streams_are_refused(mark):
    with pytest.raises(InvalidRequest):
        follow.told_so_far(mark, 1)


def test_a_run_that_is_forgotten_does_not_take_the_others_along(lab, plane):
    run = start(lab)
    eventually(lambda: state_of(run) == Run.DONE)
    a_call(lab.support, pk=CALL)
    client = AsyncClient()
    asyncio.run(client.aforce_login(lab.bob))

    async def stream(*names: str) -> tuple[int, bytes]:
        answer = await client.get("/playground/events/?" + "&".join(f"run={name}" for name in names))
        if not answer.streaming:
            return answer.status_code, answer.content
        return answer.status_code, b"".join([part async for part in answer.streaming_content])

    _, whole = asyncio.run(stream("00000000-0000-0000-0000-000000000000", str(run.pk)))
    events = told([whole])
    assert text_of(events) == "Hello there"
    assert [one["run"][:2] for one in events if {"t": "gone"} in one.get("events", [])] == ["00"]
    assert asyncio.run(stream("nothing"))[0] == 404


def test_one_person_is_told_so_many_streams_and_no_more(lab, plane, monkeypatch):
    monkeypatch.setattr(follow, "MOST_STREAMS", 2)
    monkeypatch.setattr(follow, "MOST_SECONDS", 0.0)
    run = start(lab)
    eventually(lambda: state_of(run) == Run.DONE)
    client = AsyncClient()
    asyncio.run(client.aforce_login(lab.bob))

    async def streams() -> list[int]:
        address, open_ones, statuses = f"/playground/events/?run={run.pk}", [], []
        for _ in range(3):
            answer = await client.get(address)
            statuses.append(answer.status_code)
            if answer.streaming:
                open_ones.append(answer.streaming_content.__aiter__())
                await anext(open_ones[-1])
        for one in open_ones:
            assert [part async for part in one] == []
        # Those that ended make room.
        statuses.append((await client.get(address)).status_code)
        return statuses

    assert asyncio.run(streams()) == [200, 200, 429, 200]
    assert follow.streams_of(lab.bob.pk) == 0


def test_calls_that_are_named_without_end_are_an_answer_that_is_too_large(lab, plane, monkeypatch):
    monkeypatch.setattr(reading, "MOST_CHARACTERS", 2_000)

    def names_on(handler):
        head(handler)
        for _ in range(600):
            event(
                handler,
                {"choices": [{"index": 0, "delta": {"tool_calls": [{"function": {"name": "x" * 50}}]}}]},
            )
            time.sleep(0.02)

    plane.script = names_on
    run = start(lab)
    eventually(lambda: state_of(run) == Run.CANCELLED)
    assert plane.hung_up.wait(10)


def test_cancelling_hangs_up(lab, plane):
    plane.script = talks_on
    run = start(lab)
    eventually(lambda: state_of(run) == Run.RUNNING)
    assert sent(signed_in(lab.bob), "cancel", run=str(run.pk)).status_code == 202
    assert plane.hung_up.wait(10)
    eventually(lambda: state_of(run) == Run.CANCELLED)
    events = told(follower(lab, run).look())
    assert "on and" in text_of(events)
    assert [one["why"] for t in events for one in t.get("events", ()) if one["t"] == "cancelled"] == [
        "person"
    ]


def test_another_process_cancels_through_the_database(lab, plane):
    plane.script = talks_on
    run = start(lab)
    eventually(lambda: state_of(run) == Run.RUNNING)
    Run.objects.filter(pk=run.pk).update(cancel_asked_at=timezone.now())
    assert plane.hung_up.wait(10)
    eventually(lambda: state_of(run) == Run.CANCELLED)


def test_a_run_that_no_page_shows_is_stopped(lab, plane, settings):
    settings.PLAYGROUND_UNWATCHED_SECONDS = 30
    plane.script = talks_on
    run = start(lab)
    eventually(lambda: state_of(run) == Run.RUNNING)
    late = timezone.now() - timedelta(seconds=31)
    Run.objects.filter(pk=run.pk).update(watched_at=late)
    assert plane.hung_up.wait(10)
    eventually(lambda: state_of(run) == Run.CANCELLED)
    events = told(follower(lab, run).look())
    assert any(
        "no page had shown it" in one.get("message", "") for t in events for one in t.get("events", ())
    )


def test_looking_keeps_a_run_going(lab, plane):
    plane.script = talks_on
    run = start(lab)
    eventually(lambda: state_of(run) == Run.RUNNING)
    before = Run.objects.get(pk=run.pk).watched_at
    follower(lab, run).look()
    assert Run.objects.get(pk=run.pk).watched_at > before


def test_a_refusal_is_told_in_its_own_words_with_what_to_do(lab, plane):
    plane.script = refuses(429, "insufficient_quota", "The budget demo is used up.")
    run = start(lab)
    eventually(lambda: state_of(run) == Run.FAILED)
    events = [one for t in told(follower(lab, run).look()) for one in t.get("events", ())]
    (error,) = [one for one in events if one["t"] == "error"]
    assert error["message"] == "The budget demo is used up." and error["status"] == 429
    assert error["link"] == "/admin/budgets/budget/" and error["next"]
    assert len(plane.asked) == 1


def test_a_stream_that_breaks_is_no_answer(lab, plane):
    def breaks(handler):
        from tests.playground.conftest import event, head, piece

        head(handler)
        event(handler, piece("half of"))
        handler.connection.close()

    plane.script = breaks
    run = start(lab)
    eventually(lambda: state_of(run) == Run.FAILED)
    events = told(follower(lab, run).look())
    assert text_of(events) == "half of"
    assert any(one.get("code") == "gateway_cut" for t in events for one in t.get("events", ()))
    assert len(plane.asked) == 1


def test_a_data_plane_that_is_not_there_costs_nothing_and_is_said(lab, settings):
    settings.GATEWAY_URL = "http://127.0.0.1:9/v1"
    run = start(lab)
    eventually(lambda: state_of(run) == Run.FAILED)
    events = [one for t in told(follower(lab, run).look()) for one in t.get("events", ())]
    assert any(
        one.get("code") == "gateway_unreachable" and "CONSOLE_GATEWAY_URL" in one["message"] for one in events
    )


def test_a_key_that_is_new_is_presented_until_it_is_known(lab, plane):
    answers = [
        refuses(401, "invalid_api_key", "unknown"),
        refuses(401, "invalid_api_key", "unknown"),
        says("in"),
    ]
    plane.script = lambda handler: answers.pop(0)(handler)
    run = start(lab)
    eventually(lambda: state_of(run) == Run.DONE)
    assert len(plane.asked) == 3


def test_a_run_whose_process_died_is_lost_and_not_made_again(lab, plane):
    now = timezone.now()
    run = Run.objects.create(
        project=lab.support, user=lab.bob, model="chat", digest="0" * 64, started_at=now,
        beat_at=now - timedelta(seconds=60), watched_at=now, state=Run.RUNNING,
    )  # fmt: skip
    page = follower(lab, run)
    page.look()
    events = [one for t in told(page.look()) for one in t.get("events", ())]
    assert [one["t"] for one in events] == ["lost", "state"]
    assert state_of(run) == Run.LOST and plane.asked == []


def test_looking_again_at_a_run_that_is_heard_of_writes_nothing(lab, plane):
    now = timezone.now()
    run = Run.objects.create(
        project=lab.support, user=lab.bob, model="chat", digest="0" * 64, started_at=now, beat_at=now,
        watched_at=now, state=Run.RUNNING,
    )  # fmt: skip
    page = follower(lab, run)
    page.look()
    page.watched_at = float("inf")
    with CaptureQueriesContext(connection) as asked:
        page.look()
    assert [one["sql"] for one in asked if "UPDATE" in one["sql"]] == []
    Run.objects.filter(pk=run.pk).update(state=Run.LOST)


def test_a_run_that_was_given_up_is_read_no_further(lab, plane):
    plane.script = talks_on
    run = start(lab)
    eventually(lambda: state_of(run) == Run.RUNNING)
    Run.objects.filter(pk=run.pk).update(beat_at=timezone.now() - timedelta(seconds=60), state=Run.LOST)
    assert plane.hung_up.wait(10)
    assert state_of(run) == Run.LOST


def test_the_two_who_start_the_same_run_make_one_call(lab, plane):
    from tests.cast import in_threads

    column = some_text(lab)

    def go():
        return services.start_run(acting(lab.bob), user=lab.bob, project=lab.support, column=column).pk

    assert len(set(in_threads(go, go, go))) == 1
    eventually(lambda: plane.asked and state_of(Run.objects.get()) == Run.DONE)
    assert len(plane.asked) == 1
    connection.close()
