"""Replays over the API: asked for once, found, told from beginning to end, by keys of the right scopes and project alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.test import Client
from django.utils import timezone

from llmops.access.models import Project
from llmops.playground import services
from llmops.usage.models import Replay
from llmops.usage.selectors.replays import LATE
from tests.cast import bearer, issue, no_event, one_event, signed_in
from tests.console.world import a_call
from tests.playground.test_replays import booked, kept

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
BASE = "/api/v1/replays/"
NAMED = {"prompt": {"id": "hello", "version": 1, "variables": {"name": "Ada"}}}


@pytest.fixture
def client(lab: Any) -> Client:
    services.key_in_use(lab.support)
    return bearer(issue(lab.support, "read", "texts", "runs").secret)


def post(client: Client, **body: Any) -> Any:
    return client.post(BASE, body, content_type="application/json")


def refusal(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["param"]


def test_it_is_asked_once_found_and_told_to_its_end(client: Client, lab: Any) -> None:
    call, chosen = kept(lab), str(uuid4())
    with one_event("call.replayed") as seen:
        made = post(client, id=chosen, of_call=str(call.pk), model="sim-small")
    assert made.status_code == 202
    told = made.json()
    assert (told["id"], told["of_call"], told["model"]) == (chosen, str(call.pk), "sim-small")
    assert (told["state"], told["call"], told["prompt_version"]) == ("under_way", None, None)
    assert seen.event.project_id == lab.support.pk and told["made_by"] == seen.event.actor_name
    with no_event():
        assert post(client, id=chosen, of_call=str(call.pk), model="sim-small").json() == told
        other = post(client, id=chosen, of_call=str(kept(lab).pk), model="sim-small")
    assert refusal(other) == (409, "id")

    row = Replay.objects.get(pk=chosen)
    new = booked(row)
    told = client.get(f"{BASE}{chosen}/").json()
    assert (told["state"], told["call"]) == ("made", str(new.pk))
    later = post(client, of_call=str(call.pk), model="chat").json()
    assert [one["id"] for one in client.get(BASE).json()["results"]] == [later["id"], chosen]
    first = client.get(f"{BASE}?page_size=1").json()
    assert [one["id"] for one in client.get(first["next"]).json()["results"]] == [chosen]
    assert [one["id"] for one in client.get(f"{BASE}?model=sim-small").json()["results"]] == [chosen]
    assert len(client.get(f"{BASE}?of_call={call.pk}").json()["results"]) == 2
    assert client.get(f"{BASE}?of_call={uuid4()}").json()["results"] == []


@pytest.mark.parametrize("how", ["refused", "late"])
def test_one_whose_call_will_not_come_is_lost(client: Client, lab: Any, how: str) -> None:
    made = post(client, of_call=str(kept(lab).pk), model="sim-small").json()
    changed: dict[str, Any] = {"problem": "The data plane refused the playground's key."}
    if how == "late":
        changed = {"made_at": timezone.now() - LATE - timedelta(seconds=1)}
    Replay.objects.filter(pk=made["id"]).update(**changed)
    told = client.get(f"{BASE}{made['id']}/").json()
    assert (told["state"], told["problem"]) == ("lost", changed.get("problem", ""))


def test_wrong_input_is_named_and_nothing_is_asked(client: Client, lab: Any) -> None:
    call, named = str(kept(lab).pk), str(kept(lab, request=NAMED).pk)
    unkept = str(a_call(lab.support, endpoint="chat.completions").pk)
    good = {"of_call": call, "model": "sim-small"}
    wrong: list[tuple[dict[str, Any], int, str | None]] = [
        ({"model": "sim-small"}, 400, "of_call"),
        ({"of_call": call}, 400, "model"),
        ({**good, "of_call": "x"}, 400, "of_call"),
        ({**good, "of_call": str(uuid4())}, 400, "of_call"),
        ({**good, "of_call": unkept}, 404, None),
        ({**good, "model": "gpt-9"}, 400, "model"),
        ({**good, "model": "m" * 64}, 400, "model"),
        ({**good, "model": "a\x00b"}, 400, None),
        ({**good, "id": "1"}, 400, "id"),
        ({**good, "prompt_version": 0}, 400, "prompt_version"),
        ({**good, "prompt_version": "two"}, 400, "prompt_version"),
        ({**good, "of_call": named, "prompt_version": 10**20}, 400, "prompt_version"),
        ({**good, "of_call": named, "prompt_version": 2**40}, 400, "prompt_version"),
        ({**good, "temperature": 1}, 400, "temperature"),
    ]
    with no_event():
        for body, status, param in wrong:
            answer = post(client, **body)
            assert answer.status_code == status, (body, answer.content)
            assert param is None or answer.json()["error"]["param"] == param, (body, answer.content)
    assert not Replay.objects.exists()
    for address in (f"{BASE}x/", f"{BASE}{uuid4()}/"):
        assert client.get(address).status_code == 404


def test_another_project_sees_and_asks_nothing(client: Client, lab: Any) -> None:
    call = kept(lab)
    made = post(client, of_call=str(call.pk), model="sim-small").json()
    stranger = bearer(issue(lab.search, "read", "texts", "runs").secret)
    with no_event():
        assert refusal(post(stranger, of_call=str(call.pk), model="sim-small")) == (400, "of_call")
        # Nor is there a difference between a call of another's and none.
        theirs, none = (
            post(stranger, of_call=str(one), model="sim-small").json() for one in (call.pk, uuid4())
        )
        assert {**theirs["error"], "request_id": ""} == {**none["error"], "request_id": ""}
        taken = post(stranger, id=made["id"], of_call=str(kept(lab).pk), model="sim-small")
        assert refusal(taken) == (400, "of_call")
    assert stranger.get(f"{BASE}{made['id']}/").status_code == 404
    assert stranger.get(BASE).json()["results"] == []
    assert stranger.get(f"{BASE}?of_call={call.pk}").json()["results"] == []
    assert signed_in(lab.charlie).get(f"{BASE}{made['id']}/").status_code == 404


@pytest.mark.parametrize("scopes", [("read",), ("read", "texts"), ("read", "runs"), ("inference",)])
def test_each_scope_is_needed(lab: Any, scopes: tuple[str, ...]) -> None:
    call, key = kept(lab), bearer(issue(lab.support, *scopes).secret)
    with no_event():
        answer = post(key, of_call=str(call.pk), model="sim-small")
    assert answer.status_code == 403 and not Replay.objects.exists()


def test_nobody_asks_for_an_archived_project(client: Client, lab: Any) -> None:
    call = kept(lab)
    alice = signed_in(lab.alice)
    Project.objects.filter(pk=lab.support.pk).update(archived_at=timezone.now())
    with no_event():
        assert post(client, of_call=str(call.pk), model="sim-small").status_code == 401
        assert refusal(post(alice, of_call=str(call.pk), model="sim-small")) == (400, "of_call")
    assert not Replay.objects.exists()
