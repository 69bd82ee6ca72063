"""Batches that tests make: their lines, what answers them, and a provider that keeps them."""

from __future__ import annotations

import json
from typing import Any

from tests.gateway.rig import (
    Answer,
    Asked,
    Reply,
    Rig,
    Script,
)

A_BATCH = {
    "id": "batch_1",
    "object": "batch",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
}
DONE = A_BATCH | {"status": "completed", "output_file_id": "file-out", "error_file_id": "file-err"}
CHAT = "/v1/chat/completions"
BODY = {"input_file_id": "file-1", "endpoint": CHAT, "completion_window": "24h"}


def lines(*models: str) -> bytes:
    return b"".join(
        json.dumps({"custom_id": str(n), "method": "POST", "url": CHAT, "body": {"model": model}}).encode()
        + b"\n"
        for n, model in enumerate(models)
    )


def a_line(**changes: Any) -> bytes:
    line = {"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "sim-small"}} | changes
    return json.dumps({name: value for name, value in line.items() if value is not ...}).encode() + b"\n"


def answered(*used: tuple[str, Any]) -> bytes:
    """An output file: for each line the model and its usage."""
    return b"".join(
        json.dumps(
            {"custom_id": str(n), "response": {"status_code": 200, "body": {"model": model, "usage": said}}}
        ).encode()
        + b"\n"
        for n, (model, said) in enumerate(used)
    )


def at(**scripts: Script) -> Script:
    """By the end of the path: ``content``, ``batches``, ``batch_1``."""

    async def script(asked: Asked, reply: Reply) -> None:
        name = asked.path.rsplit("/", 1)[1].partition("?")[0]
        if name == "content" and f"{asked.path.split('/')[-2]}".replace("-", "_") in scripts:
            name = asked.path.split("/")[-2].replace("-", "_")
        await scripts[name](asked, reply)

    return script


async def create(rig: Rig, **how: Any) -> Answer:
    return await rig.call(BODY | how.pop("body", {}), path="/v1/batches", **how)
