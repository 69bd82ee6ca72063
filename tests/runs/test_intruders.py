"""Whoever means no good and may start runs: nothing stands still, and nobody hears of a run that is not, or no more, theirs to see."""

from __future__ import annotations

import json

import pytest

from llmops.access.services import revoke_service_key
from llmops.core.actors import Actor
from llmops.core.errors import RateLimited
from llmops.runs.api import events, runs
from llmops.runs.models import Run
from llmops.runs.rules import output_of
from tests.cast import COMMAND, bearer, issue, no_event
from tests.runs.conftest import says
from tests.runs.making import done
from tests.runs.test_runs_api import ASK, post, wrong
from tests.tools.test_intruders import TREE, twice_over

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]


def reader(key) -> events.Reader:
    return events.Reader(Actor("service_key", str(key.pk), key.name), key.project_id)


def test_an_answer_that_takes_for_ever_to_check_is_not_checked(lab, plane):
    """Nothing interrupts whoever checks it: a worker that began would be gone, and with it all that it works on."""
    plane.script = says("{}")
    run = done(lab, output=twice_over(60))
    assert (run.state, run.error_code) == (Run.FAILED, "output_invalid") and "multiply" in run.error_message
    assert len(plane.paid) == 2
    whole = {"name": "a", "parts": [{"name": "b", "parts": []}] * 30}
    assert output_of(TREE, json.dumps(whole)) == (whole, "")


@pytest.mark.parametrize("member", ["output", "messages", "prompt"])
def test_what_is_nested_without_end_is_refused(lab, plane, member):
    client = bearer(issue(lab.support, "runs").secret)
    deep = "[" * 100_000 + "]" * 100_000
    values = {
        "output": f'{{"type": "object", "enum": {deep}}}',
        "messages": f'[{{"role": "user", "content": {deep}}}]',
        "prompt": f'{{"id": "hello", "variables": {{"name": {deep}}}}}',
    }
    with no_event():
        answer = post(client, f'{{"model": "chat", "{member}": {values[member]}}}')
    assert answer.status_code == 400, answer.content[:300]


def test_ids_of_events_open_no_other_run(lab, plane):
    """The number of a step is a place in the run whose address was asked for, whatever else it is a number of."""
    mine, theirs = issue(lab.support, "runs", name="mine"), issue(lab.search, "runs", name="theirs")
    run = done(lab)
    for mark in ("0", "1", "999999999", str(run.pk)):
        answer = bearer(theirs.secret).get(
            f"/api/v1/runs/{run.pk}/events/", headers={"Last-Event-ID": mark, "accept": "text/event-stream"}
        )
        assert answer.status_code == 404 and b"Hello" not in answer.content
    for mark in ("-1", "1e3", str(run.pk), "1" * 10, "²"):
        answer = bearer(mine.secret).get(f"/api/v1/runs/{run.pk}/events/", headers={"Last-Event-ID": mark.encode().decode("latin-1")})  # fmt: skip
        assert wrong(answer) == (400, "Last-Event-ID"), mark


def test_the_same_idempotency_key_elsewhere_is_another_run(lab, plane):
    keys = [bearer(issue(lab.support, "runs", name=name).secret) for name in ("one", "two")]
    made = [post(client, {**ASK, "mode": "queued"}, **{"Idempotency-Key": "t1"}).json()["id"] for client in keys]  # fmt: skip
    assert len(set(made)) == 2
    with no_event():
        for other in ({"on_behalf_of": "rita"}, {"bounds": {"turns": 2}}, {"tools": ["look"]}):
            again = post(keys[0], {**ASK, "mode": "queued", **other}, **{"Idempotency-Key": "t1"})
            assert wrong(again) == (409, "Idempotency-Key"), other


def test_who_loses_the_key_while_waiting_is_told_nothing(lab, plane, monkeypatch):
    key = issue(lab.support, "runs", name="desk")
    client = bearer(key.secret)
    where = post(client, {**ASK, "mode": "queued"})["Location"]
    monkeypatch.setattr(runs, "until_over", lambda *_, **__: revoke_service_key(COMMAND, key=key.key))
    answer = client.get(f"{where}?wait=25")
    assert answer.status_code == 403 and b"state" not in answer.content


def test_one_who_follows_a_great_many_leaves_room_for_others(lab, monkeypatch):
    one, other = (reader(issue(lab.support, "runs", name=name).key) for name in ("one", "other"))
    monkeypatch.setitem(events._streams, one.name, events.MOST_OF_ONE)
    with pytest.raises(RateLimited):
        events.take_place(one)
    events.take_place(other)
    monkeypatch.setitem(events._streams, "somebody", events.MOST_STREAMS)
    with pytest.raises(RateLimited):
        events.take_place(other)
