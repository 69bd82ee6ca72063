"""What goes wrong with what a provider keeps, on either side, is told honestly and never looks complete."""

from __future__ import annotations

import asyncio
import json

import pytest

from llmops.gateway.forwarding import uploading
from tests.gateway.keeping import (
    A_FILE,
    FORM,
    FORM_TYPE,
    MINE,
    bytes_of,
    configure,
    get,
    gives,
)
from tests.gateway.rig import (
    SECRET,
    Asked,
    Exchange,
    Reply,
    Rig,
    Script,
    Upstream,
    a_credential,
    a_provider,
    cuts,
    eventually,
    fails,
    hangs,
)

pytestmark = pytest.mark.usefixtures("soon")


async def malformed(asked: Asked, reply: Reply) -> None:
    await reply.json(b"<html>gateway</html>", 200, {"content-type": "text/html"})


async def half(asked: Asked, reply: Reply) -> None:
    await reply.head(200, {"content-type": "application/json", "content-length": "100"})
    await reply.raw(b'{"id":')
    reply.cut()


async def not_http(asked: Asked, reply: Reply) -> None:
    await reply.raw(b"SSH-2.0-nothing\r\n\r\n")
    reply.cut()


async def html_error(asked: Asked, reply: Reply) -> None:
    await reply.json(b"<html>bad gateway</html>", 503, {"content-type": "text/html"})


async def moved(asked: Asked, reply: Reply) -> None:
    await reply.head(302, {"location": "http://169.254.169.254/", "content-length": "0"})


FAULTS: list[tuple[Script, int, str, int]] = [
    (fails(401, "invalid_api_key", f"Incorrect API key provided: {SECRET}"), 502, "upstream_auth", 1),
    (fails(403, None, "no"), 502, "upstream_auth", 1),
    (fails(404, "x", "not here"), 404, "x", 1),
    (fails(400, "bad", "wrong"), 400, "bad", 1),
    (fails(429, "rate_limit_exceeded", "slow"), 429, "rate_limit_exceeded", 3),
    (fails(500, None, "oh"), 502, "upstream_error", 3),
    (html_error, 502, "upstream_error", 3),
    (malformed, 502, "upstream_error", 3),
    (half, 502, "stream_interrupted", 3),
    (not_http, 502, "upstream_error", 3),
    (moved, 502, "upstream_error", 3),
    (cuts, 502, "stream_interrupted", 3),
]


@pytest.mark.parametrize(("fault", "status", "code", "tries"), FAULTS)
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "UPLOAD"])
async def test_every_fault_of_a_provider_is_told_in_openais_body(
    kept: Rig, upstream: Upstream, fault: Script, status: int, code: str, tries: int, method: str
) -> None:
    upstream.does(fault)
    if method == "UPLOAD":
        answer = await kept.call([FORM[:9], FORM[9:]], path="/v1/files", headers=FORM_TYPE)
    elif method == "POST":
        answer = await kept.call({"metadata": {}}, path="/v1/chat/completions/chatcmpl-1")
    else:
        answer = await get(kept, "/v1/files/file-1", method=method)
    assert (answer.status, answer.error["code"]) == (status, code), answer.body
    assert SECRET.encode() not in answer.body
    assert b"html" not in answer.body
    assert len(upstream.asked) == (tries if method in ("GET", "DELETE") else 1)
    outcome = kept.outcome()
    assert (outcome.status, outcome.http) == ("error", status)
    assert len(outcome.attempts) == len(upstream.asked)
    assert all(one.code for one in outcome.attempts)


@pytest.mark.parametrize("fault", [fails(500), cuts, malformed, fails(429)])
async def test_an_idempotent_call_is_tried_again(kept: Rig, upstream: Upstream, fault: Script) -> None:
    upstream.does(fault, gives(A_FILE))
    answer = await get(kept, "/v1/files/file-1")
    assert (answer.status, answer.headers["x-llmops-attempts"]) == (200, "2")
    outcome = kept.outcome()
    assert (outcome.status, outcome.retries, len(outcome.attempts)) == ("ok", 1, 2)


async def test_a_refused_credential_is_followed_by_the_next(rig: Rig, upstream: Upstream) -> None:
    configure(rig, credentials={"up": (a_credential(secret="s-1"), a_credential(secret="s-2", name="b"))})
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    upstream.does(fails(401), gives(A_FILE))
    assert (await get(rig, "/v1/files/file-1")).status == 200
    assert [one.headers["authorization"] for one in upstream.asked] == ["Bearer s-1", "Bearer s-2"]


async def test_a_provider_that_cannot_be_reached_is_a_502(rig: Rig) -> None:
    configure(rig, providers=(a_provider(base_url="http://127.0.0.1:9/v1"),))
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    answer = await get(rig, "/v1/files/file-1")
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    answer = await rig.call([FORM], path="/v1/files", headers=FORM_TYPE)
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")


