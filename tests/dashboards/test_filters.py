"""An address says what a page shows, and nothing that stands in it can break the page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.dashboards.filters import CUSTOM, FAILED, RANGES, STATUSES, parse
from llmops.usage.models import Call
from llmops.usage.selectors.overview import ERRORS

NOW = datetime(2026, 11, 21, 14, 37, 22, tzinfo=UTC)
PROJECT = UUID("01a1fccf-4017-7061-8d84-3da264ff5618")


def test_nothing_asked_is_the_last_hour() -> None:
    found = parse({}, now=NOW)
    assert (found.period.name, found.pairs(), found.query(), found.problems) == ("1h", {}, "", ())


@pytest.mark.parametrize("name", RANGES)
def test_a_named_range_is_whole_buckets_that_hold_now(name: str) -> None:
    period = parse({"range": name}, now=NOW).period
    step = RANGES[name].granularity
    assert period.start.timestamp() % step == 0 == period.end.timestamp() % step
    assert period.start <= NOW - timedelta(seconds=RANGES[name].seconds)
    assert NOW - timedelta(seconds=RANGES[name].seconds + step) < period.start
    assert NOW < period.end <= NOW + timedelta(seconds=step)
    assert period.length == timedelta(seconds=RANGES[name].seconds)


def test_moments_are_utc_unless_they_say_otherwise() -> None:
    given = {"from": "2026-11-21T12:00+01:00", "to": "2026-11-21T12:30"}
    period = parse(given, now=NOW).period
    assert period.name == CUSTOM
    assert period.start == datetime(2026, 11, 21, 11, tzinfo=UTC)
    assert period.end == datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    # Forms write a plus sign as it is, and addresses read it as a space.
    assert parse({"from": "2026-11-21T12:00 01:00"}, now=NOW).period.start == period.start
    assert parse({"from": "2026-11-21T12:00Z"}, now=NOW).period.end == NOW


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"range": "2y"}, "range"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-11-21T12:00Z", "to": "2026-11-21T12:00Z"}, "from"),
        ({"from": "2020-01-01T00:00Z"}, "from"),
        ({"from": "0001-01-01T00:00+23:59"}, "from"),
        ({"project": "support"}, "project"),
        ({"key": "'; DROP TABLE"}, "key"),
        ({"status": "great"}, "status"),
        ({"route": "x" * 64}, "route"),
        ({"q": "a\x00b"}, "q"),
    ],
)
def test_what_cannot_be_understood_is_left_out_and_named(given: dict[str, str], named: str) -> None:
    found = parse(given, now=NOW)
    (problem,) = found.problems
    assert problem.startswith(f"{named}: ")
    assert found.query() == ""


@given(
    st.dictionaries(
        st.sampled_from(
            ["range", "from", "to", "project", "key", "route", "model", "status", "error", "q", "fallback"]
        ),
        st.text(max_size=200),
    )
)
def test_no_address_breaks_the_page(given: dict[str, str]) -> None:
    found = parse(given, now=NOW)
    assert found.period.start < found.period.end
    # What was understood comes back the same from its own address.
    again = parse(dict(parse_qsl(found.query().lstrip("?"))), now=NOW)
    assert again.pairs() == found.pairs()
    assert not again.problems


def test_a_link_changes_what_it_says_and_keeps_the_rest() -> None:
    found = parse({"range": "24h", "project": str(PROJECT), "status": "error"}, now=NOW)
    assert found.query(range="7d") == f"?range=7d&project={PROJECT}&status=error"
    assert found.query(status=None) == f"?range=24h&project={PROJECT}"
    at = datetime(2026, 11, 21, 12, tzinfo=UTC)
    moved = parse(dict(parse_qsl(found.query(**{"from": at, "to": at + timedelta(hours=1)})[1:])), now=NOW)
    assert (moved.period.name, moved.period.start, moved.project) == (CUSTOM, at, PROJECT)


def test_the_statuses_are_those_of_the_ledger() -> None:
    assert set(STATUSES) == {status for status, _ in Call.STATUSES}
    assert set(FAILED) == set(ERRORS)
