"""GET /v1/models and /v1/models/{id}: the routes and models that a key may name, in OpenAI's shape."""

from __future__ import annotations

import time

from llmops.core.asgi import Message, Send
from llmops.core.errors import ConsoleError, ModelNotFound
from llmops.core.ids import uuid7
from llmops.gateway import on_behalf
from llmops.gateway.addresses import Visit
from llmops.gateway.auth import authenticate
from llmops.gateway.call import request_id_of
from llmops.gateway.endpoints.base import encode
from llmops.gateway.errors import JSON_TYPE, Headers, as_console_error, error_body, error_headers
from llmops.gateway.plane import Plane

#: Models have no date of birth here; OpenAI's shape wants one.
_CREATED = 0


async def listed(visit: Visit) -> None:
    await _serve(visit.plane, visit.scope, visit.send, None)


async def one(visit: Visit) -> None:
    await _serve(visit.plane, visit.scope, visit.send, visit.arguments["name"])


async def _serve(plane: Plane, scope: Message, send: Send, name: str | None) -> None:
    """The list, or the one model called ``name``. A model that the key may not use is not there."""
    headers = dict(scope["headers"])
    request = request_id_of(headers, str(uuid7()))
    status, more = 200, []
    try:
        view, now = plane.view, time.time()
        key = authenticate(view.snapshot, headers.get(b"authorization"), now)
        if key.held and on_behalf.HEADER in headers:
            key = on_behalf.key_for(view, key, headers[on_behalf.HEADER], now)
        shown = [
            {"id": slug, "object": "model", "created": _CREATED, "owned_by": owner}
            for slug, owner in view.callable_names(key)
        ]
        if name is None:
            body = encode({"object": "list", "data": shown})
        else:
            found = next((one for one in shown if one["id"] == name), None)
            if found is None:
                raise ModelNotFound(f"The model {name[:100]!r} does not exist here.", param="model")
            body = encode(found)
    except Exception as problem:
        error: ConsoleError = as_console_error(problem, where="models")
        status, body, more = error.status, error_body(error), error_headers(error)
    sent: Headers = [
        JSON_TYPE,
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request.encode()),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
