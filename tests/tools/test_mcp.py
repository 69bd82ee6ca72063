"""``/mcp/``: the official client of the Model Context Protocol, and messages by hand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIHandler
from django.db import connections
from django.test import Client
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from llmops.access.models import ServiceKey
from llmops.access.services import pause_service_key, revoke_service_key
from llmops.tools import services
from llmops.tools.mcp import view
from llmops.tools.models import Action
from tests.cast import COMMAND, acting, issue, make_cast, no_event
from tests.tools.making import DONE, FUNCTIONS, a_tool, decide, state_of

URL = "/mcp/"
SMALL = {"amount": 5, "customer": "Ada"}
BIG = {"amount": 500, "customer": "Ada"}


@pytest.fixture(autouse=True)
def functions(settings: Any) -> None:
    DONE.clear()
    settings.TOOL_FUNCTIONS = FUNCTIONS


# The official client ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(secret: str, mode: str, sent: list[bytes] | None = None) -> AsyncIterator[McpClient]:
    """``sent`` gets each piece of an answer as the server lets go of it; the client sees answers whole."""
    handler = ASGIHandler()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if sent is not None:
                sent.append(message.get("body", b""))
            await send(message)

        await handler(scope, receive, noted)

    transport = httpx2.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {secret}"}
    async with httpx2.AsyncClient(transport=transport, headers=headers, timeout=60) as http:
        way = streamable_http_client(f"http://localhost{URL}", http_client=http)
        async with McpClient(way, mode=mode, read_timeout_seconds=60) as client:
            yield client


async def in_database(work: Callable[[], Any]) -> Any:
    def done() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    return await sync_to_async(done, thread_sensitive=False)()


async def the_action(**known: Any) -> Action:
    """The one that was proposed, as soon as it is there."""
    while True:
        found = await in_database(
            lambda: Action.objects.select_related("request", "tool", "version").filter(**known).first()
        )
        if found is not None:
            return found
        await asyncio.sleep(0.02)


def works() -> threading.Event:
    """A worker: carries out what may be, until it is told to stop."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.02):
            for pk in Action.objects.filter(state=Action.APPROVED).values_list("pk", flat=True):
                services.execute(pk)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    stop.thread = thread  # type: ignore[attr-defined]
    return stop


@pytest.fixture
def worker(transactional_db: None) -> Any:
    stop = works()
    yield stop
    stop.set()
    stop.thread.join(timeout=60)  # type: ignore[attr-defined]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.django_db(transaction=True)
def test_the_official_client_lists_calls_waits_and_gets_what_was_approved(mode: str, worker: Any) -> None:
    cast = make_cast()
    a_tool(cast.support)
    a_tool(cast.support, "look", risk="read", rules=[])
    a_tool(cast.search, "secret-tool")
    secret = issue(cast.support, "actions", name="agent").secret
    told: list[str] = []
    sent: list[bytes] = []

    async def heard(amount: float, total: float | None, said: str | None) -> None:
        told.append(said or "")

    async def talk() -> None:
        async with connected(secret, mode, sent) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(listed) == {"wait_for_action", "refund", "look"}
            refund, look = listed["refund"], listed["look"]
            assert refund.input_schema["required"] == ["amount", "customer"]
            assert refund.annotations and look.annotations
            assert refund.annotations.destructive_hint and not refund.annotations.read_only_hint
            assert look.annotations.read_only_hint and not look.annotations.destructive_hint
            assert "wait until two other people agree" in (refund.description or "")

            safe = await client.call_tool("refund", SMALL)
            assert not safe.is_error and safe.structured_content["result"] == {"refunded": 5}

            waits = asyncio.create_task(client.call_tool("refund", BIG, progress_callback=heard))
            action = await the_action(risk="destructive")
            assert action.state == Action.WAITING and len(DONE) == 1
            while b"Waits for one other person" not in b"".join(sent):
                await asyncio.sleep(0.02)
            await in_database(lambda: decide(cast.rita, action))
            answer = await waits
            assert not answer.is_error and answer.structured_content["result"] == {"refunded": 500}
            assert json.loads(answer.content[0].text) == {"refunded": 500}
            assert len(DONE) == 2 and told and told[0].startswith("Waits for one other person")

            pending = await client.call_tool("refund", {**BIG, "amount": 700}, meta={"llmops/wait": 0})
            handle = pending.structured_content
            assert handle["pending"] and handle["state"] == "waiting" and not pending.is_error
            assert handle["approvals"] == {"given": 0, "needed": 1} and "/inbox/" in handle["address"]
            again = await client.call_tool("refund", {**BIG, "amount": 700}, meta={"llmops/wait": 0})
            assert again.structured_content["action"] == handle["action"]
            refused = await the_action(pk=handle["action"])
            await in_database(
                lambda: decide(cast.rita, refused, approves=False, reason="Ask the customer first")
            )
            late = await client.call_tool("wait_for_action", {"action": handle["action"]})
            assert late.is_error and "Ask the customer first" in late.content[0].text
            assert len(DONE) == 2

            wrong = await client.call_tool("refund", {"amount": -1, "customer": "Ada"})
            assert wrong.is_error and "arguments.amount" in wrong.content[0].text
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool("secret-tool", SMALL)

            key = await in_database(lambda: ServiceKey.objects.get(name="agent"))
            await in_database(lambda: revoke_service_key(COMMAND, key=key))
            with pytest.raises(MCPError):
                await client.call_tool("refund", {**SMALL, "amount": 6})
            assert len(DONE) == 2

    asyncio.run(asyncio.wait_for(talk(), 120))


