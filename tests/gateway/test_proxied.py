"""Providers behind a proxy: the same answers, failures and bills as without one."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.gateway.rig import (
    DONE,
    SECRET,
    Asked,
    Reply,
    Rig,
    a_budget,
    a_provider,
    answers,
    ask,
    chunk,
    cuts,
    eventually,
    fails,
    hangs,
    streams,
    usage_chunk,
)

#: A name that nobody resolves: only the proxy has to.
BASE = "http://models.example.com/v1"


def behind(rig: Rig, proxy: str = "", **changes: object) -> None:
    proxy = proxy or rig.upstream.url.removesuffix("/v1")
    rig.configure(
        providers=[
            a_provider(
                **({"base_url": BASE, "proxy_url": proxy, "allow_private_network": False} | changes)  # type: ignore[arg-type]
            )
        ],
        budgets=[a_budget()],
    )


async def test_a_call_goes_by_way_of_the_proxy_and_none_of_the_environment(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    behind(rig)
    answer = await rig.chat()
    assert answer.status == 200
    [asked] = rig.upstream.asked
    assert asked.path == f"{BASE}/chat/completions"
    assert asked.headers["host"] == "models.example.com"
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert rig.outcome().cost == 10 * 1_000 + 5 * 10_000
    rig.nothing_held()


async def test_a_stream_comes_through_a_proxy(rig: Rig) -> None:
    behind(rig)
    rig.upstream.does(
        streams(chunk("Hello"), chunk(finish="stop"), usage_chunk(prompt=10, completion=5), DONE)
    )
    answer = await rig.chat(stream=True)
    assert answer.body.endswith(DONE)
    assert not rig.outcome().tokens.estimated


async def test_a_large_body_goes_through_a_proxy_whole(rig: Rig) -> None:
    rig.configure(providers=[a_provider(base_url=BASE, proxy_url=rig.upstream.url.removesuffix("/v1"))])
    answer = await rig.chat(text="x" * 600_000)
    assert answer.status == 200
    assert rig.upstream.asked[-1].json["messages"][0]["content"] == "x" * 600_000


@pytest.mark.parametrize(
    ("script", "status", "billed"),
    [(cuts, 502, True), (hangs, 504, True), (fails(500), 502, False)],
    ids=["cut", "silence", "error"],
)
async def test_failures_behind_a_proxy_are_billed_as_without_one(
    rig: Rig, script: object, status: int, billed: bool
) -> None:
    behind(rig, read_timeout_ms=100)
    rig.upstream.does(script)  # type: ignore[arg-type]
    answer = await rig.chat()
    assert answer.status == status
    held = rig.held()
    assert rig.outcome().cost == (sum(one.worst_cost for one in held) if billed else 0)
    rig.nothing_held()


async def test_a_proxy_that_does_not_listen_costs_nothing(rig: Rig) -> None:
    with socket.socket() as shut:
        shut.bind(("127.0.0.1", 0))
        behind(rig, f"http://127.0.0.1:{shut.getsockname()[1]}")
        answer = await rig.chat()
    assert answer.status == 502
    assert (rig.outcome().cost, rig.outcome().attempts[0].code) == (0, "upstream_connect")


async def test_a_tunnel_is_asked_for_without_the_credential_and_its_far_end_is_verified(rig: Rig) -> None:
    """The far end of the tunnel does not speak TLS: nothing of the request is told to it."""
    heard: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        heard.append(await reader.read(1000))
        writer.write(b"no TLS here, sorry")
        writer.close()

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    behind(rig, f"http://127.0.0.1:{port}", base_url="https://models.example.com/v1")
    answer = await rig.chat()
    server.close()
    assert answer.status == 502
    assert heard[0].startswith(b"CONNECT models.example.com:443 HTTP/1.1\r\n")
    assert heard[1][:1] == b"\x16", "a TLS handshake begins"
    assert SECRET.encode() not in b"".join(heard)
    assert rig.outcome().cost == 0


async def test_a_hang_up_reaches_the_provider_behind_the_proxy(rig: Rig) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        await reply.chunk(chunk("one two three four"))
        await asyncio.Event().wait()

    behind(rig)
    rig.upstream.does(script)
    exchange = rig.start(ask(stream=True))
    await exchange.answer.until(lambda answer: b"four" in answer.body)
    exchange.hang_up()
    await asyncio.wait_for(rig.upstream.gone.wait(), 5)
    await exchange.done()
    assert rig.outcome().status == "client_closed"


async def test_a_provider_that_loses_its_proxy_gets_connections_of_our_own(rig: Rig) -> None:
    behind(rig)
    rig.upstream.does(answers("by proxy"), answers("straight"))
    assert b"by proxy" in (await rig.chat()).body
    rig.configure()
    assert b"straight" in (await rig.chat()).body
    assert [one.path for one in rig.upstream.asked] == [f"{BASE}/chat/completions", "/v1/chat/completions"]
    await rig.plane.transport.tidy()
    await eventually(lambda: not rig.plane.transport._retired)
