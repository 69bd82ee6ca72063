"""An action is carried out at most once, and only as it was approved."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import DatabaseError, transaction
from django.utils import timezone

from llmops.access import services as access
from llmops.access.models import ServiceKey
from llmops.approvals import services as approvals
from llmops.approvals.models import Request
from llmops.base.requests import user_actor
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest, NotFound, PermissionDenied
from llmops.tools import services
from llmops.tools.executors import Outcome
from llmops.tools.models import Action, ToolVersion
from llmops.tools.selectors import due
from tests.cast import COMMAND, in_threads, no_event, one_event, person
from tests.tools.making import DONE, FUNCTIONS, a_service, a_tool, decide, proposed, state_of

CHANGED = "changed"


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    DONE.clear()
    settings.TOOL_FUNCTIONS = FUNCTIONS


def begins() -> list[str]:
    """What workers would begin with now, in this order."""
    return [str(found.action) for found in due(50)]


def test_from_proposal_to_result(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    agent = a_service(cast.support)
    with one_event("tool.action_requested") as seen:
        action = proposed(agent, cast.support, 500, reason="it broke", run="run-1")
    assert seen.event.after["risk"] == "destructive" and seen.event.after["because"] == "amount > 100"
    assert seen.event.object_name == "Refund 500 USD to Ada" and not begins()
    assert services.execute(action.pk) == Action.WAITING and not DONE
    with one_event("tool.action_approved"):
        decide(cast.rita, action)
    assert state_of(action) == Action.APPROVED and begins() == [str(action.pk)]
    assert services.execute(action.pk) == Action.SUCCEEDED
    assert services.execute(action.pk) == Action.SUCCEEDED
    assert [{"key": str(action.pk), "amount": 500, "customer": "Ada"}] == DONE
    action.refresh_from_db()
    assert action.result == {"refunded": 500}


def test_what_is_safe_runs_at_once_and_is_on_record(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    agent = a_service(cast.support)
    with one_event("tool.action_proposed"):
        action = proposed(agent, cast.support, 50)
    assert action.state == Action.APPROVED and action.request is None and begins() == [str(action.pk)]
    assert services.execute(action.pk) == Action.SUCCEEDED and len(DONE) == 1


def test_two_must_agree_to_what_cannot_be_undone(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    action = proposed(a_service(cast.support), cast.support, 5000)
    decide(cast.rita, action)
    with pytest.raises(Conflict, match="already"):
        decide(cast.rita, action)
    assert services.execute(action.pk) == Action.WAITING and not DONE
    decide(cast.alice, action)
    assert services.execute(action.pk) == Action.SUCCEEDED and len(DONE) == 1


@pytest.mark.parametrize("who", ["bob", "carla", "dan", "charlie", "stranger", "agent", "command"])
def test_who_may_not_approve(cast: SimpleNamespace, who: str) -> None:
    a_tool(cast.support)
    agent = a_service(cast.support)
    action = proposed(agent, cast.support)
    others = {
        "stranger": lambda: user_actor(person("zoe", ("reviewer", cast.search))),
        "agent": lambda: agent,
        "command": lambda: COMMAND,
    }
    actor = others[who]() if who in others else user_actor(getattr(cast, who))
    with no_event(), pytest.raises(PermissionDenied):
        decide(actor, action)
    assert state_of(action) == Action.WAITING


def test_whoever_asked_or_is_asked_for_does_not_approve(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    own = proposed(user_actor(cast.rita), cast.support)
    with no_event(), pytest.raises(PermissionDenied, match="yourself"):
        decide(cast.rita, own)
    behalf = proposed(a_service(cast.support), cast.support, behalf_of="rita")
    with no_event(), pytest.raises(PermissionDenied, match="on your behalf"):
        decide(cast.rita, behalf)
    for action in (own, behalf):
        decide(cast.alice, action)
        assert state_of(action) == Action.APPROVED


def test_a_key_that_was_revoked_asks_for_nothing_any_more(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    agent = a_service(cast.support)
    action = proposed(agent, cast.support)
    access.revoke_service_key(COMMAND, key=ServiceKey.objects.get(pk=agent.identifier))
    with no_event(), pytest.raises(Conflict, match="was revoked"):
        decide(cast.rita, action)


def test_a_reason_ends_it_and_so_does_time(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    agent = a_service(cast.support)
    rejected, late, taken = (proposed(agent, cast.support) for _ in range(3))
    with one_event("tool.action_rejected"):
        decide(cast.rita, rejected, approves=False, reason="not this customer")
    Request.objects.filter(pk=late.request_id).update(expires_at=timezone.now() - timedelta(seconds=1))
    with one_event("tool.action_expired"):
        approvals.expire_requests()
    with one_event("tool.action_cancelled"):
        services.withdraw(agent, action=taken)
    assert [state_of(one) for one in (rejected, late, taken)] == ["rejected", "expired", "cancelled"]
    for action in (rejected, late, taken):
        with no_event(), pytest.raises(Conflict):
            decide(cast.alice, action)
        services.execute(action.pk)
    assert not DONE


# Changed after it was approved ----------------------------------------------------------------------------------------


def unguarded(action: Action, **changed: Any) -> None:
    """As somebody with the database's own password could, past the triggers."""
    from django.db import connection

    table = Action._meta.db_table
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL session_replication_role = replica")
            Action.objects.filter(pk=action.pk).update(**changed)
            cursor.execute("SET LOCAL session_replication_role = origin")
        else:
            cursor.execute("SELECT sql FROM sqlite_master WHERE name = %s", [f"{table}_frozen"])
            made = cursor.fetchone()[0]
            cursor.execute(f"DROP TRIGGER {table}_frozen")
            Action.objects.filter(pk=action.pk).update(**changed)
            cursor.execute(made)


