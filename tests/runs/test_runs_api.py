"""``/api/v1/runs`` and ``/api/v1/summarize``: what a service sends and gets, with no SDK."""

from __future__ import annotations

import json

import pytest

from llmops.runs import services
from llmops.runs.models import Run
from llmops.tools import services as tools
from tests.cast import bearer, issue, no_event, signed_in
from tests.runs.conftest import call, plays, says
from tests.runs.making import actions
from tests.tools.making import decide

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
ASK = {"messages": [{"role": "user", "content": "Refund Ada."}], "model": "chat"}


@pytest.fixture
def client(lab):
    return bearer(issue(lab.support, "runs", name="desk").secret)


def post(client, body, path="/api/v1/runs/", **headers):
    return client.post(path, body, content_type="application/json", headers=headers)


def wrong(answer):
    error = answer.json()["error"]
    return answer.status_code, error["param"]


def test_a_service_asks_and_gets_its_answer(lab, plane, client):
    answer = post(client, ASK)
    told = answer.json()
    assert (answer.status_code, told["state"], told["answer"], told["turns"]) == (
        200,
        "succeeded",
        "Hello",
        1,
    )
    assert told["project"] == "support" and told["error"] is None and told["waits_for"] == []
    again = client.get(answer["Location"]).json()
    assert again == told
    (line,) = client.get("/api/v1/runs/?state=succeeded").json()["results"]
    assert line["id"] == told["id"] and "answer" not in line


def test_what_waits_for_a_person_is_told_at_once_and_waited_for(lab, plane, client):
    plane.script = plays([call("refund", {"amount": 1200, "customer": "Ada"})], "Refunded.")
    answer = post(client, {**ASK, "tools": ["refund"]})
    told = answer.json()
    assert (answer.status_code, told["state"]) == (202, "parked")
    (waits,) = told["waits_for"]
    assert waits["risk"] == "irreversible" and waits["says"] == "Refund 1200 USD to Ada"
    (action,) = actions(Run.objects.get(pk=told["id"]))
    for who in (lab.rita, lab.alice):
        decide(who, action)
    tools.execute(action.pk)
    services.advance(told["id"])
    assert client.get(f"{answer['Location']}?wait=5").json()["answer"] == "Refunded."


def test_queued_says_where_to_look_and_the_same_key_is_the_same_run(lab, plane, client):
    first = post(client, {**ASK, "mode": "queued"}, **{"Idempotency-Key": "order-7"})
    assert first.status_code == 202 and first.json()["state"] == "queued" and not plane.paid
    with no_event():
        second = post(client, {**ASK, "mode": "queued"}, **{"Idempotency-Key": "order-7"})
    assert second.json()["id"] == first.json()["id"] and second["Location"] == first["Location"]
    other = post(client, {**ASK, "mode": "queued", "model": "sim-small"}, **{"Idempotency-Key": "order-7"})
    assert other.status_code in (403, 409)
    other = post(client, {**ASK, "mode": "queued", "user": "u"}, **{"Idempotency-Key": "order-7"})
    assert wrong(other) == (409, "Idempotency-Key")


BAD = [
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "x"}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
    ({**ASK, "bounds": {"turns": 0}}, "bounds.turns"),
    ({**ASK, "bounds": {"dollars": 1}}, "bounds.dollars"),
    ({**ASK, "mode": "later"}, "mode"),
    ({**ASK, "nonsense": 1}, "nonsense"),
    ({**ASK, "output": {"type": "array"}}, "output"),
    ({**ASK, "output": {"type": "object", "properties": 5}}, "output"),
    ({**ASK, "tools": ["refund", "refund"]}, "tools"),
    ({**ASK, "webhook": {"url": "http://127.0.0.1/x"}}, "webhook.url"),
    ({**ASK, "webhook": {"url": "https://169.254.169.254/x"}}, "webhook.url"),
    ({**ASK, "webhook": {"url": "https://example.com/x", "secret": "short"}}, "webhook.secret"),
    ({**ASK, "on_behalf_of": "nobody\nhere"}, "on_behalf_of"),
    ({**ASK, "feature": "a\nb"}, "feature"),
    ({**ASK, "project": "search"}, "project"),
    ({"prompt": {"id": "hello", "variables": {}}}, "prompt.variables.name"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
def test_what_is_wrong_is_named(lab, plane, client, body, param):
    with no_event():
        assert wrong(post(client, body)) == (400, param)


def test_nobody_is_told_whether_there_is_an_account_of_a_name(lab, plane, client):
    told = []
    for name in ("rita", "nobody-here"):
        answer = post(client, {**ASK, "mode": "queued", "on_behalf_of": name})
        told.append((answer.status_code, sorted(answer.json()), answer.json()["error"]))
        assert Run.objects.get(pk=answer.json()["id"]).behalf_of == name
    assert told[0] == told[1] and told[0][0] == 202


def test_what_is_not_there_is_named(lab, plane, client):
    with no_event():
        assert wrong(post(client, {**ASK, "tools": ["refund", "nothing"]})) == (404, "tools[1]")
        assert wrong(post(client, {**ASK, "model": "nothing"})) == (404, "model")
        assert wrong(post(client, {"prompt": {"id": "ranking"}})) == (404, "prompt.id")
        assert wrong(post(client, {"prompt": {"id": "hello", "version": "9"}}))[1] == "prompt.version"
    narrow = bearer(issue(lab.support, "runs", name="narrow", allowed_routes=["other"]).secret)
    with no_event():
        assert wrong(post(narrow, ASK)) == (403, "model")
        assert wrong(post(narrow, {**ASK, "model": lab.model.slug})) == (403, "model")
    assert post(bearer(issue(lab.support, "inference").secret), ASK).status_code == 403


def test_nobody_of_another_project_finds_it(lab, plane, client):
    where = post(client, {**ASK, "mode": "queued"})["Location"]
    stranger = bearer(issue(lab.search, "runs", "read").secret)
    for path in (where, f"{where}events/"):
        assert stranger.get(path).status_code == 404
    assert post(stranger, {}, f"{where}cancel/").status_code == 404
    assert stranger.get("/api/v1/runs/").json()["results"] == []
    assert signed_in(lab.charlie).get(where).status_code == 404


def test_it_is_cancelled_once(lab, plane, client):
    where = post(client, {**ASK, "mode": "queued"})["Location"]
    assert post(client, {"reason": "enough"}, f"{where}cancel/").json()["state"] == "cancelled"
    assert post(client, {}, f"{where}cancel/").status_code == 409


def test_a_summary_is_points_and_the_call_that_made_them(lab, plane, client):
    plane.script = says(json.dumps({"points": ["One.", "Two.", "Three."]}))
    answer = post(client, {"text": "A long text.", "points": 2, "model": "chat"}, "/api/v1/summarize/")
    told = answer.json()
    assert (answer.status_code, told["points"]) == (200, ["One.", "Two."])
    assert told["request_id"] and Run.objects.get(pk=told["run"]).state == "succeeded"
    assert plane.paid[0]["messages"][1] == {"role": "user", "content": "A long text."}
    plane.script = says("no JSON")
    answer = post(client, {"text": "Other.", "model": "chat"}, "/api/v1/summarize/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "output_invalid")
    assert wrong(post(client, {"model": "chat"}, "/api/v1/summarize/")) == (400, "text")
    assert wrong(post(client, {"text": "x"}, "/api/v1/summarize/")) == (400, "model")


def test_a_key_for_actions_alone_starts_nothing(lab, plane):
    client = bearer(issue(lab.support, "actions").secret)
    with no_event():
        assert post(client, ASK).status_code == 403
