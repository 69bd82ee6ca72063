"""``/api/v1/actions/``: a service proposes, waits, and carries out itself where the tool says so."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections

from llmops.tools import services
from llmops.tools.models import Action
from tests.cast import bearer, in_threads, issue, make_cast, no_event, signed_in
from tests.tools.making import DONE, FUNCTIONS, REFUND, a_service, a_tool, decide, proposed

URL = "/api/v1/actions/"


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    DONE.clear()
    settings.TOOL_FUNCTIONS = FUNCTIONS


def post(client: Any, path: str, body: Any, **headers: str) -> Any:
    return client.post(path, body, content_type="application/json", headers=headers)


def test_a_service_proposes_and_reads_what_became_of_it(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    client = bearer(issue(cast.support, "actions", name="agent").secret)
    body = {
        "tool": "refund",
        "arguments": '{"amount": 500, "customer": "Ada"}',
        "reason": "broken",
        "run": "run-7",
    }
    made = post(client, URL, body, **{"idempotency-key": "t1"})
    assert made.status_code == 201 and made["Location"] == f"{URL}{made.json()['id']}/"
    told = made.json()
    assert (
        told["state"] == "waiting"
        and told["approvals"] == {"given": 0, "needed": 1}
        and told["risk"] == "destructive"
    )
    assert (
        told["arguments"] == {"amount": 500, "customer": "Ada"} and told["expires_at"] and "token" not in told
    )
    assert post(client, URL, body, **{"idempotency-key": "t1"}).json()["id"] == told["id"]
    action = Action.objects.select_related("request").get(pk=told["id"])
    decide(cast.rita, action)
    services.execute(action.pk)
    found = client.get(made["Location"] + "?wait=5").json()
    assert found["state"] == "succeeded" and found["result"] == {"refunded": 500} and len(DONE) == 1


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"tool": "refund", "arguments": "{"}, 400, "arguments"),
        ({"tool": "refund", "arguments": '{"amount": 1, "amount": 5000, "customer": "A"}'}, 400, "arguments"),
        ({"tool": "refund", "arguments": '{"amount": NaN, "customer": "A"}'}, 400, "arguments"),
        ({"tool": "refund", "arguments": '{"amount": 1e999, "customer": "A"}'}, 400, "arguments"),
        ({"tool": "refund", "arguments": {"amount": 0, "customer": "A"}}, 400, "arguments.amount"),
        ({"tool": "nothing", "arguments": {}}, 404, "tool"),
        ({"tool": "refund"}, 400, "arguments"),
        ({"tool": "refund", "arguments": {}, "surprise": 1}, 400, "surprise"),
        ({"tool": "refund", "arguments": {"amount": 5, "customer": "A"}, "on_behalf_of": "no\nbody"}, 400, "on_behalf_of"),
        ({"tool": "refund", "arguments": {"amount": 5, "customer": "A"}, "project": "search"}, 400, "project"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(cast: SimpleNamespace, body: Any, status: int, param: str) -> None:
    a_tool(cast.support)
    client = bearer(issue(cast.support, "actions").secret)
    answer = post(client, URL, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.content
    assert not Action.objects.exists()


@pytest.mark.any_engine
@pytest.mark.parametrize("wait", ["-1", "soon", "nan", "1e9"])
def test_a_wait_that_is_none_is_refused(cast: SimpleNamespace, wait: str) -> None:
    a_tool(cast.support)
    made = post(
        signed_in(cast.bob),
        URL,
        {"project": "support", "tool": "refund", "arguments": {"amount": 5, "customer": "A"}},
    )
    assert signed_in(cast.bob).get(f"{made['Location']}?wait={wait}").status_code == 400


def test_another_projects_actions_are_not_there(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    a_tool(cast.search)
    theirs = proposed(a_service(cast.search), cast.search)
    client = bearer(issue(cast.support, "actions", "read", name="nosy").secret)
    for path, body in (
        ("", None), ("withdraw/", {}), ("redeem/", {"token": services.token_of(theirs)}), ("resolve/", {"happened": True, "reason": "x"}),
        ("report/", {"claim": str(uuid4()), "succeeded": True}),
    ):  # fmt: skip
        address = f"{URL}{theirs.pk}/{path}"
        answer = client.get(address) if body is None else post(client, address, body)
        assert answer.status_code in (403, 404) and "Ada" not in answer.content.decode(), path
    assert client.get(URL).json()["results"] == []


def test_a_token_is_redeemed_once_with_the_arguments_that_were_approved(cast: SimpleNamespace) -> None:
    a_tool(cast.support, execution="service", executor="", settings={})
    client = bearer(issue(cast.support, "actions", name="agent").secret)
    other = bearer(issue(cast.support, "actions", name="executor").secret)
    body = {"tool": "refund", "arguments": {"amount": 500, "customer": "Ada"}}
    here = post(client, URL, body)["Location"]
    action = Action.objects.select_related("request").get()
    token = services.token_of(action)
    early = post(client, here + "redeem/", {"token": token})
    assert early.status_code == 409 and "not approved yet" in early.json()["error"]["message"]
    decide(cast.rita, action)
    assert services.execute(action.pk) == "approved"
    # Whoever proposed it is told the token, and nobody else.
    assert client.get(here + "?wait=20").json()["token"] == token
    assert "token" not in other.get(here).json() and "token" not in signed_in(cast.alice).get(here).json()
    forged = ("a" if token[0] != "a" else "b") + token[1:]
    assert post(other, here + "redeem/", {"token": forged}).status_code == 403
    redeemed = post(other, here + "redeem/", {"token": token})
    assert redeemed.status_code == 200 and redeemed.json()["arguments"] == {"amount": 500, "customer": "Ada"}
    again = post(client, here + "redeem/", {"token": token})
    assert again.status_code == 409 and "once" in again.json()["error"]["message"]
    wrong = post(other, here + "report/", {"claim": str(uuid4()), "succeeded": True})
    assert wrong.status_code == 409
    report = {"claim": redeemed.json()["claim"], "succeeded": True, "result": {"refund": 9}}
    assert post(other, here + "report/", report).json()["state"] == "succeeded"
    assert post(other, here + "report/", report).status_code == 409


def test_what_was_redeemed_and_never_reported_is_unknown(cast: SimpleNamespace) -> None:
    from datetime import timedelta

    from django.utils import timezone

    a_tool(cast.support, execution="service", executor="", settings={})
    agent = a_service(cast.support)
    action = proposed(agent, cast.support, 50)
    claimed, claim_id = services.redeem(agent, action=action, token=services.token_of(action))
    services.settle_crashed(timezone.now() + timedelta(hours=1))
    claimed.refresh_from_db()
    assert claimed.state == Action.UNKNOWN
    # A late report is better than none, as long as no person has decided.
    assert services.report(agent, action=claimed, claim_id=claim_id, succeeded=True).state == Action.SUCCEEDED


def test_ten_who_redeem_at_once(transactional_db: None) -> None:
    cast = make_cast()
    a_tool(cast.support, execution="service", executor="", settings={})
    agent = a_service(cast.support)
    action = proposed(agent, cast.support, 50)
    token = services.token_of(action)
    results = in_threads(*[partial(services.redeem, agent, action=action, token=token) for _ in range(10)])
    assert len([one for one in results if isinstance(one, tuple)]) == 1, results


def test_who_waits_hears_of_the_end(transactional_db: None) -> None:
    cast = make_cast()
    a_tool(cast.support)
    client = bearer(issue(cast.support, "actions", name="agent").secret)
    here = post(client, URL, {"tool": "refund", "arguments": {"amount": 500, "customer": "Ada"}})["Location"]
    action = Action.objects.select_related("request").get()
    asked, found = threading.Event(), list[Any]()

    def wait() -> None:
        asked.set()
        try:
            found.append(client.get(here + "?wait=25").json())
        finally:
            connections.close_all()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert asked.wait(10)
    decide(cast.rita, action, approves=False, reason="no")
    waiting.join(24)
    assert not waiting.is_alive() and found[0]["state"] == "rejected"


@pytest.mark.any_engine
def test_no_secret_of_a_tool_comes_out(cast: SimpleNamespace) -> None:
    tool = a_tool(cast.support, executor="webhook", settings={"url": "https://tools.example.com/"})
    client = signed_in(cast.alice)
    secret = post(client, f"/api/v1/tools/{tool.pk}/rotate-secret/", {}).json()["secret"]
    assert secret.startswith("whsec_")
    tool.refresh_from_db()
    assert secret not in tool.sealed
    from llmops.audit.models import Event

    seen = [client.get(f"/api/v1/tools/{tool.pk}/"), client.get(f"/admin/tools/tool/{tool.pk}/change/")]
    assert all(secret not in one.content.decode() and tool.sealed not in one.content.decode() for one in seen)
    assert not [one for one in Event.objects.all() if secret in f"{one.before}{one.after}{one.reason}"]


def test_only_who_may_point_providers_inside_lets_a_tool_in(cast: SimpleNamespace) -> None:
    """What answers at a webhook is shown to its operator: for one of a project the console's own network stays shut."""
    inside = {"url": "http://10.0.0.7:9200/", "allow_private_network": True}
    hook = {**REFUND, "executor": "webhook", "settings": inside}
    body = {"slug": "hook", "project": "support", "definition": hook}
    bob, alice = signed_in(cast.bob), signed_in(cast.alice)
    service = bearer(issue(cast.support, "configure", "read", name="deploy").secret)
    for who in (bob, service):
        with no_event():
            refused = post(who, "/api/v1/tools/", body)
        assert refused.status_code == 403 and "private networks" in refused.json()["error"]["message"]
    made = post(alice, "/api/v1/tools/", body)
    assert made.status_code == 201
    versions = f"/api/v1/tools/{made.json()['id']}/versions/"
    # What she let in stays in; another address of the inside does not come with it.
    assert post(bob, versions, {"definition": {**hook, "timeout_s": 7}}).status_code == 201
    moved = {**hook, "settings": {**inside, "url": "http://10.0.0.8:9200/"}}
    assert post(bob, versions, {"definition": moved}).status_code == 403
    outside = {**hook, "settings": {"url": "https://tools.example.com/refunds"}}
    assert post(bob, versions, {"definition": outside}).status_code == 201
    assert post(bob, versions, {"definition": hook}).status_code == 403


