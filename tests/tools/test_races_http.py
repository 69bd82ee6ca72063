"""Approving against whatever else happens in the same moment, over HTTP: the tool is paused, gets another version, the time runs out, the
reviewer loses the role, the run is cancelled. It is carried out at most once, only as it was approved, and whoever comes too late is
told so in words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from llmops.access.models import Membership
from llmops.approvals import services as approvals
from llmops.approvals.models import Request
from llmops.audit.checking import check_database
from llmops.runs.models import Run
from llmops.runs.selectors import actor_behind
from llmops.tools import services
from llmops.tools.models import Action
from tests.cast import bearer, in_threads, issue, make_cast, person, signed_in
from tests.tools.making import DONE, FUNCTIONS, REFUND, a_service, a_tool, proposed

ROUNDS = 3
STRICTER = {**REFUND, "rules": [{"when": "amount > 10", "risk": "irreversible"}]}


@pytest.fixture
def world(transactional_db: None, settings: Any) -> SimpleNamespace:
    settings.TOOL_FUNCTIONS = FUNCTIONS
    DONE.clear()
    cast = make_cast()
    cast.tool = a_tool(cast.support)
    cast.agent = a_service(cast.support, "actions", "runs")
    cast.runner = issue(cast.support, "actions", "runs", name="runner")
    cast.owner = signed_in(cast.alice)
    return cast


def answered(client: Any, path: str, body: Any = None) -> tuple[int, str]:
    """Status, and what is said to whoever is refused."""
    found = client.post(path, body or {}, content_type="application/json")
    error = found.json().get("error", {}) if found.status_code >= 400 else {}
    return found.status_code, error.get("message", "")


def approving(who: Any, action: Action) -> Callable[[], tuple[int, str]]:
    request = action.request
    assert request is not None
    body = {"digest": request.digest, "reason": "Looked at."}
    return partial(answered, signed_in(who), f"/api/v1/approvals/{request.pk}/approve/", body)


def carried_out(action: Action) -> Callable[[], str]:
    """As a worker does that looks at this very moment."""
    return partial(services.execute, action.pk)


def told(answer: tuple[int, str], *statuses: int) -> bool:
    """Whether it went well; one that did not is one of ``statuses``, and says what to do."""
    status, message = answer
    if status < 300:
        return True
    assert status in statuses and len(message) > 20, answer
    return False


def settled(action: Action) -> tuple[str, str]:
    """Request and action once everything is over; the trail is whole, and nothing was done twice."""
    services.execute(action.pk)
    action.refresh_from_db()
    assert action.request is not None
    keys = [one["key"] for one in DONE]
    assert len(keys) == len(set(keys)) and (str(action.pk) in keys) == (action.state == Action.SUCCEEDED)
    assert check_database().intact
    return Request.objects.values_list("state", flat=True).get(pk=action.request_id), action.state


def test_approved_while_the_tool_is_paused(world: SimpleNamespace) -> None:
    for _ in range(ROUNDS):
        action = proposed(world.agent, world.support)
        path = f"/api/v1/tools/{world.tool.pk}"
        approved, paused, _ = in_threads(
            approving(world.rita, action),
            partial(answered, world.owner, f"{path}/pause/"),
            carried_out(action),
        )
        assert told(approved) and told(paused)
        # Begun before the pause, or waits for its end; nothing between.
        state = settled(action)
        assert state in (("executed", "succeeded"), ("executed", "approved"))
        assert told(answered(world.owner, f"{path}/resume/"))
        assert settled(action) == ("executed", "succeeded")


def test_approved_while_the_tool_gets_another_version(world: SimpleNamespace) -> None:
    for number in range(ROUNDS):
        slug = f"refund-{number}"
        tool = a_tool(world.support, slug)
        action = proposed(world.agent, world.support, tool=slug)
        path = f"/api/v1/tools/{tool.pk}/versions/"
        approved, changed, _ = in_threads(
            approving(world.rita, action),
            partial(answered, world.owner, path, {"definition": STRICTER}),
            carried_out(action),
        )
        assert told(approved) and told(changed)
        # What was asked for before is carried out as it was shown: its version, and the agreement that this one asks for.
        assert settled(action) == ("executed", "succeeded")
        assert action.version.number == 1 and action.risk == "destructive"
        later = proposed(world.agent, world.support, tool=slug)
        assert later.risk == "irreversible" and later.request is not None and later.request.required == 2


def test_approved_while_the_time_runs_out(world: SimpleNamespace) -> None:
    late = timezone.now() + timedelta(days=60)
    for _ in range(ROUNDS):
        action = proposed(world.agent, world.support)
        approved, expired, _ = in_threads(
            approving(world.rita, action), partial(approvals.expire_requests, late), carried_out(action)
        )
        won = told(approved, 409)
        assert not isinstance(expired, Exception), expired
        assert settled(action) == (("executed", "succeeded") if won else ("expired", "expired"))
        assert won or "over" in approved[1] or "decided" in approved[1]


def test_approved_while_the_reviewer_loses_the_role(world: SimpleNamespace) -> None:
    for number in range(ROUNDS):
        who = person(f"reviewer{number}", ("reviewer", world.support))
        member = Membership.objects.get(user=who)
        action = proposed(world.agent, world.support)
        approve = approving(who, action)
        approved, removed, _ = in_threads(
            approve,
            lambda member=member: world.owner.delete(f"/api/v1/memberships/{member.pk}/").status_code,
            carried_out(action),
        )
        assert removed == 204
        # Whoever is no member any more sees nothing of it.
        won = told(approved, 403, 404)
        assert settled(action) == (("executed", "succeeded") if won else ("open", "waiting"))
        assert not told(approve(), 403, 404)


def test_of_two_who_must_agree_one_loses_the_role(world: SimpleNamespace) -> None:
    for number in range(ROUNDS):
        first, second = (
            person(f"{name}{number}", ("reviewer", world.support)) for name in ("first", "second")
        )
        member = Membership.objects.get(user=first)
        action = proposed(world.agent, world.support, 5000)
        assert told(approving(first, action)())
        agreed, removed, _ = in_threads(
            approving(second, action),
            lambda member=member: world.owner.delete(f"/api/v1/memberships/{member.pk}/").status_code,
            carried_out(action),
        )
        assert told(agreed) and removed == 204
        # Two who both might at that moment, or one.
        assert settled(action) in (("executed", "succeeded"), ("open", "waiting"))


def test_approved_while_its_run_is_cancelled(world: SimpleNamespace) -> None:
    for _ in range(ROUNDS):
        run = parked(world)
        action = Action.objects.get(run=str(run.pk))
        approved, cancelled, _ = in_threads(
            approving(world.rita, action),
            partial(answered, bearer(world.runner.secret), f"/api/v1/runs/{run.pk}/cancel/"),
            carried_out(action),
        )
        assert told(cancelled)
        won = told(approved, 409)
        state = settled(action)
        expected = (
            [("executed", "succeeded"), ("executed", "cancelled")] if won else [("cancelled", "cancelled")]
        )
        assert state in expected, (state, approved)
        run.refresh_from_db()
        assert run.state == Run.CANCELLED


def parked(world: SimpleNamespace) -> Run:
    """A run that waits for a person, as a worker leaves it."""
    from llmops.runs.models import Step
    from llmops.runs.sealed import asked_identity, seal

    run = Run(
        project=world.support, mode="queued", digest="0" * 64, requested_by_kind="service_key",
        requested_by_id=str(world.runner.key.pk), requested_by_name="runner", model="chat", tools=["refund"], max_turns=5,
        max_seconds=60, left_ms=60_000, state=Run.PARKED,
    )  # fmt: skip
    run.sealed = seal({"asked": {}, "offered": []}, identity=asked_identity(run.pk))
    run.save(force_insert=True)
    action = proposed(actor_behind(run), world.support, run=str(run.pk))
    Step.objects.create(
        run=run,
        n=1,
        kind="call",
        turn=1,
        place=0,
        what="refund",
        action=action,
        digest="0" * 64,
        at=timezone.now(),
    )
    return run
