"""A project with something live to ask, tools to call, and a stand-in for the data plane that says what a test tells it.

What is tested here is the console's side. The stand-in keeps what the real one promises of an ``Idempotency-Key``: the same request
gets the first answer again, and another one is refused. The real data plane is in ``test_killed.py``.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models import Model

from llmops.core.ids import uuid7
from llmops.runs.services import leasing, tooling
from tests.cast import quick_passwords
from tests.console.world import undone
from tests.playground.conftest import build as build_project
from tests.tools.making import DONE, FUNCTIONS, a_service, a_tool

__all__ = ["quick_passwords"]

LOOK = {
    "description": "Looks a customer up.",
    "parameters": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    "risk": "read",
    "rules": [],
    "says": "",
}


#: What an answer of the stand-in costs, in nanodollars.
COST = 350_000


class DataPlane:
    """``script`` gives (status, body) for each request that is new; ``paid`` are the requests that it was asked for."""

    def __init__(self) -> None:
        self.paid: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.replayed = 0
        #: nanodollars that an answer cost, by its status
        self.costs: Callable[[int], int] = lambda status: COST if status == 200 else 0
        #: statuses of failures that are given again under their key
        self.keeps: tuple[int, ...] = (200,)
        #: what happens before each event of a stream but the first
        self.between: Callable[[], object] = lambda: None
        self.script: Callable[[dict[str, Any], int], tuple[int, Any]] = says("Hello")
        self._known: dict[str, tuple[bytes, int, Any, str]] = {}
        self._lock = threading.Lock()
        plane = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                status, body, again, call = plane.answered(
                    {name.lower(): value for name, value in self.headers.items()}, raw
                )
                if status == 200 and json.loads(raw).get("stream"):
                    self.streamed(body, again, call)
                    return
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.send_header("x-llmops-call-id", call)
                self.send_header("x-llmops-model", "sim-small")
                self.send_header("x-llmops-cost-nano", str(plane.costs(status)))
                if again:
                    self.send_header("idempotent-replayed", "true")
                self.end_headers()
                self.wfile.write(text)

            def streamed(self, body: Any, again: bool, call: str) -> None:
                self.send_response(200)
                for name, value in (
                    ("content-type", "text/event-stream; charset=utf-8"),
                    ("x-llmops-call-id", call),
                    ("x-llmops-model", "sim-small"),
                    *([("idempotent-replayed", "true")] if again else []),
                ):
                    self.send_header(name, value)
                self.end_headers()
                for place, event in enumerate(chunks(body)):
                    if place:
                        plane.between()
                    if event == b"[DONE]" or event.startswith(b'{"error"'):
                        self.wfile.write(b": x-llmops-cost-nano %d\n\n" % plane.costs(200))
                    self.wfile.write(b"data: " + event + b"\n\n")
                    self.wfile.flush()

            def log_message(self, *_: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def answered(self, headers: dict[str, str], raw: bytes) -> tuple[int, Any, bool, str]:
        key = headers["idempotency-key"]
        with self._lock:
            if key in self._known:
                first, status, body, call = self._known[key]
                if first != raw:
                    return 422, refusal("idempotency_key_reused", "another request"), False, call
                self.replayed += 1
                return status, body, True, call
            self.heads.append(headers)
            asked = json.loads(raw)
            status, body = self.script(asked, len(self.paid) + 1)
            call = str(uuid7())
            if status == 200:
                self.paid.append(asked)
            if status in self.keeps:
                self._known[key] = (raw, status, body, call)
            return status, body, False, call


def refusal(code: str, message: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "code": code, "param": param}}


def completion(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }


def chunks(body: Any) -> list[bytes]:
    """A completion as the events of a stream: its text word by word. An ``error`` comes instead of the end."""
    choice = body["choices"][0]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in re.findall(r"\S+\s*", message.get("content") or "")]
    for index, one in enumerate(message.get("tool_calls") or ()):
        function = one["function"]
        deltas.append(
            {"tool_calls": [{"index": index, "id": one["id"], "function": {"name": function["name"]}}]}
        )
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": letter}}]}
            for letter in function["arguments"]
        ]
    found: list[Any] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if "error" in body:
        return [json.dumps(one).encode() for one in (*found, {"error": body["error"]})]
    found.append({"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    found.append({"choices": [], "usage": body["usage"]})
    ends = [] if body.get("cut") else [b"[DONE]"]
    return [*(json.dumps(one).encode() for one in found), *ends]


def says(*texts: str) -> Callable[[dict[str, Any], int], tuple[int, Any]]:
    """One text a turn; the last one for ever."""
    return lambda asked, n: (200, completion({"content": texts[min(n, len(texts)) - 1]}))


def call(name: str, arguments: Any, call_id: str = "") -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {
        "id": call_id or f"call_{name}",
        "type": "function",
        "function": {"name": name, "arguments": text},
    }


def plays(*turns: Any) -> Callable[[dict[str, Any], int], tuple[int, Any]]:
    """Each turn is a text, a list of calls, or an answer as it is; the last one for ever."""

    def script(asked: dict[str, Any], n: int) -> tuple[int, Any]:
        turn = turns[min(n, len(turns)) - 1]
        if isinstance(turn, tuple):
            return turn
        if isinstance(turn, list):
            return 200, completion({"content": None, "tool_calls": turn}, "tool_calls")
        return 200, completion({"content": turn})

    return script


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """No thread looks at what a test has not committed; functions are those of the tests of tools."""
    monkeypatch.setattr(leasing.Beats, "_renew", lambda self, held: None)
    monkeypatch.setattr(tooling, "AT_ONCE", 1)
    settings.TOOL_FUNCTIONS = {**settings.TOOL_FUNCTIONS, **FUNCTIONS, "look": "tests.runs.conftest.look"}
    DONE.clear()


def look(arguments: Any, job: Any) -> dict[str, Any]:
    DONE.append({"key": job.key, **arguments})
    return {"customer": arguments["name"], "standing": "good"}


@pytest.fixture
def plane(settings: Any) -> Iterator[DataPlane]:
    found = DataPlane()
    settings.GATEWAY_URL = found.url
    yield found
    found.server.shutdown()
    found.server.server_close()


def build() -> SimpleNamespace:
    from django.conf import settings

    settings.TOOL_FUNCTIONS = {
        **settings.TOOL_FUNCTIONS,
        **FUNCTIONS,
        "look": "tests.runs.conftest.look",
    }
    w = build_project()
    w.refund = a_tool(w.support)
    w.look = a_tool(w.support, "look", **{**LOOK, "settings": {"function": "look"}})
    w.agent = a_service(w.support, "runs", name="agent")
    return w


@pytest.fixture(scope="module")
def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[SimpleNamespace]:
    """Once a module, in a transaction that is taken back at its end."""
    from django.conf import settings

    known = settings.TOOL_FUNCTIONS
    with django_db_blocker.unblock(), undone():
        yield build()
    settings.TOOL_FUNCTIONS = known


@pytest.fixture
def lab(built: SimpleNamespace, db: None) -> SimpleNamespace:
    """What a test changes of it is taken back after it."""
    fresh = {
        name: type(row).objects.get(pk=row.pk) if isinstance(row, Model) else row
        for name, row in vars(built).items()
    }
    return SimpleNamespace(**fresh)


@pytest.fixture
def open_lab(transactional_db: None) -> SimpleNamespace:
    """The same, committed: for what happens in several threads."""
    return build()
