"""When incidents end, and when channels are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

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