@pytest.mark.parametrize(
    "field", ["arguments", "run", "digest", "behalf_of_id", "requested_by_id", "risk", "claimed_at"]
)
def test_the_database_refuses_to_change_what_an_action_says(cast: SimpleNamespace, field: str) -> None:
    a_tool(cast.support)
    action = proposed(a_service(cast.support), cast.support)
    decide(cast.rita, action)
    services.execute(action.pk)
    value: Any = (
        timezone.now() if field == "claimed_at" else {"arguments": "{}", "risk": "read"}.get(field, CHANGED)
    )
    with pytest.raises(DatabaseError, match="keep what they say"), transaction.atomic():
        Action.objects.filter(pk=action.pk).update(**{field: value})
    with pytest.raises(DatabaseError, match="keep what they say"), transaction.atomic():
        Action.objects.filter(pk=action.pk).delete()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        ToolVersion.objects.update(note=CHANGED)


@pytest.mark.parametrize(
    "changed",
    [
        {"arguments": '{"amount":9999,"customer":"Eve"}'},
        {"arguments": '{"amount":9999,"customer":"Eve"}', "digest": "0" * 64},
        {"run": "another"},
        {"behalf_of_id": "77"},
        {"requested_by_id": "77"},
        {"request": None, "digest": "0" * 64},
    ],
)
def test_what_was_changed_past_the_database_is_not_run(
    cast: SimpleNamespace, changed: dict[str, Any]
) -> None:
    a_tool(cast.support)
    action = proposed(a_service(cast.support), cast.support)
    before = proposed(a_service(cast.support, name="other"), cast.support)
    decide(cast.rita, action)
    unguarded(action, **changed)
    with one_event("tool.action_refused"):
        assert services.execute(action.pk) == Action.FAILED
    assert not DONE
    # Nor is it approved, when it was changed before.
    unguarded(before, **changed)
    if "request" not in changed:
        with no_event(), pytest.raises(Conflict, match="not what was shown"):
            decide(cast.rita, before)


