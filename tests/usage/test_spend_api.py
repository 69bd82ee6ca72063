"""``/api/v1/spend/``: the same figures as the calls, in pages, for those who may see them; and errors that name the parameter."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.test import Client

from llmops.core.money import format_usd
from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call
from tests.cast import bearer, issue, signed_in
from tests.kept import kept
from tests.usage.journals import Scribe

SPEND = "/api/v1/spend/"
DAY = datetime(2024, 5, 16, tzinfo=UTC)
RANGE = {"from": "2024-05-16", "to": "2024-05-18"}


@kept
def traffic(cast: SimpleNamespace) -> SimpleNamespace:
    keys = [issue(cast.support).key, issue(cast.search).key]
    with tempfile.TemporaryDirectory() as directory:
        projects = [cast.support.pk, cast.search.pk]
        scribe = Scribe.at(Path(directory), projects=projects, keys=[key.pk for key in keys])
        scribe.traffic(150, since=DAY.timestamp(), seconds=2 * 86_400)
        Ingester(Path(directory)).run_once()
        scribe.writer.close()
    return SimpleNamespace(keys=keys)


def asked(client: Client, **parameters: Any) -> dict[str, Any]:
    answer = client.get(SPEND, {**RANGE, **parameters})
    assert answer.status_code == 200, answer.json()
    return answer.json()  # type: ignore[no-any-return]


def test_groups_are_sums_of_calls(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    alice = signed_in(cast.alice)
    total = sum(Call.objects.values_list("cost_nano", flat=True))
    for group_by, column in (
        ("project", "project_id"), ("feature", "feature"), ("model", "model"), ("route", "route"), ("key", "key_id"),
        ("user", "user_digest"), ("endpoint", "endpoint"), ("day", "started_at"), ("tag", "tags"),
    ):  # fmt: skip
        expected: Counter[str] = Counter()
        for call in Call.objects.all():
            for value in set(call.tags) if group_by == "tag" else [getattr(call, column)]:
                if value or group_by not in ("user", "tag"):
                    expected[value.date().isoformat() if group_by == "day" else str(value)] += call.cost_nano
        found = asked(alice, group_by=group_by)
        seen: Counter[str] = Counter()
        for one in found["results"]:
            assert isinstance(one["cost_usd"], str)
            seen[one["value"]] += int(one["cost_usd"].replace(".", "").ljust(1)) * 10 ** (
                9 - len(one["cost_usd"].split(".")[1])
            )
        assert +seen == +expected, group_by
        assert found["total"]["cost_usd"] == format_usd(total)
        assert found["total"]["calls"] == 150
        if group_by not in ("user", "tag"):
            assert found["rest"]["cost_usd"] == "0.00"


def test_pages_give_each_group_once(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    alice = signed_in(cast.alice)
    whole = asked(alice, group_by="key")["results"]
    walked: list[Any] = []
    address = f"{SPEND}?from=2024-05-16&to=2024-05-18&group_by=key&page_size=1"
    while address:
        page = alice.get(address).json()
        walked += page["results"]
        address = page["next"]
    assert walked == whole and len(walked) == 2


def test_one_sees_what_one_may(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    for who in (signed_in(cast.carla), bearer(issue(cast.support, "read").secret)):
        found = asked(who)
        assert [one["group"] for one in found["results"]] == ["support"]
        assert asked(who, group_by="user")["total"] == found["total"]
        refused = who.get(SPEND, {"project": "search"})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "project"
    assert signed_in(cast.rita).get(SPEND).status_code == 403
    assert bearer(issue(cast.support).secret).get(SPEND).status_code == 403
    assert Client().get(SPEND).status_code == 401


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"group_by": "mood"}, "group_by"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2024-05-16T05:30:00Z"}, "from"),
        ({"to": "2024-05-16T05:00:00"}, "to"),
        ({"from": "2024-05-16", "to": "2024-05-16"}, "to"),
        ({"from": "1999-05-16", "to": "2024-05-16"}, "from"),
        ({"to": "0001-01-01"}, "to"),
        ({"from": "9999-12-31", "to": "9999-12-31T23:00Z", "group_by": "user"}, "to"),
        ({"project": "nowhere"}, "project"),
        ({"key": "7"}, "key"),
        ({"group_by": "user", "model": "small"}, "model"),
        ({"page_size": "0"}, "page_size"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"cursor": "W10"}, "cursor"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_errors_name_the_parameter(cast: SimpleNamespace, parameters: dict[str, str], param: str) -> None:
    answer = signed_in(cast.alice).get(SPEND, parameters)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param and error["message"].startswith((f"{param}:", "There is no parameter"))


def test_hours_and_filters_narrow(cast: SimpleNamespace, traffic: SimpleNamespace) -> None:
    alice = signed_in(cast.alice)
    start, end = DAY + timedelta(hours=5), DAY + timedelta(hours=31)
    calls = Call.objects.filter(started_at__gte=start, started_at__lt=end)
    found = asked(alice, **{"from": "2024-05-16T05:00:00Z", "to": "2024-05-17T09:00:00+02:00"})
    assert found["total"]["calls"] == calls.count()
    narrowed = asked(
        alice,
        **{"from": "2024-05-16T05:00Z", "to": "2024-05-17T07:00Z"},
        project="search",
        feature="",
        model="large",
    )
    exact = calls.filter(project_id=cast.search.pk, feature="", model="large")
    assert narrowed["total"]["cost_usd"] == format_usd(sum(exact.values_list("cost_nano", flat=True)))
    assert alice.get(SPEND).json()["total"]["calls"] == 0
