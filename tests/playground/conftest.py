"""A project with something live to ask, and a stand-in for the data plane that says what a test tells it.

What is tested here is the console's side: who may, what is written down, who reads, what a page is told. The real data plane
behind the real page is in ``tests/e2e/test_playground_browser.py``.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from django.db.models import Model

from llmops.core.ids import uuid7
from llmops.prompts import services as prompts
from llmops.providers import services as providers
from llmops.serving import services as serving
from tests.cast import COMMAND, make_cast
from tests.console.world import a_model, undone

CALL = "01a21900-0000-7000-8000-000000000001"


class DataPlane:
    """``script`` writes an answer: it gets the handler, whose request was read already. ``asked`` are headers and bodies."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.script: Callable[[Any], None] = says("Hello", " there")
        #: set once a client hung up on an answer
        self.hung_up = threading.Event()
        plane = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                plane.asked.append(
                    ({name.lower(): value for name, value in self.headers.items()}, json.loads(body))
                )
                try:
                    plane.script(self)
                except (BrokenPipeError, ConnectionResetError):
                    plane.hung_up.set()

            def log_message(self, *_: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()


def head(handler: Any, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("content-type", "text/event-stream" if status == 200 else "application/json")
    handler.send_header("x-llmops-call-id", CALL)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def event(handler: Any, data: Any) -> None:
    text = data if isinstance(data, str) else json.dumps(data)
    handler.wfile.write(f"data: {text}\n\n".encode())
    handler.wfile.flush()


def piece(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def finish(handler: Any) -> None:
    event(handler, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    event(handler, {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    event(handler, "[DONE]")


def says(*texts: str, gate: threading.Event | None = None) -> Callable[[Any], None]:
    """The texts one by one; the last one once ``gate`` is open."""

    def answer(handler: Any) -> None:
        head(handler)
        for index, text in enumerate(texts):
            if gate is not None and index == len(texts) - 1:
                assert gate.wait(30)
            event(handler, piece(text))
        finish(handler)

    return answer


def talks_on(handler: Any) -> None:
    """Until the client hangs up."""
    head(handler)
    for _ in range(600):
        event(handler, piece("on and "))
        time.sleep(0.02)


def refuses(status: int, code: str, message: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        head(handler, status)
        handler.wfile.write(json.dumps({"error": {"message": message, "code": code, "param": None}}).encode())

    return answer


@pytest.fixture
def plane(settings: Any) -> Iterator[DataPlane]:
    found = DataPlane()
    settings.GATEWAY_URL = found.url
    yield found
    found.server.shutdown()
    found.server.server_close()


def build() -> SimpleNamespace:
    w = make_cast()
    provider = providers.create_provider(
        COMMAND, slug="sim", kind="simulator", base_url="http://127.0.0.1:9/v1",
        fields={"allow_private_network": True},
    )  # fmt: skip
    w.model = a_model(provider, "sim-small")
    w.route = providers.create_route(COMMAND, slug="chat", targets=[(w.model, 100)])
    w.content = {
        "system": "You greet.",
        "user": "{{ name }}",
        "route": "chat",
        "parameters": {"temperature": 0.5},
        "variables": [{"name": "name", "type": "text", "max_length": 20}],
        "samples": [{"name": "Ada", "variables": {"name": "Ada"}}],
    }
    w.prompt = prompts.create_prompt(COMMAND, slug="hello", project=w.support, content=w.content)
    w.foreign_prompt = prompts.create_prompt(
        COMMAND, slug="ranking", project=w.search, content={"task": "Rank secretly."}
    )
    prompts.move_label(COMMAND, prompt=w.prompt, name="production", number=1, reason="live")
    serving.publish(COMMAND, reason="first")
    return w


@pytest.fixture(scope="module")
def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[SimpleNamespace]:
    """Once a module, in a transaction that is taken back at its end."""
    with django_db_blocker.unblock(), undone():
        yield build()


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
    """The same, committed: for those who read in threads of their own."""
    return build()


def a_column(lab: SimpleNamespace, **changes: Any) -> dict[str, Any]:
    return {
        "id": str(uuid7()),
        "project": str(lab.support.pk),
        "source": "prompt",
        "prompt": str(lab.prompt.pk),
        "version": "1",
        "variables": {"name": "Ada"},
        **changes,
    }


def some_text(lab: SimpleNamespace, words: str = "hi", **changes: Any) -> dict[str, Any]:
    return {
        "id": str(uuid7()),
        "project": str(lab.support.pk),
        "source": "text",
        "messages": [{"role": "user", "content": words}],
        "model": "chat",
        **changes,
    }


def sent(client: Any, view: str, **asked: Any) -> Any:
    return client.post(f"/playground/{view}/", {"asked": json.dumps(asked)})
