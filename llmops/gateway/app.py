"""The data plane as an ASGI application: addresses, health, start-up and shut-down. No framework: its cost would be felt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from llmops.core.asgi import Message, Receive, Send
from llmops.core.errors import ConsoleError, NotFound
from llmops.core.ids import uuid7
from llmops.gateway.addresses import Addresses, Handler, Visit
from llmops.gateway.call import request_id_of
from llmops.gateway.endpoints import batches, files, models, stored_chats, stored_responses
from llmops.gateway.endpoints.audio import SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from llmops.gateway.endpoints.base import Endpoint
from llmops.gateway.endpoints.chat import CHAT
from llmops.gateway.endpoints.embeddings import EMBEDDINGS
from llmops.gateway.endpoints.images import EDITS, GENERATIONS, VARIATIONS
from llmops.gateway.endpoints.moderations import MODERATIONS
from llmops.gateway.endpoints.responses import COMPACT, INPUT_TOKENS, RESPONSES
from llmops.gateway.errors import JSON_TYPE, Headers, error_body
from llmops.gateway.forwarding import passthrough
from llmops.gateway.pipeline import serve
from llmops.gateway.plane import Plane
from llmops.gateway.telemetry import exposition

log = logging.getLogger(__name__)

#: POST of a body in JSON that names a model: the pipeline serves it.
ORDINARY: dict[str, Endpoint] = {
    "/v1/chat/completions": CHAT,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/images/generations": GENERATIONS,
    "/v1/images/edits": EDITS,
    "/v1/images/variations": VARIATIONS,
    "/v1/audio/speech": SPEECH,
    "/v1/audio/transcriptions": TRANSCRIPTIONS,
    "/v1/audio/translations": TRANSLATIONS,
    "/v1/moderations": MODERATIONS,
    "/v1/responses": RESPONSES,
    "/v1/responses/compact": COMPACT,
    "/v1/responses/input_tokens": INPUT_TOKENS,
}
#: Everything else: path template -> method -> who answers.
OTHERS: dict[str, dict[str, Handler]] = {
    "/metrics": {"GET": exposition.serve},
    "/v1/models": {"GET": models.listed},
    "/v1/models/{name*}": {"GET": models.one},
    **stored_chats.ADDRESSES,
    **stored_responses.ADDRESSES,
    **files.ADDRESSES,
    **batches.ADDRESSES,
}
_ADDRESSES = Addresses(ORDINARY, OTHERS)
_ORDINARY = _ADDRESSES.ordinary
#: Where the data plane answers; everything else belongs to the control plane.
PREFIX = "/v1/"
HEALTH_PATHS = frozenset(("/healthz", "/readyz", "/metrics"))


class MethodNotAllowed(ConsoleError):
    code = "method_not_allowed"
    status = 405
    openai_type = "invalid_request_error"


class Runtime(Protocol):
    """What starts and stops a plane: ``boot.Runtime``."""

    @property
    def plane(self) -> Plane: ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


class Gateway:
    """``make`` builds the runtime on the loop that serves. A server without lifespan starts it with the first request."""

    def __init__(self, make: Callable[[], Runtime]) -> None:
        self._make = make
        self._runtime: Runtime | None = None
        self._starting: asyncio.Task[None] | None = None

    def owns(self, path: str) -> bool:
        return path.startswith(PREFIX) or path in HEALTH_PATHS or path == "/v1"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            runtime = self._runtime
            if runtime is None:
                runtime = await self._started()
            await self._http(runtime.plane, scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, plane: Plane, scope: Message, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        endpoint = _ORDINARY.get(path)
        if endpoint is not None and method == "POST":
            await serve(plane, endpoint, scope, receive, send)
        elif path == "/healthz":
            await _answer(send, 200, {"status": "alive"})
        elif path == "/readyz":
            reason = plane.unready()
            await _answer(send, 503 if reason else 200, {"status": reason or "ready"})
        else:
            await _other(Visit(plane, scope, receive, send))

    # ------------------------------------------------------------------ life

    async def _started(self) -> Runtime:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)
        assert self._runtime is not None
        return self._runtime

    async def _start(self) -> None:
        runtime = self._make()
        await runtime.start()
        self._runtime = runtime

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._started()
                except Exception as error:
                    log.error("the data plane does not start", exc_info=error)
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self._runtime is not None:
                    await self._runtime.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _other(visit: Visit) -> None:
    handler, allowed = _ADDRESSES.find(visit)
    if handler is not None:
        await handler(visit)
        return
    if (
        not allowed
        and visit.method in passthrough.METHODS
        and passthrough.allows(visit.plane.view, visit.path)
    ):
        await passthrough.handle(visit)
        return
    method, path = visit.method, visit.path[:200]
    if allowed:
        error: ConsoleError = MethodNotAllowed(f"{path} takes {' and '.join(allowed)}, not {method}.")
        await _refuse(visit.scope, visit.send, error, [(b"allow", ", ".join(allowed).encode())])
    else:
        error = NotFound(
            f"There is nothing at {method} {path}. OpenAI's paths are served, such as /v1/chat/completions, /v1/responses, "
            "/v1/embeddings and /v1/models, without a slash at the end; a client's base URL ends with /v1. An operator may let "
            "other paths of a provider through, on the provider's page in the console.",
            code="unknown_url",
        )
        await _refuse(visit.scope, visit.send, error)


async def _answer(send: Send, status: int, content: object, headers: Headers | None = None) -> None:
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    sent: Headers = [JSON_TYPE, (b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


async def _refuse(scope: Message, send: Send, error: ConsoleError, headers: Headers | None = None) -> None:
    request = request_id_of(dict(scope["headers"]), str(uuid7()))
    more: Headers = [(b"x-request-id", request.encode()), *(headers or [])]
    await _answer(send, error.status, error_body(error), more)
