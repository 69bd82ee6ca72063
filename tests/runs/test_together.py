"""What happens in several threads at once: a run that is followed while it is worked on, calls of tools beside each other, and a
run that is cancelled under its worker."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from llmops.access.services import revoke_service_key
from llmops.core.actors import Actor
from llmops.runs import services
from llmops.runs.api import events
from llmops.runs.models import Run
from llmops.runs.services import leasing, tooling
from tests.cast import COMMAND, bearer, issue
from tests.runs.conftest import call, plays, says
from tests.runs.making import begun, done, steps, text_of
from tests.runs.test_runs_api import ASK, post, wrong
from tests.runs.test_said import read
from tests.tools.making import DONE

pytestmark = pytest.mark.django_db(transaction=True)


def heard(answer):
    """The events of a stream, as (id, kind, data)."""

    async def read():
        return b"".join([piece async for piece in answer.streaming_content])

    found = []
    for block in asyncio.run(read()).decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            found.append((lines.get("id"), lines["event"], json.loads(lines["data"])))
    return found


def test_its_events_are_told_from_where_one_left_off(open_lab, plane):
    client = bearer(issue(open_lab.support, "runs", name="desk").secret)
    plane.script = plays([call("look", {"name": "Ada"})], "Good.")
    answer = post(client, {**ASK, "tools": ["look"], "mode": "stream"}, accept="text/event-stream")
    # Whether the words of a turn are heard before its step depends on when one looks; the steps do not.
    events = [one for one in heard(answer) if one[1] != "delta"]
    assert [kind for _, kind, _ in events] == ["turn", "call", "result", "turn", "end"]
    assert [mark for mark, _, _ in events] == ["1", "2", "3", "4", None]
    assert events[-1][2]["answer"] == "Good." and events[1][2]["tool"] == "look"
    where = answer["Location"]
    rest = heard(client.get(f"{where}events/", headers={"Last-Event-ID": "3", "accept": "text/event-stream"}))
    assert [kind for _, kind, _ in rest] == ["turn", "end"]
    bad = client.get(f"{where}events/", headers={"Last-Event-ID": "x"})
    assert wrong(bad) == (400, "Last-Event-ID")


def test_calls_run_beside_each_other_and_one_that_is_slow_holds_up_none(open_lab, plane, monkeypatch):
    """Each waits for the other: one after the other they would never end."""
    both = threading.Barrier(2, timeout=60)
    monkeypatch.setattr(tooling, "AT_ONCE", 8)
    monkeypatch.setattr(
        "tests.runs.conftest.look", lambda arguments, job: (both.wait(), {"n": arguments["name"]})[1]
    )
    plane.script = plays([call("look", {"name": "A"}, "a"), call("look", {"name": "B"}, "b")], "Done.")
    run = done(open_lab, tools=["look"])
    assert (run.state, text_of(run)) == ("succeeded", "Done.")
    assert [json.loads(one["content"])["n"] for one in plane.paid[1]["messages"][2:]] == ["A", "B"]


def test_it_is_cancelled_while_a_model_answers(open_lab, plane):
    asked, answer = threading.Event(), threading.Event()
    plane.script = lambda body, n: (asked.set(), answer.wait(60), (200, {"choices": []}))[2]
    run = begun(open_lab)
    worker = threading.Thread(target=services.advance, args=(run.pk,))
    worker.start()
    assert asked.wait(60)
    services.cancel_run(open_lab.agent, run=Run.objects.get(pk=run.pk))
    worker.join(60)
    answer.set()
    run.refresh_from_db()
    assert run.state == "cancelled" and steps(run) == ["note cancelled"]


def test_a_worker_that_was_suspended_and_followed_writes_nothing(open_lab, plane, settings):
    settings.RUN_LEASE_SECONDS = 0.0
    run = begun(open_lab)
    suspended = services.take(run.pk)
    assert suspended is not None
    assert services.advance(run.pk) == "succeeded"
    for change in ({"turns": 9}, {"state": Run.FAILED}):
        with pytest.raises(leasing.LostLease), leasing.fenced(suspended, **change) as written:
            written.append(leasing.note("later", "I am late."))
    run.refresh_from_db()
    assert (run.state, run.turns, len(plane.paid)) == ("succeeded", 1, 1)
    assert "I am late." not in str(steps(run)) and DONE == []


def test_a_run_that_goes_on_is_taken_by_nobody_else(open_lab, plane):
    run = begun(open_lab)
    held = services.take(run.pk)
    assert held is not None and services.take(run.pk) is None
    assert services.advance(run.pk) == "running" and plane.paid == []


def test_words_come_before_the_step_that_has_them_all_and_resuming_tells_steps_alone(open_lab, plane):
    """The stand-in goes on with the next word when the one before was told."""
    heard, words = threading.Semaphore(0), "One two three four"
    plane.script = says(words)
    plane.between = lambda: heard.acquire(timeout=60)
    run = begun(open_lab, mode="stream")
    reader = events.Reader(open_lab.agent, open_lab.support.pk)

    async def follow() -> list:
        working = asyncio.ensure_future(sync_to_async(services.advance, thread_sensitive=False)(run.pk))
        found = []
        # The role, and what comes after the words.
        heard.release()
        async for event in events.events(run.pk, 0, reader):
            if event.startswith(b":"):
                continue
            found.append(read(event))
            if found[-1][0] == "delta":
                heard.release(4 if found[-1][2]["text"].endswith("four") else 1)
        assert await working == "succeeded"
        return found

    found = asyncio.run(follow())
    deltas = [data for kind, _, data in found if kind == "delta"]
    assert "".join(one["text"] for one in deltas) == words and len(deltas) == 4
    assert [one["at"] for one in deltas] == [0, 4, 8, 14]
    assert [(kind, mark) for kind, mark, _ in found if kind != "delta"] == [("turn", "1"), ("end", "")]
    assert all(mark == "" for kind, mark, _ in found if kind == "delta")
    assert found[-2][2]["content"] == words

    async def again(after: int) -> list[str]:
        return [
            read(one)[0] async for one in events.events(run.pk, after, reader) if not one.startswith(b":")
        ]

    assert asyncio.run(again(0)) == ["turn", "end"] and asyncio.run(again(1)) == ["end"]


def test_who_loses_the_key_hears_no_more(open_lab, plane, monkeypatch):
    key = issue(open_lab.support, "runs", name="desk")
    run = begun(open_lab, mode="stream")
    reader = events.Reader(Actor("service_key", str(key.key.pk), "desk"), open_lab.support.pk)
    monkeypatch.setattr(events, "_MAY_EVERY_S", 0.0)
    heard: list[bytes] = []

    async def follow() -> None:
        async for one in events.events(run.pk, 0, reader):
            heard.append(one)
            if len(heard) == 1:
                await asyncio.to_thread(lost)

    def lost() -> None:
        revoke_service_key(COMMAND, key=key.key)
        connections.close_all()

    asyncio.run(asyncio.wait_for(follow(), 60))
    assert heard == [b": here\n\n"] and not events._streams
