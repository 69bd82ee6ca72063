"""What a service key asked for is neither approved nor begun with while the key is not in force: revoked, expired or paused. Whoever
decides is told before."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from llmops.access import services as access
from llmops.access.models import Membership, ServiceKey
from llmops.approvals import services as approvals
from llmops.base import clock
from llmops.core.errors import Conflict, PermissionDenied
from llmops.tools import services
from llmops.tools.models import Action
from tests.cast import COMMAND, acting, bearer, issue, no_event, one_event, person, signed_in
from tests.tools.making import DONE, FUNCTIONS, a_service, a_tool, decide, proposed, state_of

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
Stops = Callable[[ServiceKey], object]


def revoked(key: ServiceKey) -> None:
    access.revoke_service_key(COMMAND, key=key)


def paused(key: ServiceKey) -> None:
    access.pause_service_key(COMMAND, key=key, reason="it loops")


def expired(key: ServiceKey) -> None:
    ServiceKey.objects.filter(pk=key.pk).update(expires_at=clock.database_now())


def archived(key: ServiceKey) -> None:
    key.project.__class__.objects.filter(pk=key.project_id).update(archived_at=timezone.now())


WAYS = pytest.mark.parametrize(
    ("stops", "said"),
    [
        (revoked, "The service key agent was revoked."),
        (paused, "The service key agent is paused: it loops."),
        (expired, "The service key agent has expired."),
        (archived, "is archived."),
    ],
)


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    settings.TOOL_FUNCTIONS = FUNCTIONS
    DONE.clear()


@pytest.fixture
def world(cast: SimpleNamespace) -> SimpleNamespace:
    cast.tool = a_tool(cast.support)
    cast.agent = a_service(cast.support)
    cast.key = ServiceKey.objects.get(pk=cast.agent.identifier)
    return cast


@WAYS
def test_it_is_not_approved_and_may_be_rejected(world: SimpleNamespace, stops: Stops, said: str) -> None:
    action = proposed(world.agent, world.support)
    stops(world.key)
    with no_event(), pytest.raises(Conflict, match=said):
        decide(world.rita, action)
    assert state_of(action) == Action.WAITING
    with one_event("tool.action_rejected"):
        decide(world.rita, action, approves=False)
    assert DONE == []


@WAYS
def test_what_was_approved_before_is_not_begun_with(world: SimpleNamespace, stops: Stops, said: str) -> None:
    action = proposed(world.agent, world.support)
    decide(world.rita, action)
    stops(world.key)
    with one_event("tool.action_refused"):
        assert services.execute(action.pk) == Action.FAILED
    action.refresh_from_db()
    assert action.message.startswith("Nothing was run.") and said in action.message
    assert (action.claimed_at, DONE) == (None, [])


def test_nor_is_what_nobody_need_agree_to(world: SimpleNamespace) -> None:
    action = proposed(world.agent, world.support, 5)
    assert action.state == Action.APPROVED
    paused(world.key)
    assert services.execute(action.pk) == Action.FAILED and DONE == []


def test_a_key_that_is_resumed_is_in_force_again(world: SimpleNamespace) -> None:
    action = proposed(world.agent, world.support)
    paused(world.key)
    with pytest.raises(Conflict, match="once somebody has resumed the key"):
        decide(world.rita, action)
    access.resume_service_key(COMMAND, key=world.key)
    decide(world.rita, action)
    assert services.execute(action.pk) == Action.SUCCEEDED and len(DONE) == 1


def test_who_asked_and_lost_the_role_has_nothing_begun_with(world: SimpleNamespace) -> None:
    action = proposed(acting(world.alice), world.support)
    decide(world.rita, action)
    Membership.objects.filter(user=world.alice).delete()
    assert services.execute(action.pk) == Action.FAILED
    action.refresh_from_db()
    assert "may not propose actions in this project any more" in action.message and DONE == []


def test_whoever_decides_is_told_before(world: SimpleNamespace) -> None:
    action, other = (
        proposed(world.agent, world.support),
        proposed(a_service(world.support, name="other"), world.support),
    )
    rita = signed_in(world.rita)
    address = f"/inbox/{action.request_id}/"
    before = rita.get(address).content.decode()
    assert 'value="approve"' in before and "is paused" not in before
    marker = rita.get(f"{address}live/").json()["marker"]
    paused(world.key)
    page = rita.get(address).content.decode()
    assert "The service key agent is paused: it loops. Nothing is approved" in page
    assert 'value="approve"' not in page and 'value="reject"' in page
    live = rita.get(f"{address}live/", {"marker": marker})
    assert live.status_code == 200 and "is paused: it loops" in live.json()["parts"]["standing"]
    listed = rita.get("/inbox/").content.decode()
    assert listed.count("its key is not in force") == 1
    assert 'value="approve"' in rita.get(f"/inbox/{other.request_id}/").content.decode()
    sent = {
        "request": str(action.request_id),
        "what": "approve",
        f"seen_{action.request_id}": action.request.digest,
    }
    refused = rita.post("/inbox/decide/", sent)
    assert refused.status_code == 409 and "is paused: it loops" in refused.content.decode()


def test_a_key_that_is_paused_proposes_and_redeems_nothing(world: SimpleNamespace) -> None:
    a_tool(world.support, "own", execution="service", executor="", settings={})
    waits = proposed(world.agent, world.support, 5, tool="own")
    paused(world.key)
    with no_event(), pytest.raises(PermissionDenied, match="is paused: it loops"):
        proposed(world.agent, world.support)
    with no_event(), pytest.raises(PermissionDenied, match="is paused: it loops"):
        services.redeem(world.agent, action=waits, token=services.token_of(waits))
    assert state_of(waits) == Action.APPROVED


def test_over_http_the_refusal_says_why(world: SimpleNamespace) -> None:
    issued = issue(world.support, "actions", name="caller")
    paused(issued.key)
    sent = {"tool": "refund", "arguments": {"amount": 5, "customer": "Ada"}}
    answer = bearer(issued.secret).post("/api/v1/actions/", sent, content_type="application/json")
    assert answer.status_code == 403 and "caller is paused: it loops" in answer.json()["error"]["message"]


def test_other_kinds_of_requests_are_held_alike(world: SimpleNamespace, settings: Any) -> None:
    """An act that is no call of a tool, asked for with a key."""
    settings.APPROVAL_KINDS = {**settings.APPROVAL_KINDS, "thing.switch": "tests.approvals.acts.THING"}
    made = approvals.ask(
        world.agent, kind="thing.switch", title="Act", content={"what": "on"}, object_type="test", object_id=1,
        object_name="n", project_id=world.support.pk, reason="so", required=1,
    )  # fmt: skip
    paused(world.key)
    ada = acting(person("ada", ("admin", None)))
    with no_event(), pytest.raises(Conflict, match="is paused: it loops"):
        approvals.decide(ada, request_id=made.pk, approves=True, seen=made.digest)
