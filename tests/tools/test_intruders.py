"""Whoever means no good and has a key, a role or a tool of their own: nothing stands still, nothing is told to whom it is not for, and
what was agreed to is what was asked for."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from llmops.access.services import revoke_service_key
from llmops.base.requests import user_actor
from llmops.core.errors import Conflict, InvalidRequest, PermissionDenied
from llmops.tools import services
from llmops.tools.api import actions as actions_api
from llmops.tools.models import Action
from llmops.tools.services import executing
from tests.cast import COMMAND, bearer, issue, no_event, one_event, signed_in
from tests.tools.making import DONE, FUNCTIONS, a_service, a_tool, decide, proposed, state_of
from tests.tools.test_mcp import call, told_by
from tests.tools.test_mcp import post as mcp

pytestmark = [pytest.mark.django_db, pytest.mark.any_engine]
URL = "/api/v1/actions/"
ASKED = {"tool": "refund", "arguments": {"amount": 500, "customer": "Ada"}}
BY_SERVICE = {"execution": "service", "executor": "", "settings": {}}


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    DONE.clear()
    settings.TOOL_FUNCTIONS = FUNCTIONS


def post(client: Any, path: str, body: Any, **headers: str) -> Any:
    return client.post(path, body, content_type="application/json", headers=headers)


def twice_over(depth: int) -> dict[str, Any]:
    """A schema that refers twice to what refers twice to the next: two to the power of ``depth`` checks of one value."""
    steps = {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(depth)}
    return {"type": "object", "$defs": {**steps, f"s{depth}": {"type": "object"}}, "$ref": "#/$defs/s0"}


TREE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "parts": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name"],
}


def test_a_schema_that_multiplies_itself_holds_nothing_up(cast: SimpleNamespace) -> None:
    """Whoever checks arguments cannot be interrupted while it does: sixty steps would take it longer than anything lasts."""
    plain = {"risk": "destructive", "rules": [], "says": ""}
    a_tool(cast.support, "endless", parameters=twice_over(60), **plain)
    a_tool(cast.support, "deep", parameters={**TREE, "properties": {"in": {"anyOf": [{"$ref": "#"}] * 2}}, "required": []}, **plain)  # fmt: skip
    a_tool(cast.support, "tree", parameters=TREE, **plain)
    agent = a_service(cast.support)
    nested: dict[str, Any] = {}
    for _ in range(28):
        nested = {"in": nested}
    for tool, arguments in (("endless", {}), ("deep", nested)):
        with no_event(), pytest.raises(InvalidRequest, match="multiply") as refused:
            proposed(agent, cast.support, tool=tool, arguments=arguments)
        assert refused.value.param == "arguments"
    whole = {"name": "a", "parts": [{"name": "b", "parts": [{"name": "c"}] * 20}] * 20}
    assert proposed(agent, cast.support, tool="tree", arguments=whole).state == Action.WAITING
    with pytest.raises(InvalidRequest, match="required"):
        proposed(agent, cast.support, tool="tree", arguments={"name": "a", "parts": [{}]})


def test_a_key_that_comes_again_on_behalf_of_another_is_no_repetition(cast: SimpleNamespace) -> None:
    """Else whoever may not approve it would be whom the first request named, and not whom the second did."""
    a_tool(cast.support)
    client = bearer(issue(cast.support, "actions", name="agent").secret)
    first = post(client, URL, {**ASKED, "on_behalf_of": "bob"}, **{"idempotency-key": "t1"})
    assert first.status_code == 201
    for other in ({}, {"on_behalf_of": "rita"}, {"on_behalf_of": "bob", "run": "r"}):
        with no_event():
            refused = post(client, URL, {**ASKED, **other}, **{"idempotency-key": "t1"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (409, "Idempotency-Key"), other
    again = post(client, URL, {**ASKED, "on_behalf_of": "bob"}, **{"idempotency-key": "t1"})
    assert again.json()["id"] == first.json()["id"] and Action.objects.count() == 1


def test_the_same_idempotency_key_elsewhere_is_another(cast: SimpleNamespace) -> None:
    for project in (cast.support, cast.search):
        a_tool(project)
    alice = signed_in(cast.alice)
    keys = [bearer(issue(cast.support, "actions", name=name).secret) for name in ("one", "two")]
    made = [
        post(client, URL, {**ASKED, **more}, **{"idempotency-key": "t1"}).json()
        for client, more in ((alice, {"project": "support"}), (alice, {"project": "search"}), *((key, {}) for key in keys))
    ]  # fmt: skip
    assert len({one["id"] for one in made}) == 4
    assert [one["project"] for one in made] == ["support", "search", "support", "support"]


def test_what_a_person_found_out_stands_against_a_late_report(cast: SimpleNamespace) -> None:
    a_tool(cast.support, **BY_SERVICE)
    agent = a_service(cast.support)
    action = proposed(agent, cast.support, 50)
    claimed, claim = services.redeem(agent, action=action, token=services.token_of(action))
    services.settle_crashed(timezone.now() + timedelta(hours=1))
    # Read a moment before somebody decides, written a moment after.
    stale = Action.objects.get(pk=claimed.pk)
    services.resolve(
        user_actor(cast.rita), action=Action.objects.get(pk=claimed.pk), happened=False, reason="looked"
    )
    with no_event(), pytest.raises(Conflict, match="meanwhile"):
        services.report(agent, action=stale, claim_id=claim, succeeded=True)
    assert state_of(claimed) == Action.FAILED


def test_a_token_ends_with_what_it_was_given_for(
    cast: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = a_tool(cast.support, **BY_SERVICE)
    agent = a_service(cast.support)
    late, taken, paused, asked_anew = (proposed(agent, cast.support) for _ in range(4))
    for action in (late, taken, paused):
        decide(cast.rita, action)
    new = services.revise(
        user_actor(cast.alice), action=asked_anew, arguments={"amount": 400, "customer": "A"}, reason="less"
    )
    decide(cast.rita, new)
    with monkeypatch.context() as a_day_later:
        a_day_later.setattr(executing, "START_WITHIN", timedelta(0))
        with one_event("tool.action_expired"), pytest.raises(Conflict, match="in time"):
            services.redeem(agent, action=late, token=services.token_of(late))
    with no_event(), pytest.raises(Conflict, match="over: ran out"):
        services.redeem(agent, action=late, token=services.token_of(late))
    services.withdraw(agent, action=Action.objects.get(pk=taken.pk))
    with no_event(), pytest.raises(Conflict, match="over"):
        services.redeem(agent, action=taken, token=services.token_of(taken))
    with no_event(), pytest.raises(Conflict, match="over: replaced"):
        services.redeem(agent, action=asked_anew, token=services.token_of(asked_anew))
    # The token of what was replaced is none for what came in its place.
    with no_event(), pytest.raises(PermissionDenied):
        services.redeem(agent, action=new, token=services.token_of(asked_anew))
    services.pause_tool(COMMAND, tool=tool)
    with no_event(), pytest.raises(Conflict, match="paused"):
        services.redeem(agent, action=paused, token=services.token_of(paused))


def test_who_loses_the_key_while_waiting_is_told_nothing(
    cast: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_tool(cast.support, **BY_SERVICE)
    key = issue(cast.support, "actions", name="agent")
    client = bearer(key.secret)
    here = post(client, URL, ASKED)["Location"]
    action = Action.objects.select_related("request").get()

    def meanwhile(row: Action, seconds: float) -> None:
        decide(cast.rita, action)
        revoke_service_key(COMMAND, key=key.key)

    monkeypatch.setattr(actions_api, "_wait", meanwhile)
    answer = client.get(f"{here}?wait=25")
    told = answer.content.decode()
    assert answer.status_code == 403 and "Ada" not in told and services.token_of(action) not in told


def test_what_another_key_wrote_under_a_run_is_no_evidence(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    a_tool(cast.support, "look", risk="read", rules=[], says="Looked up {customer}")
    agent, intruder = a_service(cast.support), a_service(cast.support, name="intruder")
    looks = {"arguments": {"amount": 1, "customer": "Eve"}, "run": "run-1", "tool": "look"}
    mine = proposed(agent, cast.support, **{**looks, "arguments": {"amount": 1, "customer": "Ada"}})
    theirs = proposed(intruder, cast.support, **looks)
    # Rejected under the same run: no earlier attempt of this one either.
    lure = proposed(intruder, cast.support, 600, run="run-1")
    decide(cast.rita, lure, approves=False, reason="no such customer")
    action = proposed(agent, cast.support, 500, run="run-1")
    page = signed_in(cast.rita).get(f"/inbox/{action.request_id}/").content.decode()
    assert mine.says in page and theirs.says not in page
    assert "an earlier attempt of this run" not in page and "no such customer" not in page
    # What a reviewer put in its place is shown what the first was shown.
    new = services.revise(
        user_actor(cast.alice), action=action, arguments={"amount": 400, "customer": "Ada"}, reason="less"
    )
    page = signed_in(cast.rita).get(f"/inbox/{new.request_id}/").content.decode()
    assert mine.says in page and theirs.says not in page


def test_many_at_once_are_all_ones_own_or_none(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    a_tool(cast.search)
    agent = a_service(cast.support)
    own = [proposed(agent, cast.support, 500 + n) for n in range(2)]
    foreign = proposed(a_service(cast.search), cast.search)
    rita = signed_in(cast.rita)

    def together(*actions: Action, **more: Any) -> Any:
        seen = {f"seen_{one.request_id}": one.request.digest for one in actions if one.request}
        chosen = [str(one.request_id) for one in actions]
        body = {"what": "approve", "together": "1", "reason": "so", "request": chosen, **seen, **more}
        return rita.post("/inbox/decide/", body)

    with no_event():
        assert together(*own, foreign).status_code == 404
        assert together(*own, what="edit").status_code == 400
        refused = together(*own, what="reject", reason=" ")
        assert refused.status_code == 400 and b"Say why you reject them" in refused.content
        crossed = {f"seen_{own[0].request_id}": "0" * 64}
        assert together(own[0], **crossed).status_code == 409
    assert [state_of(one) for one in (*own, foreign)] == ["waiting"] * 3


def test_a_page_of_another_site_decides_nothing(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    action = proposed(a_service(cast.support), cast.support)
    assert action.request is not None
    rita = signed_in(cast.rita, enforce_csrf_checks=True)
    form = {
        "what": "approve",
        "request": str(action.request_id),
        f"seen_{action.request_id}": action.request.digest,
    }
    with no_event():
        assert rita.post("/inbox/decide/", form).status_code == 403
        body = {"digest": action.request.digest, "reason": "so"}
        for path in ("approve", "reject", "cancel"):
            answer = post(rita, f"/api/v1/approvals/{action.request_id}/{path}/", body)
            assert answer.status_code == 403, answer.content
        assert rita.get("/inbox/decide/", form).status_code == 302
    assert state_of(action) == Action.WAITING


def test_the_session_of_another_client_is_worth_nothing(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    a_tool(cast.search)
    keys = [
        issue(cast.support, "actions", name="one").secret,
        issue(cast.support, "actions", name="two").secret,
        issue(cast.search, "actions", name="three").secret,
    ]
    big, session = {"amount": 500, "customer": "Ada"}, "a" * 32
    asked = [told_by(mcp(key, call(big, "1", wait=0), mcp_session_id=session)) for key in keys]
    assert len({one["action"] for one in asked}) == 3
    for key in keys[1:]:
        late = mcp(
            key, call({"action": asked[0]["action"]}, 2, name="wait_for_action"), mcp_session_id=session
        )
        told = late.json()["result"]
        assert told["isError"] and "none of this id" in told["content"][0]["text"]
    # The same call under the same id in the same session, on somebody's behalf: another call, and refused as that.
    behalf = {"llmops/on-behalf-of": "rita", "llmops/wait": 0}
    again = mcp(keys[0], call(big, "1", **behalf), mcp_session_id=session).json()["result"]
    assert again["isError"] and "Idempotency-Key" in again["content"][0]["text"]
