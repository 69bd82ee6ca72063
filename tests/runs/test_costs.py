"""What a run has cost is what the data plane settled for its calls: failed attempts and what policies asked included. Its bound holds by
that, also where an answer was lost."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from django.db.models import Sum

from llmops.core.ids import uuid7
from llmops.runs import services
from llmops.runs.costing import cost_of
from llmops.runs.models import Run, Step
from llmops.runs.services import working
from llmops.usage.models import Call
from tests.cast import acting, bearer, issue, signed_in
from tests.console.world import a_call
from tests.runs.conftest import COST, call, plays, refusal
from tests.runs.making import begun, done, steps, text_of, worked

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
FAILED = (502, refusal("upstream_error", "It broke off."))
LOST = (409, refusal("idempotency_outcome_unknown", "Nobody knows."))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again without a wait."""
    monkeypatch.setattr(working, "back_off", lambda tries, asked: 0.0)


def book(
    run: Run, turn: int, cost: int, *, again: int = 0, of: Any = None, judged: bool = False, **known: Any
) -> Call:
    """A call of the run, as the ledger has it once it is booked."""
    name = f"run-{run.pk}-{turn}" + (f"-{again}" if again else "") + (".judged" if judged else "")
    known = {
        "key_id": UUID(run.requested_by_id) if run.requested_by_kind == "service_key" else None,
        "request_id": name,
        "cost_nano": cost,
        "started_at": run.created_at,
        **known,
    }
    return a_call(run.project, **known, **({"pk": of} if of else {}))


def booked(run: Run) -> int:
    """The sum of the call records of a run: what its figure has to be."""
    rows = Call.objects.filter(request_id__startswith=f"run-{run.pk}-")
    return int(rows.aggregate(sum=Sum("cost_nano"))["sum"] or 0)


def shown(lab: Any, run: Run) -> list[int]:
    """What the API says of it, alone and in the list."""
    client = bearer(issue(lab.support, "runs", name=f"reader {uuid7()}").secret)
    (line,) = [one for one in client.get("/api/v1/runs/").json()["results"] if one["id"] == str(run.pk)]
    return [client.get(f"/api/v1/runs/{run.pk}/").json()["cost_nano"], line["cost_nano"]]


def test_what_failed_and_was_billed_counts_and_its_bound_holds(lab, plane):
    """A failure that was paid for is given again under its key: it counts once, and the turn is asked under another key."""
    plane.keeps, plane.costs = (200, 502), lambda status: {200: COST, 502: 90_000}.get(status, 0)
    turns = iter([FAILED, plays([call("look", {"name": "A"})])({}, 1), plays("Done.")({}, 1)])
    plane.script = lambda asked, n: next(turns)
    run = done(lab, tools=["look"], bounds={"cost_nano": 10_000_000})
    assert (run.state, text_of(run)) == ("succeeded", "Done.")
    spent = [int(head["x-llmops-max-cost-nano"]) for head in plane.heads]
    assert spent == [10_000_000, 9_910_000, 9_910_000 - COST]
    assert [head["idempotency-key"][-4:] for head in plane.heads][1].endswith("-1-1")
    assert cost_of(run) == run.cost_nano == 90_000 + 2 * COST
    assert [one for one in steps(run) if "paid" in one] == ["note paid upstream_error"]
    assert shown(lab, run) == [90_000 + 2 * COST] * 2


def test_what_fails_under_both_keys_is_not_asked_for_again_and_again(lab, plane):
    """The same failure would be given again each time, for minutes."""
    plane.keeps = (200, 502)
    plane.script = plays(FAILED)
    run = done(lab)
    assert (run.state, run.error_code) == ("failed", "upstream_error")
    assert len(plane.heads) == plane.replayed == 2


def test_a_run_whose_failures_used_up_its_bound_asks_no_more(lab, plane):
    plane.costs = lambda status: 600_000
    turns = iter([FAILED, FAILED])
    plane.script = lambda asked, n: next(turns)
    run = done(lab, bounds={"cost_nano": 1_000_000})
    assert (run.state, run.error_code) == ("failed", "out_of_money")
    assert len(plane.heads) == 2 and plane.heads[1]["x-llmops-max-cost-nano"] == "400000"


