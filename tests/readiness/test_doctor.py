"""Points, the command for pipelines, the page, and the score from day to day."""

from __future__ import annotations

import json
from datetime import date
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from llmops.dashboards.readiness import line
from llmops.readiness import selectors, services, tasks
from llmops.readiness.finding import (
    CATEGORIES,
    LACKING,
    MET,
    NOTHING,
    SECURITY,
    UNKNOWN,
    Check,
    every,
    listed,
    met,
)
from llmops.readiness.models import DayScore
from llmops.readiness.scoring import OF_A_CATEGORY, POINTS, Score, of_category, together
from tests.cast import no_event, signed_in

pytestmark = pytest.mark.any_engine


def doctor(*arguments: str) -> str:
    told = StringIO()
    call_command("doctor", *arguments, stdout=told)
    return told.getvalue()


@given(st.lists(st.sampled_from([MET, LACKING, NOTHING, UNKNOWN])))
def test_a_category_has_all_its_points_only_when_everything_is_met(states: list[str]) -> None:
    score = of_category(states)
    judged = [one for one in states if one != NOTHING]
    assert 0 <= score.tenths <= 10 * OF_A_CATEGORY
    assert (score.tenths == 10 * OF_A_CATEGORY) == (bool(judged) and set(judged) == {MET})
    assert of_category([*states, NOTHING]) == score
    assert of_category([*states, UNKNOWN]).tenths <= score.tenths <= of_category([*states, MET]).tenths


def test_points_add_up() -> None:
    assert OF_A_CATEGORY * len(CATEGORIES) == POINTS == 25
    whole = together([Score(50, 3, 3), Score(7, 1, 7)])
    assert (whole.tenths, whole.points, whole.met, whole.judged) == (57, "5.7", 4, 10)


def test_evidence_names_a_few() -> None:
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"
    assert every([1, 2], ["b"], "routes", "fail").evidence == "1 of 2 routes fail: b."


@pytest.mark.django_db
def test_a_check_that_fails_is_unknown_and_stops_no_other(caplog: Any) -> None:
    def fails() -> Any:
        raise RuntimeError("a secret of the installation")

    broken = Check("broken", SECURITY, "Broken", fix=".", link="", look=fails)
    good = Check("good", SECURITY, "Good", fix=".", link="", look=lambda: met("Yes."))
    found = selectors.assess([broken, good])
    assert [one.finding.state for one in found.looked] == [UNKNOWN, MET]
    assert "secret" not in found.looked[0].finding.evidence
    assert found.scores[SECURITY].tenths == 25


@pytest.mark.django_db
def test_the_command_tells_and_stops_a_pipeline(settings: Any) -> None:
    settings.SECURE_TLS, settings.PUBLIC_URL = False, "https://console.example.com/"
    told = doctor()
    assert "FIX  Pages and keys travel encrypted" in told
    assert "Serve the console behind TLS" in told
    found = json.loads(doctor("--json"))
    assert found["of"] == 25
    assert found["points"] == sum(round(10 * one) for one in found["categories"].values()) / 10
    links = {one["id"]: one["link"] for one in found["checks"]}
    assert links["tls"] == "https://console.example.com/readiness/settings/#CONSOLE_TLS"
    assert links["routes-retry"] == "https://console.example.com/admin/providers/route/"
    assert f"set CONSOLE_TLS=1. {links['tls']}" in told
    assert {"id", "state", "evidence", "fix"} <= set(found["checks"][0])
    with pytest.raises(CommandError, match="of 25 points are fewer than 25"):
        doctor("--fail-under", "25")
    doctor("--fail-under", "0")
    for wrong in ("nan", "26", "-1"):
        with pytest.raises(CommandError, match="takes 0 to 25"):
            doctor(f"--fail-under={wrong}")
    with pytest.raises(CommandError, match=r"Not met: tls\."):
        doctor("--require", "tls", "--require", "debug-off")
    with pytest.raises(CommandError, match="no check tsl"):
        doctor("--require", "tsl")
    settings.SECURE_TLS = True
    doctor("--require", "tls")
    assert not DayScore.objects.exists()


@pytest.mark.django_db
def test_a_day_has_one_score() -> None:
    with no_event():
        first = tasks.keep()
        doctor("--keep")
    [kept] = DayScore.objects.all()
    assert (kept.day, kept.tenths) == (timezone.now().date(), first)
    assert sum(kept.categories.values()) == first
    assert "two-administrators" in kept.lacking
    services.keep(selectors.assess([]), day=date(2026, 1, 2))
    assert [one.day for one in selectors.history(today=date(2026, 1, 3))] == [date(2026, 1, 2)]


def test_the_line_of_scores() -> None:
    days = [DayScore(day=date(2026, 1, n), tenths=t) for n, t in ((1, 0), (2, 125), (5, 250))]
    assert line(days) == "0,40 75,20 300,0"
    assert line(days[:1]) == ""


@pytest.mark.django_db
def test_the_page_says_what_to_do_first_and_leads_there(
    cast: SimpleNamespace, django_assert_max_num_queries: Any, settings: Any
) -> None:
    settings.SECURE_TLS, settings.EMAIL_HOST_PASSWORD = False, "a secret of the installation"
    DayScore.objects.create(day=timezone.now().date(), tenths=101)
    client = signed_in(cast.alice)
    with django_assert_max_num_queries(140):
        page = client.get("/readiness/")
    assert page.status_code == 200
    for group in page.context["groups"]:
        states = [row.state for row in group.rows]
        assert states == sorted(states, key=[LACKING, UNKNOWN, MET, NOTHING].index)
        assert UNKNOWN not in states
    rows = {row.id: row for group in page.context["groups"] for row in group.rows}
    assert "/admin/budgets/budget/" in rows["projects-bounded"].href
    assert "2 of 2 projects may spend without end: search, support." in page.content.decode()
    assert "10.1" in page.content.decode()
    # What no page of the console mends leads to what there is to set; it says nothing of what is set.
    assert rows["tls"].href == "/readiness/settings/#CONSOLE_TLS"
    assert all(row.href for row in rows.values() if row.state == LACKING)
    told = client.get("/readiness/settings/")
    assert told.status_code == 200 and 'id="CONSOLE_TLS"' in told.content.decode()
    assert "a secret of the installation" not in told.content.decode()
    assert signed_in(cast.bob).get("/readiness/settings/").status_code == 403
    assert signed_in(cast.bob).get("/readiness/").status_code == 403
