"""When incidents end, and when channels are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.alerts import course
from llmops.alerts.course import Quiet

NOON = datetime(2026, 3, 5, 12, 0, tzinfo=UTC)
NIGHT = Quiet(22 * 60, 7 * 60, "Europe/Berlin")


def test_what_flaps_must_be_well_for_twice_as_long_each_time() -> None:
    waits = [course.well_for(300, flaps).total_seconds() for flaps in range(8)]
    assert waits == [300, 600, 1200, 2400, 4800, 9600, 9600, 9600]
    assert course.well_for(0, 0) == timedelta(0) and course.well_for(0, 1) == timedelta(minutes=2)
    assert course.well_for(86_400, 9) == timedelta(days=1)


def test_an_incident_ends_after_being_well_without_a_break() -> None:
    assert not course.ends(None, NOON, resolve_after_s=0, flaps=0)
    assert not course.ends(NOON - timedelta(seconds=299), NOON, resolve_after_s=300, flaps=0)
    assert course.ends(NOON - timedelta(seconds=300), NOON, resolve_after_s=300, flaps=0)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        # Berlin is an hour ahead in March.
        (datetime(2026, 3, 5, 20, 59, tzinfo=UTC), None),
        (datetime(2026, 3, 5, 21, 0, tzinfo=UTC), datetime(2026, 3, 6, 6, 0, tzinfo=UTC)),
        (datetime(2026, 3, 6, 5, 59, tzinfo=UTC), datetime(2026, 3, 6, 6, 0, tzinfo=UTC)),
        (datetime(2026, 3, 6, 6, 0, tzinfo=UTC), None),
        # The night in which summer time begins is an hour shorter.
        (datetime(2026, 3, 28, 22, 0, tzinfo=UTC), datetime(2026, 3, 29, 5, 0, tzinfo=UTC)),
    ],
)
def test_quiet_hours_over_midnight(now: datetime, until: datetime | None) -> None:
    assert course.quiet_until(now, NIGHT) == until


def test_quiet_hours_within_a_day_and_none() -> None:
    assert course.quiet_until(NOON, Quiet(11 * 60, 13 * 60, "UTC")) == NOON + timedelta(hours=1)
    assert course.quiet_until(NOON, Quiet(60, 60, "UTC")) is None
    assert course.quiet_until(NOON, None) is None


def test_what_is_critical_is_told_in_the_night() -> None:
    night = datetime(2026, 3, 5, 23, 0, tzinfo=UTC)
    assert course.due(night, severity="critical", after_minutes=0, quiet=NIGHT) == (night, False)
    assert course.due(night, severity="warning", after_minutes=0, quiet=NIGHT) == (
        datetime(2026, 3, 6, 6, 0, tzinfo=UTC),
        True,
    )
    assert course.due(NOON, severity="warning", after_minutes=15, quiet=NIGHT) == (
        NOON + timedelta(minutes=15),
        False,
    )


def test_waits_between_tries_grow_and_are_bounded() -> None:
    waits = [(course.retry_at(NOON, tries) - NOON).total_seconds() for tries in range(1, 21)]
    assert waits[:4] == [15, 30, 60, 120] and max(waits) == 3600 and waits == sorted(waits)


def test_a_channel_of_a_project_hears_of_that_project_alone() -> None:
    def heard(project: object, channel: object, severity: str = "critical") -> bool:
        return course.concerns(
            severity=severity, project_id=project, severities=["critical"], channel_project_id=channel
        )

    assert heard(1, None) and heard(None, None) and heard(1, 1)
    assert not heard(2, 1) and not heard(None, 1) and not heard(1, 1, "info")


@pytest.mark.parametrize(
    ("now", "quiet", "until"),
    [
        # Half past two comes twice when summer time ends: who is in the second hour waits for its end.
        ("2026-10-25T00:15Z", (22, 2.5), "2026-10-25T00:30Z"),
        ("2026-10-25T01:15Z", (22, 2.5), "2026-10-25T01:30Z"),
        ("2026-10-25T01:30Z", (22, 2.5), None),
        ("2026-10-24T21:00Z", (22, 7), "2026-10-25T06:00Z"),
        # It does not come at all when summer time begins: the night ends when the clock goes past it.
        ("2026-03-28T23:00Z", (22, 2.5), "2026-03-29T01:00Z"),
        ("2026-03-29T00:59Z", (22, 2.5), "2026-03-29T01:00Z"),
        ("2026-03-29T01:00Z", (22, 2.5), None),
        # Quiet hours that would lie in the hour that is left out are not there at all.
        ("2026-03-29T01:10Z", (2.25, 2.75), None),
    ],
)
def test_quiet_hours_end_when_the_clock_on_the_wall_says_so(
    now: str, quiet: tuple[float, float], until: str | None
) -> None:
    hours = Quiet(int(quiet[0] * 60), int(quiet[1] * 60), "Europe/Berlin")
    expected = datetime.fromisoformat(until) if until else None
    assert course.quiet_until(datetime.fromisoformat(now), hours) == expected


@given(
    st.integers(0, 366 * 86_400).map(lambda seconds: NOON + timedelta(seconds=seconds)),
    st.integers(0, 1439),
    st.integers(0, 1439),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC"]),
)
def test_quiet_hours_end_in_the_future_and_not_within_them(
    now: datetime, start: int, end: int, zone: str
) -> None:
    quiet = Quiet(start, end, zone)
    until = course.quiet_until(now, quiet)
    if until is not None:
        # No night is longer than a day with an hour more, and whoever looks a second before its end is told the same.
        assert now < until <= now + timedelta(hours=25)
        assert course.quiet_until(until - timedelta(seconds=1), quiet) == until
        here = until.astimezone(ZoneInfo(zone))
        minute, zones = here.hour * 60 + here.minute, ZoneInfo(zone)
        changed = (until - timedelta(hours=1)).astimezone(zones).utcoffset() != here.utcoffset()
        assert minute == end or changed
