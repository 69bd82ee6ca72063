"""Where little was spent or nothing, the page says which of the two, and what to do."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import time_machine
from django.test import Client

from tests.dashboards import seed
from tests.dashboards.reading import text_of
from tests.dashboards.spend_world import NOW

pytestmark = pytest.mark.django_db


def test_calls_that_name_nobody_are_not_nothing_spent(
    stage: SimpleNamespace, alice: Client, tmp_path: Path
) -> None:
    with time_machine.travel(NOW, tick=False):
        seed.store(seed.make_call(stage, NOW - timedelta(days=2), tags=[], user_digest="") for _ in range(2))
        for by, words in (
            ("tag", "No call carried a tag in November so far: $"),
            ("user", "No call named an end user in November so far: $"),
        ):
            answer = alice.get(f"/spend/?by={by}")
            assert answer.context["view"].rows == []
            assert words in text_of(answer) and "Nothing was spent" not in text_of(answer)
        [row] = alice.get("/spend/?by=feature").context["view"].rows
        assert row.calls == "2"


def test_an_empty_installation_says_what_to_do(stage: SimpleNamespace, alice: Client) -> None:
    assert "Nothing has been spent yet" in text_of(alice.get("/spend/"))
