"""Two projects whose things a provider keeps, and a provider that hands them out."""

from __future__ import annotations

from typing import Any

from llmops.serving.snapshot import KeyEntry
from tests.gateway.rig import (
    KEY,
    Answer,
    Asked,
    Reply,
    Rig,
    Script,
    a_key,
)

OTHER = "llmops_othertes_" + "o" * 40
MINE, THEIRS = a_key(), a_key("theirs", project="sales")


def configure(rig: Rig, **what: Any) -> None:
    keys: dict[str, KeyEntry] = {KEY: MINE, OTHER: THEIRS}
    rig.configure(**({"keys": keys} | what))


def gives(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(content, status, headers)

    return script


def bytes_of(*pieces: bytes, length: int | None = None, kind: str = "application/octet-stream") -> Script:
    async def script(asked: Asked, reply: Reply) -> None:
        size = sum(map(len, pieces)) if length is None else length
        await reply.head(
            200,
            {
                "content-type": kind,
                "content-length": str(size),
                "content-disposition": 'attachment; filename="a.jsonl"',
                "set-cookie": "a=b",
                "x-other": "no",
            },
        )
        for piece in pieces:
            await reply.raw(piece)
        if length is not None:
            reply.cut()

    return script


async def get(rig: Rig, path: str, **how: Any) -> Answer:
    return await rig.call(b"", method=how.pop("method", "GET"), path=path, **how)


A_FILE = {"id": "file-1", "object": "file", "bytes": 3, "purpose": "batch"}
FORM = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--b--\r\n'
FORM_TYPE = {"content-type": "multipart/form-data; boundary=b"}
