"""A second person: what was shown is what is done, once, by somebody else, or nothing is."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from llmops.approvals import services
from llmops.approvals.models import Decision, Request
from llmops.base.requests import user_actor
from llmops.core.actors import Actor
from llmops.core.digests import digest
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest, NotFound, PermissionDenied
from tests.approvals.acts import DONE
from tests.cast import COMMAND, in_threads, issue, no_event, one_event, person


@pytest.fixture(autouse=True)
def kinds(settings: Any) -> None:
    DONE.clear()
    settings.APPROVAL_KINDS = {
        "thing.switch": "tests.approvals.acts.THING",
        "thing.launch": "tests.approvals.acts.TWO",
    }


def asked(who: Any, project: Any = None, kind: str = "thing.switch", **content: Any) -> Request:
    return services.ask(
        who if isinstance(who, Actor) else user_actor(who),
        kind=kind,
        title="Switch the thing",
        content={"what": "on", **content},
        object_type="things.thing",
        object_id=uuid4(),
        object_name="the thing",
        project_id=project.pk if project else None,
        reason="it is time",
    )


def approve(who: Any, row: Request, **changed: Any) -> Request:
    given = {"request_id": row.pk, "approves": True, "seen": row.digest, "reason": ""} | changed
    return services.decide(who if isinstance(who, Actor) else user_actor(who), **given)


def test_another_person_approves_and_it_is_done_once(cast: SimpleNamespace) -> None:
    with one_event("thing.switch_requested") as seen:
        row = asked(cast.bob, cast.support)
    assert seen.event.object_name == "the thing" and seen.event.after["digest"] == digest({"what": "on"})
    with one_event("thing.switch_approved") as seen:
        assert approve(cast.carla, row, reason="fine").state == Request.EXECUTED
    assert seen.event.after["approvals"] == "1 of 1" and seen.event.after["done"] == "on"
    assert [one["by"] for one in DONE] == ["carla"]
    with no_event(), pytest.raises(Conflict, match="over"):
        approve(cast.alice, row)
    assert len(DONE) == 1


@pytest.mark.parametrize(
    "who", ["bob", "dan", "rita", "charlie", "stranger", "key", "command", "job", "closed"]
)
def test_who_may_not_decide(cast: SimpleNamespace, who: str) -> None:
    row = asked(cast.bob, cast.support)
    actors = {
        "stranger": lambda: user_actor(person("zoe", ("admin", cast.search))),
        "key": lambda: Actor(
            "service_key", str(issue(cast.support, "budgets", "organisation").key.pk), "a key"
        ),
        "command": lambda: COMMAND,
        "job": lambda: Actor("job", "x", "job x"),
        "closed": lambda: user_actor(person("gone", ("admin", None), is_active=False)),
    }
    actor = actors[who]() if who in actors else user_actor(getattr(cast, who))
    for approves in (True, False):
        with no_event(), pytest.raises(PermissionDenied):
            services.decide(actor, request_id=row.pk, approves=approves, seen=row.digest, reason="because")
    assert not DONE and not Decision.objects.exists()
    assert not services.may_decide(actor, row)


def test_nobody_decides_about_what_he_asked_for_however_mighty(cast: SimpleNamespace) -> None:
    row = asked(cast.root)
    with no_event(), pytest.raises(PermissionDenied, match="yourself"):
        approve(cast.root, row)
    # What a key or a command asks for takes two people: whoever holds the key may be one of them.
    for actor in (COMMAND, Actor("service_key", str(issue(cast.support, "budgets").key.pk), "a key")):
        row = asked(actor)
        assert approve(cast.root, row).state == Request.OPEN
        assert approve(cast.alice, row).state == Request.EXECUTED


def test_what_was_not_shown_is_not_approved(cast: SimpleNamespace) -> None:
    row = asked(cast.bob, cast.support)
    for seen in ("", "0" * 64, digest({"what": "off"})):
        with no_event(), pytest.raises(Conflict, match="not what you were shown"):
            approve(cast.carla, row, seen=seen)
    # Changed behind everybody's back, with or without its digest.
    Request.objects.filter(pk=row.pk).update(content={"what": "off"})
    with no_event(), pytest.raises(Conflict, match="not what you were shown"):
        approve(cast.carla, row)
    Request.objects.filter(pk=row.pk).update(digest=digest({"what": "off"}))
    with no_event(), pytest.raises(Conflict, match="not what you were shown"):
        approve(cast.carla, row)
    assert not DONE


def test_after_its_end_nothing_is_done(cast: SimpleNamespace) -> None:
    row = asked(cast.bob, cast.support)
    Request.objects.filter(pk=row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    with no_event(), pytest.raises(Conflict, match="run out"):
        approve(cast.carla, row)
    with one_event("thing.switch_expired"):
        assert services.expire_requests() == 1
    with no_event():
        assert services.expire_requests() == 0
    with pytest.raises(Conflict, match="over"):
        approve(cast.carla, row)
    assert not DONE


def test_one_rejection_ends_it_and_says_why(cast: SimpleNamespace) -> None:
    row = asked(cast.bob, cast.support)
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        approve(cast.carla, row, approves=False, reason="  ")
    assert refusal.value.param == "reason"
    with one_event("thing.switch_rejected") as seen:
        approve(cast.carla, row, approves=False, reason="too dear")
    assert seen.event.reason == "too dear"
    with pytest.raises(Conflict):
        approve(cast.alice, row)
    assert not DONE


def test_only_who_asked_takes_it_back(cast: SimpleNamespace) -> None:
    row = asked(cast.bob, cast.support)
    with no_event(), pytest.raises(PermissionDenied):
        services.cancel(user_actor(cast.alice), request_id=row.pk)
    with one_event("thing.switch_cancelled"):
        services.cancel(user_actor(cast.bob), request_id=row.pk)
    with pytest.raises(Conflict):
        approve(cast.carla, row)
    with pytest.raises(NotFound):
        services.cancel(user_actor(cast.bob), request_id=uuid4())


def test_what_speaks_against_it_by_then_leaves_it_open(cast: SimpleNamespace) -> None:
    row = asked(cast.bob, cast.support, fails=True)
    with no_event(), pytest.raises(Conflict, match="Not any more"):
        approve(cast.carla, row)
    row.refresh_from_db()
    assert row.state == Request.OPEN and not row.decisions.exists()


def test_two_of_two(cast: SimpleNamespace) -> None:
    row = asked(cast.bob, cast.support, kind="thing.launch")
    assert approve(cast.carla, row).state == Request.OPEN and not DONE
    with pytest.raises(Conflict, match="already"):
        approve(cast.carla, row)
    assert approve(cast.alice, row).state == Request.EXECUTED and len(DONE) == 1


def test_twelve_who_approve_and_reject_at_once(transactional_db: None) -> None:
    from tests.cast import make_cast

    cast = make_cast()
    people = [person(f"admin{number}", ("admin", None)) for number in range(12)]
    for _ in range(3):
        row = asked(cast.bob, cast.support)
        DONE.clear()
        results = in_threads(
            *[
                partial(approve, one, row, approves=number % 3 > 0, reason="so")
                for number, one in enumerate(people)
            ]
        )
        row.refresh_from_db()
        won = [one for one in results if isinstance(one, Request)]
        assert len(won) == 1 and all(isinstance(one, Request | ConsoleError) for one in results), results
        assert len(DONE) == (row.state == Request.EXECUTED)
        assert row.state in (Request.EXECUTED, Request.REJECTED) and row.decisions.count() == 1


def test_a_crash_in_the_middle_leaves_nothing(cast: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    row = asked(cast.bob, cast.support)
    monkeypatch.setattr("llmops.approvals.services.record", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        approve(cast.carla, row)
    row.refresh_from_db()
    assert row.state == Request.OPEN and not Decision.objects.exists()


def test_decisions_are_never_changed(cast: SimpleNamespace) -> None:
    approve(cast.carla, asked(cast.bob, cast.support))
    with pytest.raises(IntegrityError), transaction.atomic():
        Decision.objects.update(approves=False)


def test_a_kind_that_is_not_offered_and_a_missing_reason(cast: SimpleNamespace) -> None:
    with no_event(), pytest.raises(InvalidRequest) as refusal:
        asked(cast.bob, cast.support, kind="thing.explode")
    assert refusal.value.param == "kind"
