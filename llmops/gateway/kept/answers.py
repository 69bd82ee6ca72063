"""What a client was answered, of calls whose texts are kept for people: taken as it goes out, so that it is what policies let pass.
What a policy took out of the request and put back into the answer is not for other people: its placeholder is kept.

Written down when the answer has its end; what a client left before that is not kept. Nothing of a call waits or fails for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from llmops.core.asgi import Message
from llmops.core.redaction import redact_text
from llmops.usage.records import ANSWER, Origin, kept_answer_identity

if TYPE_CHECKING:
    from llmops.gateway.call import Call

#: Of an answer's texts together, and of the bytes in which it came: a stream says little in many.
MOST_BYTES, MOST_RAW_BYTES = 32 * 1024, 1024 * 1024
#: Of one answer: choices, and calls of tools.
_MOST_PARTS = 64
TEXT, REFUSAL, TOOL = "text", "refusal", "tool"
_encode = msgspec.json.Encoder().encode


#: Answers without words of anybody's.
_WORDLESS = ("embeddings", "moderations", "images.", "audio.speech", "responses.input_tokens")


class Keeping:
    """Stands between a call and its client, and sees what goes out."""

    __slots__ = ("_call", "_events", "_origin", "_pieces", "_seal", "_send", "_size", "_status", "_taken")

    def __init__(self, call: Call, origin: Origin, seal: Callable[[str, str], str]) -> None:
        self._call = call
        self._origin = origin
        self._seal = seal
        self._send = call.send
        self._pieces: list[bytes] = []
        self._size = self._taken = self._status = 0
        self._events = False
        if not call.endpoint.name.startswith(_WORDLESS):
            call.send = self.send

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._events = any(
                name == b"content-type" and value.startswith(b"text/event-stream")
                for name, value in message["headers"]
            )
        elif self._status == 200:
            data = message.get("body", b"")
            self._size += len(data)
            if self._size <= MOST_RAW_BYTES:
                self._pieces.append(data)
                self._taken = self._size
            if not message.get("more_body", False):
                self._conclude()
        await self._send(message)

    def _conclude(self) -> None:
        call, seal, events = self._call, self._seal, self._events
        raw, missing = b"".join(self._pieces), self._size > self._taken
        self._pieces.clear()
        taken_out = dict(call.policing.placeholders.values) if call.policing is not None else {}

        def work() -> str:
            parts, cut = bounded(without(taken_out, parts_of(raw, events=events)))
            if not parts:
                return ""
            told = {"parts": parts, "cut": cut or missing}
            return seal(_encode(told).decode(), kept_answer_identity(call.id))

        call.plane.aside.keep(self._origin, work, size=len(raw), readable=True, part=ANSWER)


def without(taken_out: Mapping[bytes, bytes], parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """``parts`` with placeholders in place of the values that they stand for; ``taken_out`` has them by placeholder."""
    # The longest first: one may be part of another.
    for placeholder, value in sorted(taken_out.items(), key=lambda one: -len(one[1])):
        told, stands = value.decode("utf-8", "replace"), placeholder.decode()
        parts = [(kind, text.replace(told, stands)) for kind, text in parts]
    return parts


#: What secrets consist of, and how long most of them are.
_OF_SECRETS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~+/=:@-"
_LONG_SECRET = 512


def beginning(text: str, most: int) -> str:
    """At most ``most`` characters of ``text``; where it is cut, without what may be the first part of a secret, which has no shape."""
    if len(text) <= most:
        return text
    cut = max(0, most - _LONG_SECRET)
    return text[:cut] + text[cut:most].rstrip(_OF_SECRETS)


def bounded(parts: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], bool]:
    """Redacted, the first ones first; and whether something is missing."""
    left, kept, cut = MOST_BYTES, list[tuple[str, str]](), len(parts) > _MOST_PARTS
    for kind, text in parts[:_MOST_PARTS]:
        if left <= 0:
            return kept, True
        whole = redact_text(beginning(text, left * 2))
        raw = whole.encode("utf-8", "replace")
        cut = cut or len(raw) > left or len(text) > left * 2
        kept.append((kind, raw[:left].decode("utf-8", "ignore")))
        left -= len(raw)
    return kept, cut


def parts_of(raw: bytes, *, events: bool) -> list[tuple[str, str]]:
    """What an answer says, as pairs of ``text``, ``refusal`` or ``tool`` and the words; a call of a tool is ``name(arguments)``."""
    return _of_events(raw) if events else list(_of_whole(_decoded(raw)))


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _of_whole(body: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(body, Mapping):
        return
    for choice in _objects(body.get("choices")):
        message = choice.get("message")
        if isinstance(message, Mapping):
            yield from _of_message(message)
        elif isinstance(choice.get("text"), str):
            yield TEXT, choice["text"]
    for item in _objects(body.get("output")):
        if item.get("type") == "message":
            for part in _objects(item.get("content")):
                if isinstance(part.get("text"), str):
                    yield TEXT, part["text"]
                if isinstance(part.get("refusal"), str):
                    yield REFUSAL, part["refusal"]
        elif str(item.get("type", "")).endswith("_call"):
            yield TOOL, _tool(item.get("name") or item["type"], item.get("arguments") or item.get("input"))
    if isinstance(body.get("text"), str):
        yield TEXT, body["text"]


def _of_message(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, name in ((TEXT, "content"), (REFUSAL, "refusal")):
        if isinstance(value := message.get(name), str) and value:
            yield kind, value
    for call in _objects(message.get("tool_calls")):
        function = call.get("function") or call.get("custom")
        if isinstance(function, Mapping):
            yield TOOL, _tool(function.get("name"), function.get("arguments") or function.get("input"))


def _of_events(raw: bytes) -> list[tuple[str, str]]:
    """Of a stream of either shape: chunks of choices, or events of a response, whose last one tells the whole."""
    texts: dict[tuple[Any, str], list[str]] = {}
    tools: dict[tuple[Any, Any], dict[str, str]] = {}
    for line in raw.split(b"\n"):
        if not line.startswith(b"data:"):
            continue
        event = _decoded(line[5:])
        if not isinstance(event, Mapping):
            continue
        kind = event.get("type")
        if kind in ("response.completed", "response.incomplete") and isinstance(
            event.get("response"), Mapping
        ):
            return list(_of_whole(event["response"]))
        if isinstance(kind, str) and kind.endswith("text.delta") and "reasoning" not in kind:
            _grow(texts, (0, TEXT), event.get("delta") or event.get("text"))
        elif kind == "response.refusal.delta":
            _grow(texts, (0, REFUSAL), event.get("delta"))
        for choice in _objects(event.get("choices")):
            at, delta = choice.get("index", 0), choice.get("delta")
            if not isinstance(delta, Mapping) or not isinstance(at, int):
                continue
            _grow(texts, (at, TEXT), delta.get("content"))
            _grow(texts, (at, REFUSAL), delta.get("refusal"))
            for call in _objects(delta.get("tool_calls")):
                function = call.get("function") or call.get("custom")
                index = call.get("index", 0)
                if isinstance(function, Mapping) and isinstance(index, int) and len(tools) <= _MOST_PARTS:
                    tool = tools.setdefault((at, index), {"name": "", "said": ""})
                    tool["name"] = tool["name"] or str(function.get("name") or "")
                    tool["said"] += str(function.get("arguments") or function.get("input") or "")
    found = [
        (kind, "".join(pieces)) for (_, kind), pieces in sorted(texts.items(), key=lambda one: one[0][0])
    ]
    return found + [(TOOL, _tool(one["name"], one["said"])) for _, one in sorted(tools.items())]


def _grow(texts: dict[tuple[Any, str], list[str]], at: tuple[Any, str], piece: object) -> None:
    if isinstance(piece, str) and piece and (at in texts or len(texts) <= _MOST_PARTS):
        texts.setdefault(at, []).append(piece)


def _tool(name: object, said: object) -> str:
    return f"{name}({said if isinstance(said, str) else json.dumps(said) if said else ''})"


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
