"""Whatever is sent: never a 500, never a secret, always a request id, and the next call is served.

``FUZZ_EXAMPLES`` sets how many requests each test makes (docs/how-to/fuzz.md).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from llmops.gateway.attempts import resilience
from tests.gateway.fuzz.requests import Request, anywhere, bodied, formed
from tests.gateway.making import TOKEN_PRICES, per
from tests.gateway.rig import (
    DONE,
    KEY,
    SECRET,
    Asked,
    Reply,
    Rig,
    Upstream,
    a_budget,
    a_model,
    a_provider,
    a_route,
    ask,
    chunk,
    completion,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Seen:
    """An answer with its head as the bytes that go to the server."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = False

    async def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not self.status, "one head only"
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            assert self.status, "the head comes first"
            assert not self.complete, "nothing comes after the end"
            self.body += message.get("body", b"")
            self.complete = not message.get("more_body", False)


class Target:
    """One data plane for all examples, on a loop that runs while an example does."""

    def __init__(self, runner: asyncio.Runner, rig: Rig) -> None:
        self._runner = runner
        self.rig = rig

    def meet(self, request: Request) -> Seen:
        return self._runner.run(self._meet(request))

    async def _meet(self, request: Request) -> Seen:
        seen = Seen()
        left = list(request.pieces)

        async def receive() -> dict[str, Any]:
            if left:
                piece = left.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(left) or request.gone}
            if not request.gone:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}

        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "raw_path": request.path.encode("utf-8", "replace"),
            "query_string": request.query,
            "headers": request.headers,
        }
        async with asyncio.timeout(60):
            await self.rig.app(scope, receive, seen.take)
        return seen

    def still_serves(self) -> None:
        async def check() -> None:
            answer = await self.rig.call(ask())
            assert answer.status == 200, answer.body
            self.rig.nothing_held()

        self._runner.run(check())


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def _provider(asked: Asked, reply: Reply) -> None:
    """Answers everything rightly: a stream to who asks for one."""
    if not asked.path.endswith("/chat/completions"):
        body = completion() | {"data": [], "output": [], "status": "completed"}
        await reply.json(body | {"usage": body["usage"] | {"input_tokens": 10, "output_tokens": 5}})
    elif bytes(_members(asked.body).get("stream", b"")) == b"true":
        await reply.events(chunk("Hello"), chunk(finish="stop"), DONE)
    else:
        await reply.json(completion())


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(resilience, "BACKOFF_BASE_S", 0.0)
        serving = Upstream().serving()
        upstream = runner.run(serving.__aenter__())
        upstream.does(_provider)

        async def make() -> Rig:
            rig = Rig(tmp_path_factory.mktemp("fuzz") / "journal", upstream)
            rig.configure(
                providers=[a_provider(base_url=upstream.url)],
                models=[
                    a_model(),
                    a_model("drawing", prices=TOKEN_PRICES),
                    a_model("voice", prices=per("characters", 15_000)),
                ],
                routes=[a_route("chat")],
                budgets=[a_budget(limit_nano=10**15)],
            )
            return rig

        found = Target(runner, runner.run(make()))
        yield found
        found.still_serves()
        written = b"".join(path.read_bytes() for path in found.rig.directory.glob("*.jsonl"))
        assert SECRET.encode() not in written
        assert KEY.encode() not in written
        runner.run(found.rig.close())
        runner.run(serving.__aexit__(None, None, None))


def judge(request: Request, seen: Seen) -> None:
    if request.gone and not seen.status:
        return
    assert seen.complete
    assert 200 <= seen.status < 500 or seen.status in (501, 502, 503), (seen.status, seen.body[:300])
    names = [name for name, _ in seen.headers]
    assert names.count(b"x-request-id") == 1
    assert names.count(b"content-length") <= 1
    for name, value in seen.headers:
        assert name == name.lower()
        assert not set(name + value) & set(b"\r\n\0"), "a header can not end within"
        value.decode("ascii")
    head = b"\n".join(name + b": " + value for name, value in seen.headers)
    for secret in (SECRET, KEY):
        # A caller's own body may hold its key; nothing that a caller did not send may.
        assert secret.encode() not in head
        assert secret.encode() not in seen.body or secret.encode() in request.body
    if seen.status >= 400:
        error = json.loads(seen.body)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert error["type"]
        assert len(seen.body) < 4_000, "an error does not repeat what was sent"


def test_any_body_at_any_endpoint(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    @fuzzed
    @given(bodied())
    def meet(request: Request) -> None:
        judge(request, target.meet(request))

    with caplog.at_level(logging.ERROR):
        meet()
    assert not caplog.records
    target.still_serves()


def test_any_form_at_any_endpoint_that_takes_them(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    @fuzzed
    @given(formed())
    def meet(request: Request) -> None:
        judge(request, target.meet(request))

    with caplog.at_level(logging.ERROR):
        meet()
    assert not caplog.records
    target.still_serves()


def test_any_method_at_any_address(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    @fuzzed
    @given(anywhere())
    def meet(request: Request) -> None:
        if request.method != "HEAD":
            judge(request, target.meet(request))

    with caplog.at_level(logging.ERROR):
        meet()
    assert not caplog.records
    target.still_serves()
