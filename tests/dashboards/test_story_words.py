"""Why an attempt was made, as sentences."""

from __future__ import annotations

import pytest

from llmops.dashboards.story import told_why


@pytest.mark.parametrize(
    ("why", "told"),
    [
        ("", ""),
        ("after status 429", "Tried after status 429. "),
        ("again after a time-out", "Tried again after a time-out. "),
        (
            "with the credential 'b' after 'a' was refused",
            "Tried with the credential 'b' after 'a' was refused. ",
        ),
        ("the route is degraded: slow", "The route is degraded: slow. "),
        (
            "after status 500; small is passed over: circuit open",
            "Tried after status 500. Small is passed over: circuit open. ",
        ),
        ("summarises the 6 oldest items", "Summarises the 6 oldest items. "),
    ],
)
def test_why(why: str, told: str) -> None:
    assert told_why(why) == told
