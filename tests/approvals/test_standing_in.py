"""Standing in for somebody who is away: whose power it is, who two people are, and what ends it."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from llmops.access.models import Membership
from llmops.approvals import standing_in, telling
from llmops.approvals.models import StandIn
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, ConsoleError, InvalidRequest, PermissionDenied
from llmops.tools.models import Action
from tests.cast import COMMAND, acting, in_threads, make_cast, no_event, one_event, person, signed_in
from tests.tools.making import DONE, FUNCTIONS, a_service, a_tool, decide, proposed, state_of


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    DONE.clear()
    settings.TOOL_FUNCTIONS = FUNCTIONS


@pytest.fixture
def away(cast: SimpleNamespace) -> SimpleNamespace:
    """Rita, who reviews in ``support``, is away, and Charlie, who operates ``search``, stands in for her."""
    a_tool(cast.support)
    cast.agent = a_service(cast.support)
    cast.row = named(cast.rita, "rita", "charlie")
    return cast


def named(who: Any, away: str, stand_in: str, **known: Any) -> StandIn:
    now = timezone.now()
    given = {"ends_at": now + timedelta(days=3), "reason": "On leave", **known}
    actor = who if isinstance(who, Actor) else acting(who)
    return standing_in.name_stand_in(actor, person=away, stand_in=stand_in, **given)


@pytest.mark.any_engine
def test_the_stand_in_decides_in_their_own_name_with_the_power_of_who_is_away(away: SimpleNamespace) -> None:
    before = proposed(away.agent, away.support, 900, run="run-1")
    decide(away.alice, before, approves=False, reason="Half of it")
    action = proposed(away.agent, away.support, run="run-1")
    client = signed_in(away.charlie)
    assert "Refund 500" in client.get("/inbox/").content.decode()
    assert "You stand in for rita" in client.get("/inbox/").content.decode()
    page = client.get(f"/inbox/{action.request_id}/").content.decode()
    assert "You decide for rita" in page and "Approve" in page
    assert "an earlier attempt of this run" in page and "Half of it" in page
    with one_event("tool.action_approved"):
        body = {
            "what": "approve",
            "request": str(action.request_id),
            f"seen_{action.request_id}": action.request.digest,
        }  # type: ignore[union-attr]
        assert client.post("/inbox/decide/", body).status_code == 302
    decision = action.request.decisions.get()  # type: ignore[union-attr]
    assert (decision.decided_by_name, decision.for_name) == ("charlie", "rita")
    assert state_of(action) == Action.APPROVED
    assert "charlie, standing in for rita" in client.get(f"/inbox/{action.request_id}/").content.decode()


@pytest.mark.any_engine
def test_a_stand_in_is_no_second_person(away: SimpleNamespace) -> None:
    large = proposed(away.agent, away.support, 5000)
    assert large.request is not None and large.request.required == 2
    decide(away.rita, large)
    with pytest.raises(PermissionDenied, match="had a say"):
        decide(away.charlie, large)
    other = proposed(away.agent, away.support, 6000)
    decide(away.charlie, other)
    with pytest.raises(Conflict, match="stands in for you"):
        decide(away.rita, other)
    assert state_of(other) == Action.WAITING
    decide(away.alice, other)
    assert state_of(other) == Action.APPROVED
    # Who may decide by themselves does so, whoever is away.
    own = person("rob", ("reviewer", away.support))
    named(away.alice, "alice", "rob")
    third = proposed(away.agent, away.support, 7000)
    assert decide(own, third).decisions.get().for_id == ""
    decide(away.alice, third)
    assert state_of(third) == Action.APPROVED


@pytest.mark.any_engine
@pytest.mark.parametrize("ends", ["role", "account", "time", "ended", "stand-in's account"])
def test_what_is_not_held_is_not_lent(away: SimpleNamespace, ends: str) -> None:
    large = proposed(away.agent, away.support, 5000)
    small = proposed(away.agent, away.support)
    decide(away.charlie, large)
    if ends == "role":
        Membership.objects.filter(user=away.rita).delete()
    elif ends == "account":
        type(away.rita).objects.filter(pk=away.rita.pk).update(is_active=False)
    elif ends == "time":
        past = timezone.now() - timedelta(seconds=1)
        StandIn.objects.update(starts_at=past - timedelta(days=1), ends_at=past)
    elif ends == "ended":
        standing_in.end_stand_in(acting(away.charlie), row=away.row)
    else:
        type(away.charlie).objects.filter(pk=away.charlie.pk).update(is_active=False)
    with pytest.raises(PermissionDenied):
        decide(away.charlie, small)
    decide(away.alice, large)
    # What was said while it held counts as long as who lent it holds it.
    counted = ends in ("time", "ended")
    assert state_of(large) == (Action.APPROVED if counted else Action.WAITING)


@pytest.mark.any_engine
def test_who_asked_lends_nothing_about_it(away: SimpleNamespace) -> None:
    mine = proposed(acting(away.rita), away.support)
    with pytest.raises(PermissionDenied, match="who asked for this"):
        decide(away.charlie, mine)
    for_her = proposed(away.agent, away.support, behalf_of="rita")
    with pytest.raises(PermissionDenied, match="is asked for"):
        decide(away.charlie, for_her)
    named(away.alice, "alice", "bob")
    asked = proposed(acting(away.bob), away.support)
    with pytest.raises(PermissionDenied, match="asked for this yourself"):
        decide(away.bob, asked)
    # Nor does it go on from one to the next.
    named(away.charlie, "charlie", "carla")
    with pytest.raises(PermissionDenied):
        decide(away.carla, proposed(away.agent, away.support, 800))


@pytest.mark.any_engine
def test_a_stand_in_sees_what_they_may_decide_and_nothing_else(away: SimpleNamespace) -> None:
    action = proposed(away.agent, away.support)
    client, stranger = signed_in(away.charlie), signed_in(person("zoe", ("reviewer", away.search)))
    assert client.get(f"/api/v1/approvals/{action.request_id}/").status_code == 200
    assert stranger.get(f"/api/v1/approvals/{action.request_id}/").status_code == 404
    for path in (
        f"/api/v1/actions/{action.pk}/",
        f"/api/v1/tools/{action.tool_id}/",
        "/api/v1/projects/support/",
    ):
        assert client.get(path).status_code == 404, path
    standing_in.end_stand_in(acting(away.rita), row=away.row)
    assert client.get(f"/api/v1/approvals/{action.request_id}/").status_code == 404
    assert client.get(f"/inbox/{action.request_id}/").status_code == 404


@pytest.mark.any_engine
def test_letters_go_to_the_stand_in_too(away: SimpleNamespace, settings: Any, mailoutbox: Any) -> None:
    settings.APPROVAL_CHANNELS = {"mail": "llmops.approvals.telling.by_mail"}
    for one in (away.rita, away.charlie, away.bob):
        one.email = f"{one.username}@example.com"
        one.save()
    proposed(away.agent, away.support)
    assert telling.tell_of_what_waits() == 1
    assert sorted(address for letter in mailoutbox for address in letter.to) == [
        "charlie@example.com",
        "rita@example.com",
    ]


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("who", "person_", "stand_in", "known", "error"),
    [
        ("bob", "rita", "bob", {}, PermissionDenied),
        ("rita", "rita", "rita", {}, InvalidRequest),
        ("rita", "rita", "nobody", {}, InvalidRequest),
        ("rita", "rita", "dan", {}, InvalidRequest),
        ("dan", "dan", "rita", {}, InvalidRequest),
        ("rita", "rita", "bob", {}, Conflict),
        ("bob", "bob", "rita", {"ends_at": timezone.now() - timedelta(days=1)}, InvalidRequest),
        ("bob", "bob", "rita", {"ends_at": timezone.now() + timedelta(days=400)}, InvalidRequest),
        ("bob", "bob", "rita", {"reason": "x" * 301}, InvalidRequest),
        ("bob", "bob", "rita", {"reason": "a\0b"}, InvalidRequest),
        ("command", "bob", "rita", {}, PermissionDenied),
        ("agent", "bob", "rita", {}, PermissionDenied),
    ],
)  # fmt: skip
@pytest.mark.any_engine
def test_who_names_whom(
    away: SimpleNamespace, who: str, person_: str, stand_in: str, known: Any, error: Any
) -> None:
    actor = {"command": COMMAND, "agent": away.agent}.get(who) or getattr(away, who)
    with no_event(), pytest.raises(error):
        named(actor, person_, stand_in, **known)
    assert StandIn.objects.count() == 1


@pytest.mark.any_engine
def test_whether_there_is_an_account_is_told_to_who_may_see_people(away: SimpleNamespace) -> None:
    gone = person("gone", ("reviewer", away.support))
    type(gone).objects.filter(pk=gone.pk).update(is_active=False)

    def told(who: Any, away_: str, stand_in: str) -> tuple[str, str | None]:
        with no_event(), pytest.raises(ConsoleError) as refused:
            named(who, away_, stand_in)
        return refused.value.message, refused.value.param

    for_others = {told(away.bob, name, "charlie") for name in ("rita", "dan", "gone", "nobody")}
    assert len(for_others) == 1 and "for yourself" in for_others.pop()[0]
    unfit = {told(away.bob, "bob", name) for name in ("dan", "gone", "nobody")}
    assert len(unfit) == 1 and "nobody of this name has an inbox" in unfit.pop()[0]
    ada = person("ada", ("admin", None))
    assert "no account of this name" in told(ada, "nobody", "charlie")[0]
    assert "no account of this name" in told(ada, "ada", "nobody")[0]
    assert "dan has no inbox" in told(ada, "ada", "dan")[0]


@pytest.mark.any_engine
def test_it_is_named_and_ended_on_a_page_and_over_the_api(away: SimpleNamespace) -> None:
    bob, stranger = signed_in(away.bob), signed_in(away.carla)
    soon = (timezone.now() + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M")
    with one_event("stand_in.named"):
        assert (
            bob.post("/inbox/stand-ins/", {"what": "name", "stand_in": "rita", "ends_at": soon}).status_code
            == 302
        )
    shown = bob.get("/inbox/stand-ins/").content.decode()
    assert "rita for bob" in shown and "charlie for rita" not in shown
    assert "rita stands in for you" in bob.get("/inbox/").content.decode()
    with no_event():
        answer = bob.post("/inbox/stand-ins/", {"what": "name", "stand_in": "rita", "ends_at": "soon"})
        assert answer.status_code == 400 and "A date and a time" in answer.content.decode()
    row = StandIn.objects.get(person=away.bob)
    dan = signed_in(away.dan)
    with no_event():
        assert stranger.post("/inbox/stand-ins/", {"what": "end", "row": str(row.pk)}).status_code == 404
        assert stranger.post(f"/api/v1/stand-ins/{row.pk}/end/").status_code == 404
        assert dan.get("/inbox/stand-ins/").status_code == 403
    with one_event("stand_in.ended"):
        assert bob.post("/inbox/stand-ins/", {"what": "end", "row": str(row.pk)}).status_code == 302
    body = {"person": "bob", "stand_in": "rita", "ends_at": (timezone.now() + timedelta(days=1)).isoformat()}
    with one_event("stand_in.named"):
        made = bob.post("/api/v1/stand-ins/", json.dumps(body), content_type="application/json")
    assert made.status_code == 201 and made.json()["stand_in"] == "rita"
    assert len(signed_in(away.alice).get("/api/v1/stand-ins/").json()["results"]) == 2
    with one_event("stand_in.ended"):
        assert (
            bob.post(
                f"/api/v1/stand-ins/{made.json()['id']}/end/", "{}", content_type="application/json"
            ).status_code
            == 200
        )


@pytest.mark.django_db(transaction=True)
def test_of_a_person_and_a_stand_in_at_once_one_counts() -> None:
    cast = make_cast()
    a_tool(cast.support)
    named(cast.rita, "rita", "charlie")
    action = proposed(a_service(cast.support), cast.support, 5000)
    found = in_threads(lambda: decide(cast.rita, action), lambda: decide(cast.charlie, action))
    assert sum(isinstance(one, ConsoleError) for one in found) == 1, found
    assert action.request is not None and action.request.decisions.count() == 1
    assert state_of(action) == Action.WAITING