# By hand ------------------------------------------------------------------------------------------------------------


def post(secret: str, body: Any, **headers: str) -> Any:
    sent = {
        "authorization": f"Bearer {secret}",
        "accept": "application/json, text/event-stream",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    data = body if isinstance(body, bytes | str) else json.dumps(body)
    return Client().post(URL, data, content_type=sent.pop("content-type", "application/json"), headers=sent)


def rpc(method: str, number: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def call(
    arguments: Any, number: Any = 1, *, name: str = "refund", wait: Any = 0, **meta: Any
) -> dict[str, Any]:
    return rpc("tools/call", number, name=name, arguments=arguments, _meta={"llmops/wait": wait, **meta})


def told_by(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["result"]["structuredContent"]
    return found


@pytest.mark.any_engine
def test_only_a_key_of_the_scope_opens_it_and_pages_of_others_do_not(
    cast: SimpleNamespace, settings: Any
) -> None:
    a_tool(cast.support)
    key = issue(cast.support, "actions", name="agent")
    body, reader = call(SMALL), issue_secret(cast, "read")
    browser = Client()
    browser.force_login(cast.alice)
    with no_event():
        assert post("nothing", body).status_code == 401
        assert "Bearer" in post("nothing", body)["WWW-Authenticate"]
        assert post(reader, body).status_code == 403
        for origin in ("https://evil.example", "null", "http://localhost.evil.example", ""):
            assert post(key.secret, body, origin=origin).status_code == 403, origin
        assert post(key.secret, body, host="evil.example").status_code == 400
        assert post(key.secret, body, content_type="text/plain").status_code == 415
        assert post(key.secret, body, accept="text/html").status_code == 406
        for method in ("get", "delete", "put"):
            answer = getattr(Client(), method)(URL, headers={"authorization": f"Bearer {key.secret}"})
            assert answer.status_code == 405 and answer["Allow"] == "POST"
        # A session of the console opens nothing here.
        assert browser.post(URL, json.dumps(body), content_type="application/json").status_code == 401
    settings.PUBLIC_URL = "https://console.example"
    assert post(key.secret, rpc("tools/list"), origin="https://console.example").status_code == 200
    pause_service_key(COMMAND, key=key.key, reason="it loops")
    with no_event():
        for sent in (body, rpc("tools/list")):
            refused = post(key.secret, sent)
            assert (
                refused.status_code == 403
                and "agent is paused: it loops. Ask" in refused.json()["error"]["message"]
            )
    revoke_service_key(COMMAND, key=key.key)
    with no_event():
        assert post(key.secret, body).status_code == 401
    assert not Action.objects.exists()


def issue_secret(cast: SimpleNamespace, *scopes: str) -> str:
    return issue(cast.support, *scopes).secret


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, -32700),
        (b"\xff", 400, -32700),
        (b'{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "ping"}', 400, -32700),
        ("[" * 50_000, 400, -32700),
        ([rpc("ping")], 400, -32600),
        ({"id": 1, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "2.0", "id": True, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "2.0", "id": None, "method": "ping"}, 400, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": []}, 400, -32602),
        (rpc("resources/list"), 200, -32601),
        (rpc("tools/list", cursor=5), 200, -32602),
        (rpc("tools/call", arguments={}), 200, -32602),
        (call({}, name="nothing"), 200, -32602),
        (call({}, name="re\0fund"), 200, -32602),
        (rpc("tools/list", cursor="a\0"), 200, -32602),
        (b'{"jsonrpc": "2.0", "id": "\\ud800", "method": "ping"}', 400, -32700),
        (call({}, name="by-service"), 200, -32602),
        (call(SMALL, wait="long"), 200, -32602),
        (rpc("tools/call", name="refund", arguments=SMALL, _meta={"llmops/reason": 5}), 200, -32602),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "' + b"x" * 300_000 + b'"}', 413, -32600),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(cast: SimpleNamespace, body: Any, status: int, code: int) -> None:
    a_tool(cast.support)
    a_tool(cast.support, "by-service", execution="service", executor="", settings={})
    secret = issue_secret(cast, "actions")
    with no_event():
        answer = post(secret, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.content
    assert answer.json()["error"]["message"]


@pytest.mark.any_engine
@pytest.mark.parametrize(
    "arguments",
    [{"amount": 0, "customer": "A"}, {"amount": 5}, [], "text", {**SMALL, "more": 1}, {"amount": 5, "customer": "x" * 70_000}],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_told_to_the_model(cast: SimpleNamespace, arguments: Any) -> None:
    a_tool(cast.support)
    secret = issue_secret(cast, "actions")
    with no_event():
        answer = post(secret, call(arguments))
    found = answer.json()["result"]
    assert found["isError"] and "arguments" in found["content"][0]["text"] and not Action.objects.exists()


@pytest.mark.any_engine
def test_what_is_paused_or_for_other_callers_is_not_offered(cast: SimpleNamespace) -> None:
    a_tool(cast.support, "for-one", callers=["agent"])
    paused = a_tool(cast.support, "resting")
    agent, other = issue(cast.support, "actions", name="agent"), issue_secret(cast, "actions")
    services.pause_tool(COMMAND, tool=paused, reason="stock taking")

    def names(secret: str) -> list[str]:
        return [tool["name"] for tool in post(secret, rpc("tools/list")).json()["result"]["tools"]]

    assert names(agent.secret) == ["wait_for_action", "for-one"] and names(other) == ["wait_for_action"]
    with no_event():
        assert post(other, call(SMALL, name="for-one")).json()["error"]["code"] == -32602
        assert "stock taking" in post(agent.secret, call(SMALL, name="resting")).content.decode()
    for number in range(101):
        services.archive_tool(
            COMMAND, tool=a_tool(cast.support, f"t{number:03}")
        ) if number == 50 else a_tool(cast.support, f"t{number:03}")
    first = post(agent.secret, rpc("tools/list")).json()["result"]
    rest = post(agent.secret, rpc("tools/list", cursor=first["nextCursor"])).json()["result"]
    both = [tool["name"] for tool in first["tools"] + rest["tools"]]
    assert len(both) == len(set(both)) == 102 and "t050" not in both and "nextCursor" not in rest


@pytest.mark.any_engine
def test_the_same_call_again_is_the_same_action(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    secret, other = issue_secret(cast, "actions"), issue_secret(cast, "actions")
    begun = post(secret, rpc("initialize", protocolVersion="2025-06-18"))
    assert begun.json()["result"]["protocolVersion"] == "2025-06-18"
    assert (
        post(secret, rpc("initialize", protocolVersion="1999-01-01")).json()["result"]["protocolVersion"]
        == "2025-11-25"
    )
    session = begun["Mcp-Session-Id"]
    assert post(secret, {"jsonrpc": "2.0", "method": "notifications/initialized"}).status_code == 202
    # As long as it is not over, whatever the ids are.
    pending = told_by(post(secret, call(BIG, 3)))
    assert told_by(post(secret, call(BIG, 4)))["action"] == pending["action"]
    assert told_by(post(other, call(BIG, 4)))["action"] != pending["action"]
    assert told_by(post(secret, call({**BIG, "amount": 501}, 3)))["action"] != pending["action"]
    # When it is over, the id of a session's request or one that is nobody else's says that it is the same.
    for number, headers in ((7, {"mcp_session_id": session}), ("0195a3c0-call-of-ticket-77", {})):
        made = told_by(post(secret, call(SMALL, number, wait=0), **headers))
        services.execute(made["action"])
        done = told_by(post(secret, call(SMALL, number), **headers))
        assert (done["action"], done["state"]) == (made["action"], "succeeded")
    assert len(DONE) == 2
    named = {"llmops/idempotency-key": "ticket-9"}
    made = told_by(post(secret, call(SMALL, 1, **named)))
    services.execute(made["action"])
    assert told_by(post(secret, call(SMALL, 2, **named)))["action"] == made["action"] and len(DONE) == 3
    changed = post(secret, call({**SMALL, "amount": 6}, 3, **named)).json()["result"]
    assert changed["isError"] and "Use a new one" in changed["content"][0]["text"]
    # A bare number that starts anew with each client is no such id.
    assert told_by(post(secret, call(SMALL, 1)))["action"] != made["action"]


@pytest.mark.any_engine
def test_nobody_is_told_of_what_others_asked_for(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    mine, other = issue_secret(cast, "actions"), issue_secret(cast, "actions")
    stranger = issue(cast.search, "actions", "organisation").secret
    pending = told_by(post(mine, call(BIG)))["action"]
    for secret in (other, stranger):
        found = post(secret, call({"action": pending}, name="wait_for_action")).json()["result"]
        assert found["isError"] and "there is none" in found["content"][0]["text"]
    assert post(stranger, call(SMALL)).json()["error"]["code"] == -32602
    assert told_by(post(mine, call({"action": pending, "seconds": 0}, name="wait_for_action")))["pending"]


@pytest.mark.any_engine
def test_what_a_reviewer_put_in_its_place_is_the_answer(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    secret = issue_secret(cast, "actions")
    pending = told_by(post(secret, call(BIG)))["action"]
    action = Action.objects.get(pk=pending)
    other = services.revise(acting(cast.rita), action=action, arguments={**BIG, "amount": 300}, reason="less")
    told = told_by(post(secret, call({"action": pending, "seconds": 0}, name="wait_for_action")))
    assert told["pending"] and told["replaced_by"] == str(other.pk)
    assert told_by(post(secret, call(BIG, 9)))["action"] == pending
    decide(cast.alice, Action.objects.select_related("request").get(pk=other.pk))
    services.execute(other.pk)
    answer = b"".join(post(secret, call({"action": pending}, name="wait_for_action"))).decode()
    told = json.loads(answer.rpartition("data: ")[2])["result"]
    assert "A reviewer changed the arguments" in told["content"][0]["text"]
    assert told["structuredContent"]["result"] == {"refunded": 300}


@pytest.mark.any_engine
def test_who_waits_is_told_by_a_stream_up_to_a_bound(
    cast: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_tool(cast.support)
    secret = issue_secret(cast, "actions")
    answer = post(secret, call(BIG, "a", wait=0.3, progressToken="p"))  # type: ignore[arg-type]
    assert answer["Content-Type"].startswith("text/event-stream")
    events = [
        json.loads(part.partition("data: ")[2]) for part in b"".join(answer).decode().split("\n\n") if part
    ]
    assert events[0]["method"] == "notifications/progress" and events[0]["params"]["progressToken"] == "p"
    assert [one["params"]["progress"] for one in events[:-1]] == sorted(
        {one["params"]["progress"] for one in events[:-1]}
    )
    assert events[-1]["id"] == "a" and events[-1]["result"]["structuredContent"]["pending"]
    assert not view._waiting
    # Who takes no stream, or comes when too many wait, is told at once.
    assert told_by(post(secret, call(BIG, wait=50), accept="application/json"))["pending"]
    monkeypatch.setattr(view, "MOST_OF_A_KEY", 0)
    assert told_by(post(secret, call(BIG, wait=50)))["pending"]
    monkeypatch.undo()
    # A key that is revoked meanwhile is told nothing more.
    key = ServiceKey.objects.latest("created_at")
    looks = iter(range(100))
    real = view._look

    def look(one: Any) -> Any:
        if next(looks) == 1:
            revoke_service_key(COMMAND, key=key)
        return real(one)

    monkeypatch.setattr(view, "_look", look)
    last = b"".join(post(secret, call(BIG, wait=20))).decode().rpartition("data: ")[2]
    assert "revoked" in json.loads(last)["error"]["message"]


MODERN = {"mcp_protocol_version": "2026-07-28"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@pytest.mark.any_engine
def test_requests_of_the_newest_version_say_the_same_in_headers_and_body(cast: SimpleNamespace) -> None:
    a_tool(cast.support)
    secret = issue_secret(cast, "actions")

    def code(method: str, headers: dict[str, str], meta: Any, **params: Any) -> tuple[int, int]:
        answer = post(secret, rpc(method, **params, _meta=meta), **headers)
        return answer.status_code, answer.json().get("error", {}).get("code", 0)

    right = {**MODERN, "mcp_method": "tools/list"}
    assert code("tools/list", right, ENVELOPE) == (200, 0)
    assert code("tools/list", right, {}) == (400, -32602)
    assert code("tools/list", MODERN, ENVELOPE) == (400, -32020)
    other = {**ENVELOPE, "io.modelcontextprotocol/protocolVersion": "2025-11-25"}
    assert code("tools/list", right, other) == (400, -32020)
    assert code("ping", {**MODERN, "mcp_method": "ping"}, ENVELOPE) == (404, -32601)
    called = {**MODERN, "mcp_method": "tools/call", "mcp_name": "look"}
    assert code("tools/call", called, ENVELOPE, name="refund", arguments=SMALL) == (400, -32020)
    encoded = {**called, "mcp_name": "=?base64?cmVmdW5k?="}
    meta = {**ENVELOPE, "llmops/wait": 0}
    assert code("tools/call", encoded, meta, name="refund", arguments=SMALL) == (200, 0)
    answer = post(secret, rpc("tools/list"), mcp_protocol_version="2031-01-01")
    assert answer.status_code == 400
    assert answer.json()["error"]["data"]["supported"][-1] == "2026-07-28"
    assert Action.objects.count() == 1 and state_of(Action.objects.get()) == Action.APPROVED
