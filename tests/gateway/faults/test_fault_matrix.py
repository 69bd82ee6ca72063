"""Every fault of a provider at every endpoint, plain and streamed, against the one table that says what becomes of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import openai
import pytest

from llmops.gateway.attempts import resilience
from tests.gateway.faults.endpoints import ENDPOINTS, Endpoint
from tests.gateway.faults.faults import FAULTS, RETRY_AFTER_S, SILENCE_MS, Fault, good
from tests.gateway.faults.table import Row, row_of, rows
from tests.gateway.rig import (
    KEY,
    SECRET,
    Answer,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_model,
    a_provider,
    a_route,
)

#: The SDK warns of what OpenAI is to give up; services that use it are served until then.
pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

CASES = [
    pytest.param(fault, endpoint, how, id=f"{fault}, {endpoint}, {how}")
    for fault, known in FAULTS.items()
    for endpoint, one in ENDPOINTS.items()
    for how in ("plain", "stream")
    if (known.plain if how == "plain" else known.stream and one.events is not None)
]


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what the provider itself asks to wait is waited for."""
    monkeypatch.setattr(resilience, "BACKOFF_BASE_S", 0.0)


class Wire(httpx2.AsyncBaseTransport):
    """The SDK's way into the rig; keeps what came back."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.answer = Answer()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        named = {name: value for name, value in request.headers.items() if name != "authorization"}
        exchange = self._rig.start(body, path=request.url.path, method=request.method, headers=named)
        self.answer = await exchange.done()
        headers, body = self.answer.headers, self.answer.body
        if not self.answer.complete:
            return httpx2.Response(self.answer.status, headers=headers, stream=CutOff(body))
        return httpx2.Response(self.answer.status, headers=headers, content=body)


class CutOff(httpx2.AsyncByteStream):
    """A body whose connection closes before its end."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body
        raise httpx2.RemoteProtocolError("peer closed connection without sending complete message body")


@asynccontextmanager
async def sdk(rig: Rig) -> AsyncIterator[tuple[openai.AsyncOpenAI, Wire]]:
    wire = Wire(rig)
    async with openai.AsyncOpenAI(
        api_key=KEY,
        base_url="http://console/v1",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=wire),
    ) as client:
        yield client, wire


def arrange(rig: Rig, fault: Fault, endpoint: Endpoint, streamed: bool) -> None:
    """``alone`` leads to the faulty model only, ``pair`` has one that works behind it. Both are under a hard budget."""
    faulty = {"read_timeout_ms": SILENCE_MS} if fault.silent else {}
    rig.configure(
        providers=[
            a_provider("up", rig.upstream.url, **faulty),
            a_provider("spare", rig.upstream.url),
        ],
        models=[a_model("small"), a_model("large", "spare")],
        routes=[
            a_route("alone", "small", attempts=3, total_timeout_ms=20_000),
            a_route("pair", "small", fallbacks=("large",), attempts=3, total_timeout_ms=20_000),
        ],
        budgets=[a_budget()],
    )
    wrong, right = fault.script(endpoint, streamed), good(endpoint, streamed)

    async def script(asked: Asked, reply: Reply) -> None:
        await (right if b"sim-large" in asked.body else wrong)(asked, reply)

    rig.upstream.does(script)


@pytest.mark.parametrize(("name", "endpoint_name", "how"), CASES)
async def test_what_becomes_of_a_fault(rig: Rig, name: str, endpoint_name: str, how: str) -> None:
    fault, endpoint, streamed = FAULTS[name], ENDPOINTS[endpoint_name], how == "stream"
    row = row_of(name, endpoint_name, how)
    arrange(rig, fault, endpoint, streamed)
    async with sdk(rig) as (client, wire):
        raised = await outcome(endpoint.call(client, "alone", streamed))
    seen_by_the_client(row, wire.answer, raised, endpoint, streamed)
    tried(row, rig, fault)
    billed(row, rig, fault, endpoint)
    nothing_leaks(rig, wire.answer, raised)


