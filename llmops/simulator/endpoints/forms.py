"""Requests that may be forms (RFC 7578): their fields and files, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmops.simulator.errors import wrong
from llmops.simulator.exchange import Exchange

_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^";\s]{1,70}))')
_NAME = re.compile(rb'[; ]name="([^"]*)"')


@dataclass(slots=True)
class Sent:
    """What was sent: fields as text (or members of JSON as they are) and files, both in order. ``raw`` is all of it."""

    raw: bytes
    fields: dict[str, Any] = field(default_factory=dict)
    files: list[tuple[str, bytes]] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        value = self.fields.get(name)
        return default if value is None else str(value)

    def number(self, name: str, default: int, low: int, high: int) -> int:
        given = self.text(name)
        if not given:
            return default
        if not given.isdecimal() or not low <= int(given) <= high:
            raise wrong(
                f"Invalid '{name}': {given!r} is not between {low} and {high}.", name, "invalid_value"
            )
        return int(given)

    def flag(self, name: str) -> bool:
        return self.text(name).lower() == "true"


async def read(exchange: Exchange, *, json: bool = True) -> Sent:
    """The form, or with ``json`` the object, that was sent. Raises the 400 that a caller gets."""
    kind = exchange.header(b"content-type")
    body = await exchange.body()
    if kind.startswith("multipart/form-data"):
        return _form(kind, body)
    if not json:
        raise wrong("The request must be multipart/form-data.")
    try:
        return Sent(body, msgspec.json.decode(body, type=dict[str, Any]))
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise wrong(f"The body is no JSON object: {error}.") from error


def _form(kind: str, body: bytes) -> Sent:
    found = _BOUNDARY.search(kind)
    if found is None:
        raise wrong("The form names no boundary.")
    mark = b"--" + (found[1] or found[2]).encode()
    sent = Sent(body)
    at = body.find(mark)
    while at >= 0 and body[at + len(mark) : at + len(mark) + 2] == b"\r\n":
        head_ends = body.find(b"\r\n\r\n", at)
        ends = body.find(b"\r\n" + mark, head_ends + 2)
        if head_ends < 0 or ends < 0:
            raise wrong("The form breaks off.")
        head, content = body[at:head_ends], body[head_ends + 4 : ends]
        called = _NAME.search(head)
        if called is not None:
            name = called[1].decode("utf-8", "replace")
            if b'filename="' in head:
                sent.files.append((name, content))
            else:
                sent.fields[name] = content.decode("utf-8", "replace")
        at = ends + 2
    if at < 0 or body[at + len(mark) : at + len(mark) + 2] != b"--":
        raise wrong("The form breaks off.")
    return sent


def model_of(exchange: Exchange, sent: Sent) -> str:
    model = sent.text("model")
    if not model:
        raise wrong("Missing required parameter: 'model'.", "model", "missing_required_parameter")
    exchange.model = model
    return model