@pytest.mark.parametrize(
    "changed",
    [
        {"risk": "read"},
        {"rules": REFUND["rules"][:1]},
        {"rules": [REFUND["rules"][0], {"when": "amount > 9999", "risk": "irreversible"}]},
        {"rules": [REFUND["rules"][0], {**REFUND["rules"][1], "risk": "destructive"}]},
        {"approvals": {"irreversible": 1}},
        {"approvals": {"write": 0}},
        {"dry_run": True},
    ],
)
@pytest.mark.any_engine
def test_who_defines_a_tool_does_not_do_without_those_who_must_agree(
    cast: SimpleNamespace, changed: Any
) -> None:
    strict = {**REFUND, "approvals": {"write": 1}}
    tool = a_tool(cast.support, **{"approvals": strict["approvals"]})
    bob, alice = signed_in(cast.bob), signed_in(cast.alice)
    versions = f"/api/v1/tools/{tool.pk}/versions/"
    looser = {"definition": {**strict, **changed}}
    with no_event():
        refused = post(bob, versions, looser)
        assert refused.status_code == 403 and "less agreement" in refused.json()["error"]["message"]
        # Nor by another name for the same function.
        other = {"slug": "refund2", "project": "support", **looser}
        assert post(bob, "/api/v1/tools/", other).status_code == 403
    stricter = {**strict, "risk": "destructive", "rules": REFUND["rules"][1:]}
    assert post(bob, versions, {"definition": stricter}).status_code == 201
    assert post(alice, versions, looser).status_code == 201


