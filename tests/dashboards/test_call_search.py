"""Calls are found by any id that a person may hold in hand, however long ago they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.test import Client

from llmops.access.models import Membership
from llmops.usage.selectors.calls import CallFilters, filtered_calls
from tests.dashboards import seed
from tests.dashboards.conftest import signed_in
from tests.dashboards.reading import listed

pytestmark = pytest.mark.django_db


def test_by_request_id_and_by_the_providers(alice: Client, stage: SimpleNamespace) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=40)
    ours, theirs, other = seed.store(
        [
            seed.make_call(stage, long_ago, request_id="req_mine", provider_request_id="req_up_1"),
            seed.make_call(stage, long_ago, request_id="req_else", provider_request_id="req_mine"),
            seed.make_call(stage, long_ago, request_id="req_other", provider_request_id=""),
        ]
    )
    assert listed(alice, "/calls/?q=req_up_1") == [str(ours.pk)]
    assert set(listed(alice, "/calls/?q=req_mine")) == {str(ours.pk), str(theirs.pk)}
    assert listed(alice, "/calls/?q=req_other&route=none") == []
    assert alice.get(f"/calls/?q={other.pk}")["Location"] == f"/calls/{other.pk}/"
    Membership.objects.create(user=stage.charlie, project=stage.search, role="operator")
    assert listed(signed_in(stage.charlie), "/calls/?q=req_up_1") == []


def test_both_ids_are_looked_up_in_their_index(stage: SimpleNamespace) -> None:
    seed.store([seed.make_call(stage, datetime.now(UTC)) for _ in range(50)])
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off")
    plan = filtered_calls(CallFilters(any_id="req_x")).explain()
    assert "request_id" in plan
    assert "provider_request" in plan
    assert "SCAN usage_call\n" not in plan
