"""Is anything wrong?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from llmops.dashboards.verdict import Facts, Paused, Spent, Unreadable, judge

QUIET = Facts(
    calls=100, failed=0, refused=0, unknown=0, fallback=0, p95_us=1_000_000, calls_before=100, p95_before_us=1_000_000
)  # fmt: skip


def findings(**changed: object) -> tuple[str, list[str]]:
    verdict = judge(replace(QUIET, **changed), period="the last hour")  # type: ignore[arg-type]
    return verdict.level, [finding.text for finding in verdict.findings]


def test_a_quiet_hour() -> None:
    assert findings() == ("ok", [])
    assert judge(replace(QUIET, calls=0), period="the last hour").headline == "No calls in the last hour"


@pytest.mark.parametrize(
    ("changed", "level", "said"),
    [
        ({"failed": 1, "worst_error": "upstream_timeout", "worst_error_calls": 1}, "warn", "upstream_timeout"),
        ({"failed": 5}, "bad", "5.0"),
        ({"calls": 2, "failed": 2}, "bad", "100"),
        ({"unknown": 1}, "warn", "charged at the full hold"),
        ({"refused": 3, "refusal": "insufficient_quota", "refusal_calls": 3}, "warn", "all with insufficient_quota"),
        ({"fallback": 5}, "warn", "fallback"),
        ({"p95_us": 1_600_000}, "warn", "before it was"),
        ({"signals": {"truncated": 2, "schema_failed": 0}}, "warn", "2.0\u2009% of calls were cut off"),
        ({"signals": {"schema_failed": 5, "blocked": 90}}, "bad", "broke the schema"),
        ({"signals": {"lazy": 1, "redacted": 100}}, "ok", ""),
        ({"signals": {"capped": 66}}, "ok", "66.0\u2009% of calls were cut off at the cap that their caller set (66)"),
        ({"signals": {"capped": 66}, "unknown": 1}, "warn", "charged at the full hold 66.0\u2009% of calls were cut off at the cap"),
        ({"calls": 19, "signals": {"lazy": 19}}, "ok", ""),
        ({"budgets": [Spent("support", 99, 100, True, "used up: calls are refused")]}, "bad", "Budget support is used up: calls are refused"),
        ({"budgets": [Spent("support", 100, 100, False)]}, "warn", "calls go on"),
        ({"budgets": [Spent("support", 95, 100, True)]}, "warn", "95.0"),
        ({"budgets": [Spent("support", 100, 100, True)]}, "warn", "100\u2009% used or held"),
        ({"budgets": [Spent("nothing", 0, 0, True)]}, "ok", ""),
        ({"paused": [Paused("Route", "chat", "wrong answers")]}, "warn", "Route chat is paused: wrong answers"),
        ({"paused": [Paused("Provider", "sim", "")]}, "warn", "Provider sim is paused"),
        ({"paused": [Paused("Route", "chat", "slow", "", "degraded")]}, "warn", "Route chat is degraded: slow"),
        ({"unreadable": [Unreadable("sim/a", "Not set.", 1, True)]}, "bad", "cannot be read by a data plane, and its provider has no other"),
        ({"unreadable": [Unreadable("sim/a", "Not set.", 3, False)]}, "warn", "by 3 data planes, and its provider's other keys are used. Not set."),
        ({"calls": 0, "unreadable": [Unreadable("sim/a", "Not set.", 1, True)]}, "bad", "sim/a"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(changed: dict[str, object], level: str, said: str) -> None:
    found, texts = findings(**changed)
    assert found == level
    assert said in " ".join(texts)


def test_few_calls_say_little() -> None:
    assert findings(calls=3, failed=1)[0] == "ok"
    assert findings(calls=10, fallback=5)[0] == "ok"
    assert findings(calls_before=3, p95_us=9_000_000)[0] == "ok"


def test_the_worst_comes_first() -> None:
    level, texts = findings(refused=1, failed=30)
    assert level == "bad"
    assert "failed" in texts[0]