@pytest.mark.parametrize(("name", "endpoint_name", "how"), CASES)
async def test_what_a_fallback_makes_of_a_fault(rig: Rig, name: str, endpoint_name: str, how: str) -> None:
    fault, endpoint, streamed = FAULTS[name], ENDPOINTS[endpoint_name], how == "stream"
    row = row_of(name, endpoint_name, how)
    arrange(rig, fault, endpoint, streamed)
    async with sdk(rig) as (client, wire):
        raised = await outcome(endpoint.call(client, "pair", streamed))
    spare = [one for one in rig.upstream.asked if b"sim-large" in one.body]
    if row.fallback != "answers":
        assert spare == []
        assert (wire.answer.status, type(raised).__name__) == (
            row.status,
            "NoneType" if row.sdk == "-" else row.sdk,
        )
        return
    assert raised is None, raised
    assert len(spare) == 1
    assert wire.answer.headers["x-llmops-fallback"] == "true"
    assert wire.answer.headers["x-llmops-model"] == "large"
    found = rig.outcome()
    assert (found.status, found.model, found.fallbacks) == ("ok", "large", 1)
    assert [one.model for one in found.attempts][-1] == "large"
    # The tries at the first model are billed as they are without a fallback.
    before = sum(one.worst_cost for one in rig.held() if one.model == "small") if row.billed == "hold" else 0
    if endpoint.free:
        assert found.cost == 0
    elif endpoint.states(streamed):
        assert found.cost == before + endpoint.cost((10, 5))
    else:
        assert found.tokens.estimated
        assert before < found.cost <= before + rig.held()[-1].worst_cost


def seen_by_the_client(
    row: Row, answer: Answer, raised: Exception | None, endpoint: Endpoint, streamed: bool
) -> None:
    assert answer.status == row.status, answer.body
    assert answer.headers["x-request-id"]
    assert answer.headers["x-llmops-call-id"]
    assert answer.headers["x-llmops-attempts"] == str(row.tries)
    assert type(raised).__name__ == ("NoneType" if row.sdk == "-" else row.sdk), raised
    if row.answered:
        assert raised is None
        assert answer.complete
        if streamed:
            assert endpoint.events is not None
            assert endpoint.end in answer.body.rstrip().rpartition(b"\n\n")[2]
        return
    if row.cut:
        assert not answer.complete
        return
    if row.breaks_off:
        assert endpoint.events is not None
        assert endpoint.end not in answer.body
        *_, last = answer.body.strip().split(b"\n\n")
        error = json.loads(last.partition(b"data: ")[2])["error"]
    else:
        error = answer.error
    assert (error["code"], bool(error["message"])) == (row.code, True)
    if row.status in (429,) and row.tries > 1:
        assert int(answer.headers["retry-after"]) >= 1
    if isinstance(raised, openai.APIStatusError):
        assert raised.request_id == answer.headers["x-request-id"]
        assert raised.code == row.code


def tried(row: Row, rig: Rig, fault: Fault) -> None:
    assert len(rig.upstream.asked) == row.tries
    found = rig.outcome()
    assert [one.n for one in found.attempts] == list(range(1, row.tries + 1))
    assert found.retries == row.tries - 1
    if row.fault == "429 with Retry-After":
        for earlier, later in zip(found.attempts, found.attempts[1:], strict=False):
            ended = earlier.started_us + earlier.total_us
            assert later.started_us - ended >= RETRY_AFTER_S * 1e6 * 0.9, "the provider asked for more time"


def billed(row: Row, rig: Rig, fault: Fault, endpoint: Endpoint) -> None:
    found, held = rig.outcome(), rig.held()
    assert found.status == row.ledger
    assert found.http == row.status
    assert len(held) == row.tries
    assert sum(one.cost for one in found.attempts) == found.cost
    if endpoint.free:
        assert found.cost == 0
        assert not any(one.charges for one in held)
        return
    assert all(one.charges and one.worst_cost > 0 for one in held)
    if row.billed == "nothing":
        assert found.cost == 0
    elif row.billed == "hold":
        assert [one.cost for one in found.attempts] == [one.worst_cost for one in held]
    elif row.billed == "usage":
        assert found.cost == endpoint.cost(fault.stated)
        assert not found.tokens.estimated
    else:
        assert row.billed == "counted"
        assert found.tokens.estimated
        assert 0 < found.cost <= held[0].worst_cost


def nothing_leaks(rig: Rig, answer: Answer, raised: Exception | None) -> None:
    written = b"".join(path.read_bytes() for path in rig.directory.glob("*.jsonl"))
    for text in (answer.body, repr(answer.headers).encode(), repr(raised).encode(), written):
        assert SECRET.encode() not in text
        assert KEY.encode() not in text


async def outcome(call: Any) -> Exception | None:
    try:
        await call
    except openai.OpenAIError as error:
        return error
    return None


def test_the_table_speaks_of_every_case_once() -> None:
    used = {row_of(*case.values) for case in CASES}
    assert [row for row in rows() if row not in used] == []
    assert {row.fault for row in rows()} == set(FAULTS)