@pytest.mark.parametrize("upload", [False, True])
async def test_a_provider_that_says_nothing_is_a_504(rig: Rig, upstream: Upstream, upload: bool) -> None:
    configure(rig, providers=(a_provider(base_url=upstream.url, read_timeout_ms=150),))
    rig.plane.objects.made("file", "file-1", key=MINE, provider="up")
    upstream.does(hangs)
    if upload:
        answer = await rig.call([FORM], path="/v1/files", headers=FORM_TYPE)
    else:
        answer = await get(rig, "/v1/files/file-1")
    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")


async def test_a_download_that_breaks_off_never_looks_complete(kept: Rig, upstream: Upstream) -> None:
    # More than a connection takes before its reader does.
    upstream.does(bytes_of(b"x" * 500_000, length=1_000_000))
    answer = await get(kept, "/v1/files/file-1/content")
    assert answer.status == 200
    assert not answer.complete
    outcome = kept.outcome()
    assert (outcome.status, outcome.code) == ("interrupted", "stream_interrupted")
    assert len(upstream.asked) == 1, "nothing is tried again once something was relayed"


async def test_a_download_that_breaks_off_before_any_of_it_was_relayed_is_tried_again(
    kept: Rig, upstream: Upstream
) -> None:
    upstream.does(bytes_of(b"x" * 5000, length=10_000), bytes_of(b"x" * 10_000, length=10_000))
    answer = await get(kept, "/v1/files/file-1/content")
    assert (answer.status, answer.complete, len(answer.body)) == (200, True, 10_000)
    assert len(upstream.asked) == 2


async def test_a_client_that_hangs_up_cancels_the_download(kept: Rig, upstream: Upstream) -> None:
    async def slowly(asked: Asked, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/plain", "content-length": "1000000"})
        await reply.raw(b"a" * 500_000)
        await asyncio.Event().wait()

    upstream.does(slowly)
    exchange = kept.start(b"", method="GET", path="/v1/files/file-1/content")
    await exchange.answer.until(lambda answer: bool(answer.status))
    exchange.hang_up()
    await exchange.done()
    async with asyncio.timeout(60):
        await upstream.gone.wait()
    assert kept.outcome().status == "client_closed"


async def test_a_client_that_hangs_up_while_it_waits_cancels_the_request(
    kept: Rig, upstream: Upstream
) -> None:
    upstream.does(hangs)
    exchange = kept.start(b"", method="GET", path="/v1/files/file-1")
    await eventually(lambda: bool(upstream.asked))
    exchange.hang_up()
    await exchange.done()
    async with asyncio.timeout(60):
        await upstream.gone.wait()
    assert kept.outcome().status == "client_closed"


def uploading_slowly(rig: Rig) -> Exchange:
    """An upload of which the first piece came."""
    exchange = rig.start([FORM[:30], b""], path="/v1/files", headers=FORM_TYPE | {"content-length": "1000"})
    exchange._inbox._queue.pop()  # type: ignore[attr-defined]
    return exchange


async def test_a_client_that_hangs_up_in_the_middle_of_an_upload_cancels_it(
    kept: Rig, upstream: Upstream
) -> None:
    exchange = uploading_slowly(kept)
    await asyncio.sleep(0.1)
    exchange.hang_up()
    await exchange.done()
    async with asyncio.timeout(60):
        await upstream.gone.wait()
    assert not upstream.asked, "the provider never got a whole request"
    assert kept.outcome().status == "client_closed"


async def test_a_client_that_stalls_in_the_middle_of_an_upload_is_refused(
    kept: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "BODY_TIMEOUT_S", 0.2)
    answer = await uploading_slowly(kept).done()
    assert (answer.status, answer.error["code"]) == (400, "request_timeout")


@pytest.mark.parametrize("declared", [True, False])
async def test_an_upload_that_is_too_large_is_refused(kept: Rig, declared: bool) -> None:
    kept.plane.max_upload = 10
    headers = FORM_TYPE | ({"content-length": str(len(FORM))} if declared else {})
    answer = await kept.call([FORM[:5], FORM[5:]], path="/v1/files", headers=headers)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    begun = await kept.call({"bytes": 11}, path="/v1/uploads")
    assert begun.status == 413


async def test_a_provider_that_answers_before_the_upload_is_over_is_heard(
    kept: Rig, upstream: Upstream
) -> None:
    """A raw server that refuses after the head and closes."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(
            {"error": {"message": "too much", "type": "t", "param": None, "code": "c"}}
        ).encode()
        writer.write(
            b"HTTP/1.1 413 No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    configure(kept, providers=(a_provider(base_url=url),))
    answer = await uploading_slowly(kept).done()
    assert (answer.status, answer.error["code"]) == (413, "c")
    server.close()