def test_a_consistent_forgery_meets_what_was_approved(cast: SimpleNamespace) -> None:
    """Whoever rewrites arguments and digest alike still has the decision against him, which names another digest."""
    from llmops.tools.services.binding import digest_of

    a_tool(cast.support)
    action = proposed(a_service(cast.support), cast.support)
    decide(cast.rita, action)
    action.arguments = '{"amount":9999,"customer":"Eve"}'
    action.digest = digest_of(action)
    unguarded(action, arguments=action.arguments, digest=action.digest)
    content = {**action.request.content, "arguments": action.arguments, "action_digest": action.digest}  # type: ignore[union-attr]
    from llmops.core.digests import digest

    Request.objects.filter(pk=action.request_id).update(content=content, digest=digest(content))
    with one_event("tool.action_refused"):
        services.execute(action.pk)
    assert not DONE


def test_an_edit_is_another_action(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    agent = a_service(cast.support)
    old = proposed(agent, cast.support, 500)
    with one_event("tool.action_requested") as seen:
        new = services.revise(
            user_actor(cast.rita),
            action=old,
            arguments={"amount": 200, "customer": "Ada"},
            reason="less will do",
        )
    assert seen.event.after["changes"] == ["amount: 500 → 200"] and seen.event.after["replaces"] == str(
        old.pk
    )
    assert state_of(old) == Action.SUPERSEDED and new.supersedes_id == old.pk and new.digest != old.digest
    with pytest.raises(Conflict):
        decide(cast.alice, old)
    # Whoever edited it asks for it now.
    with pytest.raises(PermissionDenied, match="yourself"):
        decide(cast.rita, new)
    decide(cast.alice, new)
    services.execute(new.pk)
    services.execute(old.pk)
    assert [one["amount"] for one in DONE] == [200]
    with no_event(), pytest.raises(Conflict):
        services.revise(
            user_actor(cast.rita), action=old, arguments={"amount": 1, "customer": "A"}, reason="again"
        )


def test_an_edit_that_changes_nothing_or_does_not_fit_leaves_it_waiting(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    old = proposed(a_service(cast.support), cast.support, 500)
    for arguments in ({"amount": 500, "customer": "Ada"}, {"amount": -1, "customer": "Ada"}, {"amount": 1}):
        with no_event(), pytest.raises(InvalidRequest):
            services.revise(user_actor(cast.rita), action=old, arguments=arguments, reason="so")
    assert state_of(old) == Action.WAITING and Action.objects.count() == 1


# Who may propose ------------------------------------------------------------------------------------------------------


def test_who_may_propose_what(cast: SimpleNamespace) -> None:
    a_tool(cast.support, callers=["chosen"])
    chosen, other = a_service(cast.support, name="chosen"), a_service(cast.support, name="other")
    proposed(chosen, cast.support)
    cases = [
        (other, cast.support, PermissionDenied), (a_service(cast.support, "inference", name="talker"), cast.support, PermissionDenied),
        (a_service(cast.search, name="foreign"), cast.support, PermissionDenied), (chosen, cast.search, PermissionDenied),
        (user_actor(cast.carla), cast.support, PermissionDenied), (user_actor(cast.charlie), cast.search, NotFound),
    ]  # fmt: skip
    for actor, project, expected in cases:
        with no_event(), pytest.raises(expected):
            proposed(actor, project)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"amount": 5}, "arguments"),
        ({"amount": "5", "customer": "Ada"}, "arguments.amount"),
        ({"amount": 5, "customer": "Ada", "more": 1}, "arguments"),
        ({"amount": float("inf"), "customer": "Ada"}, "arguments"),
        ({"amount": 5, "customer": "a\0b"}, "arguments"),
        ({"amount": 5, "customer": "\ud800"}, "arguments"),
        ([], "arguments"),
        (None, "arguments"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(
    cast: SimpleNamespace, arguments: Any, param: str
) -> None:
    a_tool(cast.support)
    agent = a_service(cast.support)
    with no_event(), pytest.raises(InvalidRequest) as refused:
        proposed(agent, cast.support, arguments=arguments)
    assert refused.value.param == param


def test_a_key_given_twice_gives_the_same_action(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    agent = a_service(cast.support)
    first = proposed(agent, cast.support, idempotency_key="k1")
    with no_event():
        assert proposed(agent, cast.support, idempotency_key="k1").pk == first.pk
    for changed in ({"amount": 501}, {"run": "other"}):
        with no_event(), pytest.raises(Conflict, match="Idempotency-Key"):
            proposed(agent, cast.support, idempotency_key="k1", **changed)
    # Another service's keys are its own.
    assert proposed(a_service(cast.support, name="two"), cast.support, idempotency_key="k1").pk != first.pk


def test_numbers_are_carried_out_as_they_were_written(cast: SimpleNamespace) -> None:
    """Databases that keep JSON change how numbers are written; what was approved must not change."""
    a_tool(cast.support)
    for amount in (1e22, 1e-7, 100.0, 0.1 + 0.2, 12345678901234567890):
        action = proposed(a_service(cast.support, name=str(amount)), cast.support, amount)
        if action.request is not None:
            for who in (cast.rita, cast.alice)[: action.request.required]:
                decide(who, Action.objects.select_related("request").get(pk=action.pk))
        assert services.execute(action.pk) == Action.SUCCEEDED
        assert repr(DONE[-1]["amount"]) == repr(amount)


# What can go wrong ----------------------------------------------------------------------------------------------------


def test_a_paused_tool_begins_nothing(cast: SimpleNamespace) -> None:
    tool = a_tool(cast.support)
    agent = a_service(cast.support)
    action = proposed(agent, cast.support)
    with one_event("tool.paused"):
        services.pause_tool(COMMAND, tool=tool, reason="trouble")
    with no_event(), pytest.raises(Conflict, match="paused: trouble"):
        proposed(agent, cast.support)
    decide(cast.rita, action)
    assert services.execute(action.pk) == Action.APPROVED and not DONE
    assert begins() == []
    services.resume_tool(COMMAND, tool=tool)
    assert begins() == [str(action.pk)]
    assert services.execute(action.pk) == Action.SUCCEEDED


def test_what_was_approved_long_ago_is_not_begun(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    first, second = (proposed(a_service(cast.support, name=name), cast.support) for name in "ab")
    for action in (first, second):
        decide(cast.rita, action)
        unguarded(action, approved_at=timezone.now() - timedelta(hours=25))
    with one_event("tool.action_expired"):
        assert services.execute(first.pk) == Action.EXPIRED
    assert services.expire_unbegun() == 1 and services.expire_unbegun() == 0
    assert state_of(second) == Action.EXPIRED and not DONE


def test_no_more_at_once_than_the_tool_allows(cast: SimpleNamespace) -> None:
    a_tool(cast.support, concurrency=1)
    agent = a_service(cast.support)
    first, second = (proposed(agent, cast.support, 50) for _ in range(2))
    claimed = services.claim(first.pk)
    assert claimed is not None and services.claim(second.pk) is None
    services.finish(claimed.action, claimed.claim_id, Outcome("succeeded"))
    assert begins() == [str(second.pk)] and services.claim(second.pk) is not None


def test_a_function_that_takes_too_long_or_breaks_leaves_it_unknown(cast: SimpleNamespace) -> None:
    a_tool(cast.support, "slow", settings={"function": "wait"}, timeout_s=1)
    a_tool(cast.support, "broken", settings={"function": "break"})
    a_tool(cast.support, "reader", settings={"function": "break"}, risk="read", rules=[])
    agent = a_service(cast.support)
    found = {}
    for tool in ("slow", "broken", "reader"):
        action = proposed(agent, cast.support, 50, tool=tool)
        found[tool] = services.execute(action.pk)
    assert found == {"slow": "unknown", "broken": "unknown", "reader": "failed"}


def test_after_a_crash_a_person_finds_out(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    action, other = (proposed(a_service(cast.support, name=name), cast.support) for name in "ab")
    for one in (action, other):
        decide(cast.rita, one)
    claimed, late = services.claim(action.pk), services.claim(other.pk)
    assert claimed is not None and late is not None
    assert services.settle_crashed() == 0
    with no_event(), pytest.raises(Conflict):
        services.resolve(user_actor(cast.rita), action=action, happened=True, reason="I looked")
    after = timezone.now() + timedelta(minutes=5)
    assert services.settle_crashed(after) == 2 and services.settle_crashed(after) == 0
    assert state_of(action) == Action.UNKNOWN
    assert services.execute(action.pk) == Action.UNKNOWN and not DONE
    assert services.expire_unbegun(after) == 0 and begins() == []
    assert state_of(action) == Action.UNKNOWN
    action.refresh_from_db()
    key = a_service(cast.support, name="c")
    for who in (key, COMMAND):
        with no_event(), pytest.raises(PermissionDenied):
            services.resolve(who, action=action, happened=True, reason="so")
    for who in (cast.bob, cast.carla, cast.charlie):
        with no_event(), pytest.raises(PermissionDenied):
            services.resolve(user_actor(who), action=action, happened=True, reason="so")
    with one_event("tool.action_resolved"):
        services.resolve(user_actor(cast.rita), action=action, happened=False, reason="the ledger has none")
    assert state_of(action) == Action.FAILED
    # The worker was only slow: what a person has said stands; what nobody has decided yet, the worker knows better.
    services.finish(claimed.action, claimed.claim_id, Outcome("succeeded"))
    assert state_of(action) == Action.FAILED
    services.finish(late.action, late.claim_id, Outcome("succeeded", {"refunded": 1}))
    assert state_of(other) == Action.SUCCEEDED
    # Another claim's word counts for nothing.
    services.finish(late.action, uuid4(), Outcome("failed"))
    assert state_of(other) == Action.SUCCEEDED


# At once --------------------------------------------------------------------------------------------------------------


def test_twelve_who_claim_at_once(transactional_db: None) -> None:
    from tests.cast import make_cast

    cast = make_cast()
    a_tool(cast.support)
    agent = a_service(cast.support)
    for _ in range(3):
        DONE.clear()
        action = proposed(agent, cast.support)
        decide(cast.rita, action)
        results = in_threads(*[partial(services.execute, action.pk) for _ in range(12)])
        assert len(DONE) == 1 and state_of(action) == Action.SUCCEEDED, results
        assert all(isinstance(one, str) for one in results), results


def test_those_who_approve_reject_edit_and_expire_at_once(transactional_db: None) -> None:
    from tests.cast import make_cast

    cast = make_cast()
    a_tool(cast.support)
    agent = a_service(cast.support)
    people = [person(f"reviewer{number}", ("reviewer", None)) for number in range(6)]
    for _ in range(4):
        DONE.clear()
        action = proposed(agent, cast.support)
        late = timezone.now() + timedelta(days=2)
        results = in_threads(
            *[partial(decide, one, action, approves=number % 3 > 0) for number, one in enumerate(people)],
            partial(approvals.expire_requests, late),
            partial(
                services.revise, user_actor(people[0]), action=action, arguments={"amount": 7, "customer": "A"}, reason="so",
            ),
            partial(services.execute, action.pk),
        )  # fmt: skip
        unexpected = [
            one for one in results if isinstance(one, Exception) and not isinstance(one, ConsoleError)
        ]
        assert not unexpected, unexpected
        request = Request.objects.get(pk=action.request_id)
        services.execute(action.pk)
        assert len([one for one in DONE if one["amount"] == 500]) == (request.state == Request.EXECUTED)
        expected = {
            Request.EXECUTED: {Action.SUCCEEDED}, Request.REJECTED: {Action.REJECTED}, Request.EXPIRED: {Action.EXPIRED},
            Request.CANCELLED: {Action.SUPERSEDED},
        }  # fmt: skip
        assert state_of(action) in expected[request.state], (state_of(action), request.state)


def test_the_same_proposal_ten_times_at_once(transactional_db: None) -> None:
    from tests.cast import make_cast

    cast = make_cast()
    a_tool(cast.support)
    agent = a_service(cast.support)
    results = in_threads(*[partial(proposed, agent, cast.support, idempotency_key="k") for _ in range(10)])
    assert len({one.pk for one in results}) == 1 and Action.objects.count() == 1
