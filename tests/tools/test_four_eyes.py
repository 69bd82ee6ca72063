"""Whoever holds a service key is no second person for what it asks for. And a tool that nothing can be sent to takes no calls."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from llmops.access import services as access
from llmops.access.holders import holders_of_key
from llmops.approvals.models import StandIn
from llmops.approvals.services import why_not
from llmops.approvals.standing_in import name_stand_in
from llmops.base.clock import database_now
from llmops.base.requests import user_actor
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.tools import services
from llmops.tools.executors.webhook import new_secret
from tests.cast import COMMAND, bearer, issue, no_event, one_event, person, signed_in
from tests.tools.making import FUNCTIONS, REFUND, a_service, a_tool, decide, proposed, state_of

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
HOOK = {"executor": "webhook", "settings": {"url": "https://tools.example.com/refunds"}}


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    settings.TOOL_FUNCTIONS = FUNCTIONS


def acts(key: Any) -> Actor:
    return Actor(kind="service_key", identifier=str(key.pk), name=f"{key.name} ({key.prefix})")


def made_by(who: Any, project: Any, *scopes: str, name: str = "agent") -> Any:
    actor = who if isinstance(who, Actor) else user_actor(who)
    return access.create_service_key(actor, project=project, name=name, scopes=scopes or ("actions",)).key


@pytest.fixture
def world(cast: SimpleNamespace) -> SimpleNamespace:
    """Ada and Ben may do everything, Rita decides; Ada has made a key."""
    cast.ada, cast.ben = (person(name, ("admin", None)) for name in ("ada", "ben"))
    cast.tool = a_tool(cast.support)
    cast.key = made_by(cast.ada, cast.support)
    return cast


def test_who_made_the_key_is_no_second_person(world: SimpleNamespace) -> None:
    action = proposed(acts(world.key), world.support)
    with no_event(), pytest.raises(PermissionDenied, match="shown the secret of agent"):
        decide(world.ada, action)
    with no_event(), pytest.raises(PermissionDenied, match="shown the secret"):
        decide(world.ada, action, approves=False)
    page = signed_in(world.ada).get(f"/inbox/{action.request_id}/").content.decode()
    assert "You were shown the secret of agent" in page and "Approve</button>" not in page
    assert why_not(user_actor(world.ben), action.request) == ""
    decide(world.ben, action)
    assert state_of(action) == "approved"


def test_who_renewed_it_is_none_either_and_who_held_it_before_is_again(world: SimpleNamespace) -> None:
    hour = timedelta(hours=1)
    before = proposed(acts(world.key), world.support, 500)
    access.rotate_service_key(user_actor(world.ben), key=world.key, grace=hour)
    within = proposed(acts(world.key), world.support, 600)
    # Both secrets work for an hour; afterwards Ben's alone does.
    both = {str(world.ada.pk), str(world.ben.pk)}
    assert holders_of_key(str(world.key.pk), within.request.created_at) == both
    assert holders_of_key(str(world.key.pk), before.request.created_at) == {str(world.ada.pk)}
    assert holders_of_key(str(world.key.pk), database_now() + 2 * hour) == {str(world.ben.pk)}
    for who in (world.ada, world.ben):
        with pytest.raises(PermissionDenied, match="shown the secret"):
            decide(who, within)
    # Somebody else's secret afterwards frees nobody of what the one before asked for.
    with pytest.raises(PermissionDenied, match="shown the secret"):
        decide(world.ada, before)
    decide(world.ben, before)
    decide(world.rita, within)
    assert [state_of(one) for one in (before, within)] == ["approved", "approved"]


def test_a_key_that_a_key_made_is_held_by_who_holds_that_one(world: SimpleNamespace) -> None:
    deploy = made_by(world.ada, world.support, "configure", "keys", "actions", name="deploy")
    second = made_by(acts(deploy), world.support, name="second")
    third = made_by(COMMAND, world.support, name="third")
    action, other = (proposed(acts(key), world.support) for key in (second, third))
    with pytest.raises(PermissionDenied, match="shown the secret of second"):
        decide(world.ada, action)
    # What came from outside was shown to no account.
    decide(world.ada, other)
    assert [state_of(one) for one in (action, other)] == ["waiting", "approved"]


def test_who_stands_in_for_the_holder_is_none_either(world: SimpleNamespace) -> None:
    away = person("away", ("admin", None))
    key = made_by(away, world.support, name="theirs")
    carla = person("stand_in", ("finance", None))
    name_stand_in(
        user_actor(away), person="away", stand_in="stand_in", ends_at=database_now() + timedelta(days=1)
    )
    assert StandIn.objects.count() == 1
    action, other = (
        proposed(acts(key), world.support),
        proposed(a_service(world.support, name="x"), world.support),
    )
    with pytest.raises(PermissionDenied, match="stand in for away"):
        decide(carla, action)
    decide(carla, other)
    assert [state_of(one) for one in (action, other)] == ["waiting", "approved"]


# A tool that nothing can be sent to ---------------------------------------------------------------------------------------


def test_a_tool_without_a_secret_takes_no_calls(cast: SimpleNamespace) -> None:
    tool = a_tool(cast.support, "hook", signed=False, **HOOK)
    secret = issue(cast.support, "actions", "runs", name="caller").secret
    body = {"tool": "hook", "arguments": {"amount": 500, "customer": "Ada"}}
    with no_event():
        refused = bearer(secret).post("/api/v1/actions/", body, content_type="application/json")
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (409, "tool_not_signed", "tool")
    assert "New signing secret" in error["message"]
    services.rotate_secret(COMMAND, tool=tool)
    made = bearer(secret).post("/api/v1/actions/", body, content_type="application/json")
    assert made.status_code == 201 and made.json()["state"] == "waiting"


def test_a_version_that_could_not_be_called_is_refused(cast: SimpleNamespace) -> None:
    tool = a_tool(cast.support)
    with no_event(), pytest.raises(InvalidRequest, match="rotate-secret") as refused:
        services.add_version(COMMAND, tool=tool, definition={**REFUND, **HOOK})
    assert refused.value.param == "definition.executor"
    with one_event("tool.signing_rotated"):
        assert services.rotate_secret(COMMAND, tool=tool)[:6] == new_secret()[:6]
    services.add_version(COMMAND, tool=tool, definition={**REFUND, **HOOK})
    assert state_of(proposed(a_service(cast.support), cast.support)) == "waiting"
    with pytest.raises(Conflict, match="no secret"):
        a_tool(
            cast.support, "bare", signed=False, **{**HOOK, "settings": {"url": "https://other.example.com/"}}
        )
        proposed(a_service(cast.support, name="y"), cast.support, tool="bare")
