"""What an error body says, in whichever shape an OpenAI-compatible server writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Said(msgspec.Struct, frozen=True):
    """An error body as a provider wrote it, its members by OpenAI's names."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str = ""
    #: the code as it stood there
    raw_code: str | int | None = None


def read_error(body: bytes) -> Said | None:
    """The error that a body tells, in any of the shapes of OpenAI-compatible servers; None when it tells none.

    OpenAI, Azure, llama.cpp: ``{"error": {...}}``; Google: the same in a list; Ollama, text-generation-inference:
    ``{"error": "text"}``; vLLM, Mistral: ``{"object": "error", "message": ...}``; FastAPI: ``{"detail": ...}``.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return None
    error = found.get("error")
    if isinstance(error, dict):
        return _said(error)
    if isinstance(error, str) and error:
        return _said({**found, "message": error})
    if isinstance(found.get("message"), str):
        return _said(found)
    detail = found.get("detail")
    if isinstance(detail, list):
        detail = "; ".join(str(one["msg"]) for one in detail if isinstance(one, dict) and "msg" in one)
    return Said(message=detail) if isinstance(detail, str) and detail else None


def _said(error: Mapping[str, Any]) -> Said:
    def text(name: str) -> str | None:
        value = error.get(name)
        return value if isinstance(value, str) else None

    code = error.get("code")
    if isinstance(code, bool) or not isinstance(code, str | int):
        code = None
    return Said(
        message=text("message") or "",
        type=text("type"),
        param=text("param"),
        code="" if code is None else str(code),
        raw_code=code,
    )
