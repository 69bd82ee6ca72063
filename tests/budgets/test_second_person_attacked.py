"""Insiders who would get more money past the second person: by another field, another moment, or somebody who left."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from llmops.access.models import Membership
from llmops.approvals import services as approvals
from llmops.approvals.models import Request
from llmops.approvals.services import decide
from llmops.budgets import services
from llmops.budgets.models import Budget, Raise
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest
from llmops.core.money import MAX_NANO, NANO
from tests.budgets.test_raises import lease
from tests.cast import COMMAND, acting, bearer, in_threads, issue, make_cast, no_event, person, signed_in


def budget_of(**known: Any) -> Budget:
    values = {"slug": "strict", "scope_kind": "project", "scope_value": "support", "limit_nano": 100}
    return services.create_budget(COMMAND, **(values | known))


def asked(who: Any, budget: Budget, amount: int = 50) -> Request:
    actor = who if isinstance(who, Actor) else acting(who)
    ends_at = timezone.now() + timedelta(hours=2)
    return services.ask_raise(
        actor, budget_id=budget.pk, amount_nano=amount, ends_at=ends_at, reason="a busy day"
    )


def approve(who: Any, row: Request) -> Request:
    return decide(acting(who), request_id=row.pk, approves=True, seen=row.digest)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"carry_over_nano": 1}, "carry_over_usd"),
        ({"period": "day"}, "period"),
        ({"timezone": "Asia/Tokyo"}, "timezone"),
        ({"scope_kind": "tag", "scope_value": "never-sent"}, "scope_kind"),
        ({"scope_value": "search"}, "scope_value"),
    ],
)
def test_a_strict_budget_is_not_made_to_hold_less(
    cast: SimpleNamespace, change: dict[str, Any], field: str
) -> None:
    """Before its first call, too, when its scope is not fixed by what was spent under it."""
    budget = budget_of(second_person=True)
    with no_event(), pytest.raises(Conflict, match="second person") as refused:
        services.update_budget(COMMAND, budget_id=budget.pk, **change)
    assert refused.value.param == field


def test_less_is_carried_over_by_one(cast: SimpleNamespace) -> None:
    budget = budget_of(second_person=True, carry_over_nano=5)
    assert services.update_budget(COMMAND, budget_id=budget.pk, carry_over_nano=4).carry_over_nano == 4


def test_what_was_approved_is_not_used_for_another_scope(cast: SimpleNamespace) -> None:
    """Asked for one project, then moved to where the money is wanted, before its first call."""
    budget = budget_of()
    row = asked(cast.bob, budget)
    services.update_budget(COMMAND, budget_id=budget.pk, scope_value="search")
    with no_event(), pytest.raises(Conflict, match="something else by now"):
        approve(cast.carla, row)
    strict = budget_of(slug="strict-2", second_person=True)
    more = services.ask_loosening(
        acting(cast.bob), budget_id=strict.pk, what="limit", limit_nano=500, reason="it is needed"
    )
    Budget.objects.filter(pk=strict.pk).update(period="day")
    with no_event(), pytest.raises(Conflict, match="something else by now"):
        approve(cast.carla, more)
    assert not Raise.objects.exists()


@pytest.mark.parametrize("how", ["left", "closed", "moved"])
def test_who_asked_and_left_asks_for_nothing_any_more(cast: SimpleNamespace, how: str) -> None:
    row = asked(cast.bob, budget_of())
    if how == "closed":
        cast.bob.is_active = False
        cast.bob.save()
    else:
        Membership.objects.filter(user=cast.bob).delete()
        if how == "moved":
            Membership.objects.create(user=cast.bob, project=cast.search, role="admin")
    with no_event(), pytest.raises(Conflict, match="may not ask for it any more"):
        approve(cast.carla, row)
    assert not Raise.objects.exists()
    assert decide(
        acting(cast.carla), request_id=row.pk, approves=False, seen=row.digest, reason="left"
    ).state == (Request.REJECTED)


def test_a_revoked_key_asks_for_nothing_any_more(cast: SimpleNamespace) -> None:
    key = issue(cast.support, "budgets", "read")
    row = asked(Actor("service_key", str(key.key.pk), "a key"), budget_of())
    key.key.revoked_at = timezone.now()
    key.key.save()
    with no_event(), pytest.raises(Conflict, match=r"was revoked\. Nothing is approved"):
        approve(cast.carla, row)


def test_the_approval_of_who_left_does_not_count(cast: SimpleNamespace) -> None:
    key = issue(cast.support, "budgets", "read")
    row = asked(Actor("service_key", str(key.key.pk), "a key"), budget_of())
    assert row.required == 2
    approve(cast.carla, row)
    Membership.objects.filter(user=cast.carla).delete()
    approve(cast.alice, row)
    assert not Raise.objects.exists(), "of those who approved only one may"
    approve(cast.root, row)
    assert Raise.objects.get().amount_nano == 50


def test_raises_together_stay_within_what_can_be_counted(cast: SimpleNamespace) -> None:
    budget = budget_of()
    first, second = (asked(cast.bob, budget, MAX_NANO - 100) for _ in range(2))
    approve(cast.carla, first)
    with no_event(), pytest.raises(InvalidRequest, match="billion USD"):
        approve(cast.carla, second)
    with no_event(), pytest.raises(InvalidRequest, match="billion USD"):
        asked(cast.bob, budget, 101)
    assert lease(budget, 200) == 200


def test_calls_go_on_under_raises_that_are_more_than_can_be_counted(cast: SimpleNamespace) -> None:
    budget = budget_of()
    row = asked(cast.bob, budget, MAX_NANO - 100)
    approve(cast.carla, row)
    raised = Raise.objects.get()
    raised.pk, raised.request_id = None, budget.pk
    raised.save(force_insert=True)
    assert lease(budget, 200) == 200


def test_the_second_raise_says_what_the_first_one_did(cast: SimpleNamespace) -> None:
    budget = budget_of(limit_nano=5 * NANO)
    approve(cast.carla, asked(cast.bob, budget, 10 * NANO))
    row = asked(cast.bob, budget, 20 * NANO)
    page = signed_in(cast.carla).get(f"/admin/approvals/request/{row.pk}/change/").content.decode()
    assert "$15.00 now, $35.00 meanwhile" in page and "project support" in page


@pytest.mark.django_db(transaction=True)
def test_one_thing_becomes_of_a_request_whoever_is_first() -> None:
    cast = make_cast()
    budget = budget_of()
    second = person("fred", ("finance", cast.support))
    for _ in range(4):
        row = asked(cast.bob, budget)
        Raise.objects.filter(request_id=row.pk).delete()
        results = in_threads(
            partial(approve, cast.carla, row),
            partial(approve, second, row),
            partial(approvals.cancel, acting(cast.bob), request_id=row.pk),
            partial(approvals.expire_requests, row.expires_at + timedelta(seconds=1)),
        )
        for one in results:
            assert not isinstance(one, Exception) or isinstance(one, ConsoleError), repr(one)
        row.refresh_from_db()
        assert row.state != Request.OPEN
        assert Raise.objects.filter(request_id=row.pk).count() == (row.state == Request.EXECUTED)
        assert row.decisions.count() == (row.state == Request.EXECUTED)


@pytest.mark.django_db(transaction=True)
def test_a_raise_and_the_end_of_its_budget_at_once() -> None:
    cast = make_cast()
    for number in range(4):
        budget = budget_of(slug=f"b-{number}")
        row = asked(cast.bob, budget)
        results = in_threads(
            partial(approve, cast.carla, row),
            partial(services.archive_budget, COMMAND, budget_id=budget.pk),
            partial(lease, budget, 500),
            partial(services.update_budget, COMMAND, budget_id=budget.pk, limit_nano=10),
        )
        for one in results:
            assert not isinstance(one, Exception) or isinstance(one, ConsoleError), repr(one)
        done = Request.objects.get(pk=row.pk).state == Request.EXECUTED
        assert Raise.objects.filter(budget=budget).exists() == done
        window = budget.windows.get()
        assert window.leased_nano <= window.limit_nano <= 150


def test_no_key_and_no_stranger_decides_through_any_door(cast: SimpleNamespace) -> None:
    row = asked(cast.bob, budget_of())
    everything = bearer(issue(cast.support, "budgets", "read", "organisation").secret)
    stranger = signed_in(person("zoe", ("admin", cast.search)))
    address, page = f"/api/v1/approvals/{row.pk}/", f"/admin/approvals/request/{row.pk}/"
    bob, carla = signed_in(cast.bob), signed_in(cast.carla, enforce_csrf_checks=True)
    looking = signed_in(cast.carla)
    body = {"digest": row.digest}
    with no_event():
        for client, wanted in ((everything, 403), (bob, 403), (stranger, 404)):
            said = client.post(f"{address}approve/", body, content_type="application/json")
            assert said.status_code == wanted, said.content
        assert stranger.get("/api/v1/approvals/", {"object_id": row.object_id}).json()["results"] == []
        assert stranger.get(f"{page}change/").status_code in (302, 403, 404)
        assert stranger.post(f"{page}approve/", {"seen": row.digest}).status_code in (302, 403, 404)
        # Looking decides nothing, and a page of somebody else's cannot.
        assert carla.get(f"{address}approve/", body).status_code == 405
        assert carla.post(f"{address}approve/", body, content_type="application/json").status_code == 403
        assert carla.post(f"{page}approve/", {"seen": row.digest}).status_code == 403
        looking.get(f"{page}approve/", {"seen": row.digest})
    row.refresh_from_db()
    assert row.state == Request.OPEN


@pytest.mark.parametrize("kind", ["project", "key"])
def test_what_is_not_ones_own_is_told_as_what_does_not_exist(cast: SimpleNamespace, kind: str) -> None:
    theirs = "search" if kind == "project" else str(issue(cast.search).key.pk)
    nothing = "nowhere" if kind == "project" else "0192d5f0-7000-7000-8000-000000000000"
    carla = signed_in(cast.carla)
    for more in ({}, {"project": "support"}):
        said = []
        for value in (theirs, nothing):
            body = {"slug": "spy", "scope_kind": kind, "scope_value": value, "limit_usd": "1", **more}
            answer = carla.post("/api/v1/budgets/", body, content_type="application/json")
            said.append((answer.status_code, answer.content.decode().replace(value, "?")))
        assert said[0] == said[1] and said[0][0] == 400
