"""Messages of the Model Context Protocol, as far as a server that offers tools needs them. Pure.

Two generations are spoken over one address (https://modelcontextprotocol.io/specification): those that begin with ``initialize``
(2025-03-26 to 2025-11-25), and 2026-07-28, whose every request carries its version and the client's abilities in ``params._meta``
and repeats method and name in headers. Nothing is kept between requests in either.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from llmops.core.digests import canonical_json

#: Versions that are agreed on by ``initialize``, newest last, and those that every request names.
HANDSHAKE, MODERN = ("2025-03-26", "2025-06-18", "2025-11-25"), ("2026-07-28",)
PARSE_ERROR, INVALID_REQUEST, NO_METHOD, INVALID_PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022
VERSION_HEADER, METHOD_HEADER, NAME_HEADER = "mcp-protocol-version", "mcp-method", "mcp-name"
SESSION_HEADER = "mcp-session-id"
_PREFIX = "io.modelcontextprotocol/"
_ENCODED = re.compile(r"=\?base64\?(.*)\?=")
_SESSION = re.compile(r"[0-9a-f]{32}")
MOST_BYTES = 256 * 1024


class Refused(Exception):
    """A message that is answered with an error of JSON-RPC. ``status`` is that of HTTP."""

    def __init__(
        self, code: int, message: str, *, status: int = 400, data: Any = None, of: Any = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.data, self.of = code, message, status, data, of


@dataclass(frozen=True, slots=True)
class Message:
    """One request, or a notification (``id`` is None). ``modern`` says which generation it belongs to; ``session`` is what
    ``initialize`` gave its client, where it did."""

    method: str
    params: Mapping[str, Any]
    id: str | int | None = None
    modern: bool = False
    session: str = ""

    @property
    def meta(self) -> Mapping[str, Any]:
        found = self.params.get("_meta")
        return found if isinstance(found, Mapping) else {}

    @property
    def progress_token(self) -> str | int | None:
        token = self.meta.get("progressToken")
        return token if isinstance(token, str | int) and not isinstance(token, bool) else None


def read(body: bytes, headers: Mapping[str, str]) -> Message:
    """The message that ``body`` is. ``headers`` by lower-case name. Raises ``Refused``."""
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
        # Half of a surrogate pair can be read and not be written again.
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise Refused(PARSE_ERROR, "This is not JSON in UTF-8, or names a member twice.") from None
    if (
        not isinstance(found, dict)
        or found.get("jsonrpc") != "2.0"
        or not isinstance(found.get("method"), str)
    ):
        raise Refused(INVALID_REQUEST, "Send one JSON-RPC 2.0 request or notification at a time.")
    number = found.get("id")
    if "id" in found and (isinstance(number, bool) or not isinstance(number, str | int)):
        raise Refused(INVALID_REQUEST, "id: a text or a whole number.")
    if isinstance(number, str) and len(number) > 200:
        raise Refused(INVALID_REQUEST, "id: at most 200 characters.")
    params = found.get("params", {})
    if not isinstance(params, dict):
        raise Refused(INVALID_PARAMS, "params: an object is needed.", of=number)
    session = headers.get(SESSION_HEADER, "")
    message = Message(
        found["method"],
        params,
        number,
        session=session if _SESSION.fullmatch(session) else "",
        modern=_modern(found, headers),
    )
    if message.modern and message.id is not None:
        _check_envelope(message, headers)
    return message


def _modern(found: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Which generation a message is of. Raises ``Refused`` for a version that is not spoken."""
    version = headers.get(VERSION_HEADER, "")
    # Whoever begins with it has not agreed on a version yet, whatever a proxy or a library set.
    if found["method"] == "initialize" or not version or version in HANDSHAKE:
        return False
    if version in MODERN:
        return True
    raise _unsupported(version, found.get("id"))


def _unsupported(version: Any, number: Any) -> Refused:
    data = {"supported": [*HANDSHAKE, *MODERN], "requested": version}
    return Refused(UNSUPPORTED_VERSION, "Unsupported protocol version", data=data, of=number)


def _check_envelope(message: Message, headers: Mapping[str, str]) -> None:
    version_key, abilities_key = f"{_PREFIX}protocolVersion", f"{_PREFIX}clientCapabilities"
    missing = [key for key in (version_key, abilities_key) if key not in message.meta]
    if missing:
        raise Refused(INVALID_PARAMS, f"params._meta: {', '.join(missing)} is missing.", of=message.id)
    version = message.meta[version_key]
    if version != headers.get(VERSION_HEADER):
        raise _mismatch(VERSION_HEADER, f"_meta[{version_key!r}]", message)
    if headers.get(METHOD_HEADER) != message.method:
        raise _mismatch(METHOD_HEADER, "method", message)
    name = message.params.get("name")
    if message.method == "tools/call" and name is not None and _decoded(headers.get(NAME_HEADER, "")) != name:
        raise _mismatch(NAME_HEADER, "params.name", message)


def _mismatch(header: str, member: str, message: Message) -> Refused:
    return Refused(HEADER_MISMATCH, f"The header {header} is not what {member} says.", of=message.id)


def _decoded(value: str) -> str | None:
    found = _ENCODED.fullmatch(value)
    if found is None:
        return value
    try:
        return base64.b64decode(found[1], validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


# Answers ------------------------------------------------------------------------------------------------------------


def answer(message: Message, result: Mapping[str, Any]) -> dict[str, Any]:
    told = {**result, "resultType": "complete"} if message.modern else dict(result)
    return {"jsonrpc": "2.0", "id": message.id, "result": told}


def refusal(refused: Refused) -> dict[str, Any]:
    error: dict[str, Any] = {"code": refused.code, "message": refused.message}
    if refused.data is not None:
        error["data"] = refused.data
    return {"jsonrpc": "2.0", "id": refused.of, "error": error}


def no_method(message: Message) -> Refused:
    return Refused(
        NO_METHOD,
        f"There is no method {message.method[:80]!r} here.",
        status=404 if message.modern else 200,
        of=message.id,
    )


def progress(token: str | int, seconds: float, said: str) -> dict[str, Any]:
    """``seconds`` only ever grow, as the protocol wants of progress; how much there is in all nobody knows."""
    params = {"progressToken": token, "progress": seconds, "message": said}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


def event(message: Mapping[str, Any]) -> bytes:
    """A message as one server-sent event; canonical JSON has no line breaks."""
    return b"event: message\ndata: " + canonical_json(message) + b"\n\n"


def agreed(wanted: Any) -> str:
    """The version that ``initialize`` ends with: what the client asks for, or else the newest."""
    return wanted if isinstance(wanted, str) and wanted in HANDSHAKE else HANDSHAKE[-1]


def new_session() -> str:
    return uuid4().hex


def idempotency_key(message: Message, digest: str) -> str:
    """Under which a call is the same when it comes again; empty where its id may be that of another call.

    Clients count their requests from 0 or 1, so a number is one call only within a session; a long text is one everywhere.
    """
    own = isinstance(message.id, str) and len(message.id) >= 16
    if message.id is None or not (message.session or own):
        return ""
    return f"mcp:{message.session}:{message.id}"[:150] + f":{digest[:40]}"
