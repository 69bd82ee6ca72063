"""Time-outs and breaks of connections, and what they cost."""

from __future__ import annotations

import asyncio
import socket

import pytest

from llmops.gateway.attempts.failures import CONNECT, CUT, TIMEOUT
from llmops.gateway.attempts.upstream import Channel, Failed
from tests.gateway.http1.wire import CREDENTIAL, Line, Provider, Trial, a_channel, post, silent
from tests.gateway.rig import a_credential, a_provider


async def test_silence_is_borne_for_the_read_time_out_and_any_byte_begins_it_anew(provider: Provider) -> None:
    async def talk(line: Line) -> None:
        await line.request()
        await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        for _ in range(6):
            await asyncio.sleep(0.06)
            await line.say(b"x")
        await line.until_closed()

    provider.talk = talk
    channel = a_channel(provider, read_timeout_ms=200)
    response = await post(channel)
    came = b""
    with pytest.raises(TimeoutError):
        while True:
            came += await response.content.readany()
    assert came == b"x" * 6
    await asyncio.wait_for(provider.lines[0].closed.wait(), 5)
    await channel.close()


async def test_a_time_out_before_the_head_may_have_been_billed(provider: Provider) -> None:
    provider.talk = silent
    channel = a_channel(provider, read_timeout_ms=40)
    trial = Trial()
    with pytest.raises(Failed) as failed:
        await channel.send("/x", b"{}", CREDENTIAL, "call.1", trial)
    assert (failed.value.failure.kind, failed.value.failure.billed, trial.sent) == (TIMEOUT, None, True)
    await asyncio.wait_for(provider.lines[0].closed.wait(), 5)
    await channel.close()


async def test_a_cut_before_the_head_is_not_sent_again(provider: Provider) -> None:
    async def talk(line: Line) -> None:
        await line.request()
        line.writer.transport.abort()

    provider.talk = talk
    channel = a_channel(provider)
    with pytest.raises(Failed) as failed:
        await post(channel)
    assert (failed.value.failure.kind, failed.value.failure.billed) == (CUT, None)
    assert len(provider.lines) == 1
    await channel.close()


async def test_nobody_listening_costs_nothing() -> None:
    with socket.socket() as shut:
        shut.bind(("127.0.0.1", 0))
        channel = Channel(a_provider(base_url=f"http://127.0.0.1:{shut.getsockname()[1]}/v1"))
        trial = Trial()
        with pytest.raises(Failed) as failed:
            await channel.send("/x", b"{}", CREDENTIAL, "call.1", trial)
    assert (failed.value.failure.kind, failed.value.failure.billed, trial.sent) == (CONNECT, False, False)
    await channel.close()


@pytest.mark.parametrize("secret", ["a\r\nx-more: 1", "a\nb", "a\x00b"])
async def test_a_credential_cannot_add_a_field(provider: Provider, secret: str) -> None:
    channel = a_channel(provider)
    trial = Trial()
    with pytest.raises(Failed) as failed:
        await channel.send("/x", b"{}", a_credential(secret=secret), "call.1", trial)
    assert (failed.value.failure.kind, trial.sent, provider.lines) == (CONNECT, False, [])
    with pytest.raises(Failed):
        await channel.forward("GET", "/x", b"a=b c", [], None, CREDENTIAL, "call.1", trial)
    with pytest.raises(Failed):
        await channel.forward("GET", "/x", b"", [("x-a", secret)], None, CREDENTIAL, "call.1", trial)
    assert provider.lines == []
    await channel.close()
