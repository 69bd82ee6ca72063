"""/v1/batches: a batch is done a moment after it was made, when somebody looks. Fields: OpenAI API reference, "Batch"."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from llmops.core.asgi import Message
from llmops.simulator.errors import wrong, wrong_shape
from llmops.simulator.exchange import Exchange
from llmops.simulator.keeping import Batch, File

#: Seconds until a batch is done; its metadata can say otherwise (``simulator_seconds``).
_TAKES = 0.5
_ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/moderations")
_OVER = frozenset(("completed", "failed", "expired", "cancelled"))


class BatchRequest(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


class _Line(msgspec.Struct):
    custom_id: str
    url: str
    body: msgspec.Raw
    method: str = "POST"


async def create(exchange: Exchange) -> None:
    try:
        request = msgspec.json.decode(await exchange.body(), type=BatchRequest)
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong_shape(error) from error
    if request.endpoint not in _ENDPOINTS:
        raise wrong(f"Invalid 'endpoint': it is one of {', '.join(_ENDPOINTS)}.", "endpoint", "invalid_value")
    exchange.app.keeping.files.get(request.input_file_id)
    now = int(exchange.started)
    shown = {
        "id": exchange.new_id("batch_"),
        "object": "batch",
        "endpoint": request.endpoint,
        "errors": None,
        "input_file_id": request.input_file_id,
        "completion_window": request.completion_window,
        "status": "in_progress",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now,
        "in_progress_at": now,
        "expires_at": now + 86_400,
        "finalizing_at": None,
        "completed_at": None,
        "failed_at": None,
        "expired_at": None,
        "cancelling_at": None,
        "cancelled_at": None,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": request.metadata,
    }
    takes = float((request.metadata or {}).get("simulator_seconds", _TAKES))
    headers = {name: exchange.headers[name] for name in (b"authorization",) if name in exchange.headers}
    batch = Batch(shown, time.monotonic() + takes, headers)
    exchange.app.keeping.batches.put(batch)
    await exchange.whole(msgspec.json.encode(shown), answer_id=batch.id)


async def listing(exchange: Exchange) -> None:
    await exchange.whole(exchange.app.keeping.batches.page(exchange.query, 20, 100))


async def one(exchange: Exchange, name: str) -> None:
    batch = exchange.app.keeping.batches.get(name)
    await _advance(exchange, batch)
    await exchange.whole(msgspec.json.encode(batch.shown))


async def cancel(exchange: Exchange, name: str) -> None:
    batch = exchange.app.keeping.batches.get(name)
    if batch.shown["status"] in _OVER:
        raise wrong(f"Cannot cancel a batch with status '{batch.shown['status']}'.", status=409)
    now = int(time.time())
    batch.shown |= {"status": "cancelled", "cancelling_at": now, "cancelled_at": now}
    await exchange.whole(msgspec.json.encode(batch.shown))


async def _advance(exchange: Exchange, batch: Batch) -> None:
    """Ask every line, once the batch's time has come."""
    if batch.shown["status"] in _OVER or time.monotonic() < batch.due:
        return
    keeping, shown = exchange.app.keeping, batch.shown
    try:
        source = keeping.files.get(shown["input_file_id"])
        lines = [
            msgspec.json.decode(line, type=_Line) for line in b"".join(source.pieces()).splitlines() if line
        ]
        if any(line.url != shown["endpoint"] for line in lines):
            raise ValueError("The URL provided for this request does not match the batch endpoint.")
    except Exception as error:
        shown |= {"status": "failed", "failed_at": int(time.time())}
        shown["errors"] = {"object": "list", "data": [{"message": str(error), "code": "invalid_json_line"}]}
        return
    output = keeping.new_file(
        exchange.new_id("file-"), exchange.started, f"{batch.id}_output.jsonl", "batch_output"
    )
    errors = keeping.new_file(
        exchange.new_id("file-"), exchange.started, f"{batch.id}_error.jsonl", "batch_output"
    )
    failed = 0
    for number, line in enumerate(lines):
        status, body = await _ask(exchange, batch, line)
        said: dict[str, Any] = {
            "id": f"batch_req_{number}",
            "custom_id": line.custom_id,
            "response": {"status_code": status, "request_id": f"req_{number}", "body": msgspec.Raw(body)},
            "error": None,
        }
        (output if status < 400 else errors).content.write(msgspec.json.encode(said) + b"\n")
        failed += status >= 400
    for file, member in ((output, "output_file_id"), (errors, "error_file_id")):
        if file.content.tell():
            _seal(exchange, file)
            shown[member] = file.id
    now = int(time.time())
    shown |= {"status": "completed", "finalizing_at": now, "completed_at": now}
    shown["request_counts"] = {"total": len(lines), "completed": len(lines) - failed, "failed": failed}


def _seal(exchange: Exchange, file: File) -> None:
    file.shown["id"] = exchange.app.new_id("file-")
    exchange.app.keeping.seal(file)


async def _ask(exchange: Exchange, batch: Batch, line: _Line) -> tuple[int, bytes]:
    """The answer to one line, as if it had been a request."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    body = [{"type": "http.request", "body": bytes(line.body), "more_body": False}]

    async def receive() -> Message:
        # Nobody hangs up on a line of a batch.
        if not body:
            await asyncio.Event().wait()
        return body.pop()

    headers = [(b"content-type", b"application/json"), *batch.headers.items()]
    scope = {"type": "http", "method": line.method, "path": line.url, "query_string": b"", "headers": headers}
    await exchange.app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
