"""Datasets over the API: made, filled and read as their pages do it, by people and by keys of the right scopes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from llmops.evals.models import Case, Dataset
from tests.cast import bearer, issue, no_event, one_event
from tests.console.world import a_call
from tests.evals.test_datasets import dataset, kept  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
BASE = "/api/v1/datasets/"


@pytest.fixture
def client(cast: Any) -> Client:
    return bearer(issue(cast.support, "configure", "read", "texts").secret)


def post(client: Client, address: str, **body: Any) -> Any:
    return client.post(address, body, content_type="application/json")


def test_a_dataset_is_made_once_and_found(client: Client, cast: Any) -> None:
    with one_event("dataset.created"):
        made = post(client, BASE, project="support", name="Refunds", description="What they ask")
    assert made.status_code == 201 and made.json()["cases"] == 0
    with no_event():
        again = post(client, BASE, project="support", name="Refunds")
        foreign = post(client, BASE, project="search", name="Refunds")
        nameless = post(client, BASE, project="support", name=" ")
    assert [again.status_code, foreign.status_code, nameless.status_code] == [409, 400, 400]
    assert again.json()["error"]["param"] == "name" and foreign.json()["error"]["param"] == "project"
    listed = client.get(f"{BASE}?name=Refunds").json()["results"]
    assert listed == [client.get(f"{BASE}{made.json()['id']}/").json()]
    assert listed[0]["made_by"] and listed[0]["description"] == "What they ask"


def test_a_call_becomes_a_case_and_is_read_on_the_record(
    client: Client,
    dataset: Dataset,  # noqa: F811
    cast: Any,
) -> None:
    call, address = kept(cast.support), f"{BASE}{dataset.pk}/"
    with one_event("dataset.case_added"):
        added = post(client, f"{address}cases/", call=str(call.pk), expected=" Hello\n", note="short")
    assert added.status_code == 201 and added.json()["case"] == 1 and added.json()["has_expected"]
    with no_event():
        twice = post(client, f"{address}cases/", call=str(call.pk))
        unkept = post(
            client, f"{address}cases/", call=str(a_call(cast.support, endpoint="chat.completions").pk)
        )
        foreign = post(client, f"{address}cases/", call=str(kept(cast.search).pk))
    assert [twice.status_code, unkept.status_code, foreign.status_code] == [409, 404, 400]
    page = client.get(f"{address}cases/").json()["results"]
    assert [one["source_call"] for one in page] == [str(call.pk)]
    assert "Secretly" not in json.dumps(page) and "Hello" not in json.dumps(page)
    with one_event("dataset.exported"):
        file = client.post(f"{address}export/")
        lines = [json.loads(line) for line in b"".join(file.streaming_content).splitlines()]
    assert file["content-type"] == "application/x-ndjson"
    assert [(one["case"], one["expected"], one["output"]) for one in lines] == [
        (1, "Hello", [["text", "Hello you"]])
    ]


def test_texts_take_their_own_scope(dataset: Dataset, cast: Any) -> None:  # noqa: F811
    call = kept(cast.support)
    without = bearer(issue(cast.support, "configure", "read").secret)
    stranger = bearer(issue(cast.search, "configure", "read", "texts").secret)
    with no_event():
        assert post(without, f"{BASE}{dataset.pk}/cases/", call=str(call.pk)).status_code == 403
        assert without.post(f"{BASE}{dataset.pk}/export/").status_code == 403
        assert stranger.get(f"{BASE}{dataset.pk}/").status_code == 404
        assert post(stranger, f"{BASE}{dataset.pk}/cases/", call=str(call.pk)).status_code == 404
        assert stranger.post(f"{BASE}{dataset.pk}/export/").status_code == 404
    assert without.get(f"{BASE}{dataset.pk}/cases/").status_code == 200
    assert not Case.objects.exists()