ELSEWHERE = "https://tools.example.com/refunds"


@pytest.mark.parametrize(
    "url",
    [
        ELSEWHERE,
        "https://TOOLS.example.com.:443/refunds/",
        "https://tools.example.com//x/../%72efunds?tool=other",
        "https://tools.example.com/Refunds",
    ],
)
@pytest.mark.any_engine
def test_a_second_tool_for_the_same_address_asks_for_as_much_agreement(
    cast: SimpleNamespace, url: str
) -> None:
    hook = {**REFUND, "executor": "webhook", "settings": {"url": ELSEWHERE}}
    tool = a_tool(cast.support, **hook)
    bob, alice = signed_in(cast.bob), signed_in(cast.alice)
    # It points elsewhere by now; the service that was behind it is still there.
    moved = {**hook, "settings": {"url": "https://tools.example.com/v2"}}
    assert post(bob, f"/api/v1/tools/{tool.pk}/versions/", {"definition": moved}).status_code == 201
    less = {**hook, "rules": [], "settings": {"url": url}}
    body = {"slug": "quiet", "project": "support", "definition": less}
    with no_event():
        refused = post(bob, "/api/v1/tools/", body)
        assert refused.status_code == 403
        assert "the tool refund with the same address" in refused.json()["error"]["message"]
    elsewhere = {**less, "settings": {"url": "https://tools.example.com/search"}}
    assert post(bob, "/api/v1/tools/", {**body, "slug": "search", "definition": elsewhere}).status_code == 201
    assert post(bob, "/api/v1/tools/", {**body, "slug": "strict", "definition": hook}).status_code == 201
    made = post(alice, "/api/v1/tools/", body)
    assert made.status_code == 201
    # What somebody who may agreed to is not asked for anew with every change.
    again = {"definition": {**less, "timeout_s": 7}}
    assert post(bob, f"/api/v1/tools/{made.json()['id']}/versions/", again).status_code == 201
