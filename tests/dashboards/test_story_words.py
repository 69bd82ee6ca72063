"""The attempts of a call, as sentences for whoever is on call."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmops import gateway
from llmops.core import errors
from llmops.dashboards import words
from llmops.dashboards.lanes import told_note, told_why
from llmops.gateway.attempts import credentials, resilience
from llmops.gateway.money import charging

#: Codes of the console's own API, and of changes of its configuration.
_NOT_OF_CALLS = {"configuration_refused", "nothing_to_publish", "required", "second_person_needed"}


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("", ""),
        ("after status 429", "Moved on from small after HTTP 429. "),
        ("again after a time-out", "Asked again 1.06 s later, after a time-out. "),
        (
            "with the credential 'b' after 'a' was refused",
            "Tried with the credential 'b' after 'a' was refused. ",
        ),
        ("the route is degraded: slow", "The route is degraded: slow. "),
        (
            "after status 500; other is passed over: circuit open",
            "Moved on from small after HTTP 500. other was passed over: its breaker is open, because it failed too often. ",
        ),
        ("other is passed over: of no use", "other was passed over: of no use. "),
        ("summarises the 6 oldest items", "Summarises the 6 oldest items. "),
    ],
)
def test_why(why: str, told: str) -> None:
    assert told_why(why, before="small", pause_us=1_060_000) == told


def test_every_code_with_which_the_gateway_ends_a_call_is_explained() -> None:
    places = [Path(errors.__file__), *Path(gateway.__file__).parent.rglob("*.py")]
    found = {code for place in places for code in re.findall(r'\bcode ?= ?"([a-z_]+)"', place.read_text())}
    assert len(found) > 40
    assert sorted(found - words.ERRORS.keys() - _NOT_OF_CALLS) == []


def test_a_first_attempt_moved_on_from_nothing() -> None:
    assert told_why("after status 500") == "Moved on after HTTP 500. "
    assert told_why("again after status 500", before="small", pause_us=900) == "Asked again after HTTP 500. "


def test_notes() -> None:
    assert told_note("") == ""
    assert told_note("the server is overloaded; it cost more than was held") == (
        "The server is overloaded. It cost more than was held."
    )
    assert told_note(charging.UNKNOWN_BILL) == (
        "Nobody knows whether the provider bills it, so its whole hold is charged."
    )


def test_what_the_data_plane_writes_down_is_known_here() -> None:
    assert words.AT_HOLD == charging.UNKNOWN_BILL
    assert set(words.NOTES) == {charging.UNKNOWN_BILL, charging.ESTIMATED}
    assert set(words.PASSED_OVER) == {
        resilience.OPEN, resilience.NO_CREDENTIAL, resilience.PAUSED,
        credentials.REFUSED_WHY, credentials.RESTING_WHY, credentials.SPENT_WHY,
    }  # fmt: skip


def test_a_call_that_found_nobody_to_ask_points_at_no_attempts() -> None:
    assert "attempts below" in words.status_meaning("error", 2)
    told = words.status_meaning("error", 0)
    assert "below" not in told and "nothing was spent" in told
    assert words.status_meaning("ok", 0) == words.status_meaning("ok", 1)