def test_the_figure_is_the_sum_of_its_call_records_once_they_are_booked(lab, plane):
    plane.script = plays([call("look", {"name": "A"})], "Done.")
    run = done(lab, tools=["look"])
    first, second = Step.objects.filter(run=run, kind="turn").order_by("n").values_list("call_id", flat=True)
    # Until the ledger has a call, what was told stands in.
    book(run, 1, 20_000, judged=True, endpoint="moderations")
    book(run, 1, COST - 20_000, of=first)
    assert cost_of(run) == 2 * COST
    book(run, 2, 123_456, of=second)
    assert cost_of(run) == booked(run) == COST + 123_456
    assert shown(lab, run) == [booked(run)] * 2
    page = signed_in(lab.alice).get(f"/runs/{run.pk}/").content.decode()
    assert "2 turns, $0.000473" in page and "$0.000123" in page
    # A correction is a change of the call's record.
    Call.objects.filter(pk=second).update(cost_nano=0)
    assert shown(lab, run) == [COST] * 2 == [booked(run)] * 2


def test_what_another_writes_under_its_ids_is_not_of_the_run(lab, plane):
    run = done(lab)
    (mine,) = Step.objects.filter(run=run).values_list("call_id", flat=True)
    book(run, 1, COST, of=mine)
    other = issue(lab.support, name="other").key
    book(run, 1, 9_000_000, key_id=other.pk)
    a_call(
        lab.search,
        key_id=UUID(run.requested_by_id),
        request_id=f"run-{run.pk}-1",
        cost_nano=5,
        started_at=run.created_at,
    )
    assert cost_of(run) == COST


def test_runs_of_people_are_reckoned_by_the_keys_of_the_console(lab, plane):
    run = done(lab, who=acting(lab.alice))
    key, _ = services.key_in_use(lab.support)
    (mine,) = Step.objects.filter(run=run).values_list("call_id", flat=True)
    book(run, 1, COST + 1, of=mine, key_id=key.service_key_id)
    book(run, 1, 7, judged=True, key_id=key.service_key_id)
    book(run, 1, 9_000_000, key_id=issue(lab.support, name="other").key.pk)
    assert cost_of(run) == COST + 8


def test_what_was_paid_for_an_answer_that_a_worker_died_over_is_taken_from_the_bound(lab, plane):
    """The worker died over the refusal of a call that a policy had asked a moderation model about. Whoever follows is not told."""
    run = begun(lab, bounds={"cost_nano": 1_000_000})
    book(run, 1, 0, status=Call.REFUSED, http_status=429)
    book(run, 1, 250_000, judged=True, endpoint="moderations")
    worked(run)
    assert run.state == "succeeded" and plane.heads[0]["x-llmops-max-cost-nano"] == "750000"


def test_within_a_bound_a_lost_answer_is_asked_for_again_when_its_cost_is_known(lab, plane, monkeypatch):
    """Nobody told the run what it cost: charged at its hold, as the ledger has it when the journal of the dead plane is read."""

    def script(asked: Any, n: int) -> Any:
        return plays("Done.")(asked, 1) if plane.heads[-1]["idempotency-key"].endswith("-1-1") else LOST

    def meanwhile(tries: int, asked: float | None) -> float:
        if tries == 2:
            book(run, 1, 700_000, status=Call.UNKNOWN)
        return 0.0

    plane.script = script
    monkeypatch.setattr(working, "back_off", meanwhile)
    run = begun(lab, bounds={"cost_nano": 1_000_000})
    worked(run)
    assert (run.state, text_of(run)) == ("succeeded", "Done.")
    assert [head["x-llmops-max-cost-nano"] for head in plane.heads] == [
        "1000000",
        "1000000",
        "300000",
        "300000",
    ]
    assert cost_of(run) == 700_000 + COST


def test_within_a_bound_nothing_more_is_asked_while_a_cost_stays_unknown(lab, plane):
    plane.script = plays(LOST)
    run = done(lab, bounds={"cost_nano": 1_000_000})
    assert (run.state, run.error_code) == ("failed", "cost_not_known") and "turn 1" in run.error_message
    assert {head["idempotency-key"] for head in plane.heads} == {f"run-{run.pk}-1"}
    # Without a bound it is asked again at once, as ever.
    turns = iter([LOST, plays("Done.")({}, 1)])
    plane.script = lambda asked, n: next(turns)
    assert done(lab).state == "succeeded"


def test_a_stream_tells_what_it_cost(lab, plane):
    plane.costs = lambda status: 77
    run = done(lab, mode="stream")
    assert (run.state, run.cost_nano) == ("succeeded", 77)
