"""Where the texts of requests and answers stand, and changing some of them without touching anything else.

What is looked at is decided by the names of members, not by the endpoint: a new endpoint whose members have the names of
the others is covered from its first day.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.once import told_once
from llmops.gateway.endpoints.base import ESCAPED, Members, Raw, decode_any, encode
from llmops.gateway.forms.multipart import MAX_FIELD, Form
from llmops.policies.checks.base import Answer, Text

Path = tuple[str | int, ...]

#: Members of a request that hold what a model is told, with the role of bare text in them.
_ASKED = {
    "instructions": "system",
    "messages": "user",
    "input": "user",
    "prompt": "user",
    "prediction": "assistant",
}
#: Members that hold text, wherever they stand inside of messages, items and parts.
_TEXT = frozenset(
    (
        "text", "content", "output", "arguments", "input", "refusal", "transcript", "reasoning_content", "reasoning", "stdout",
        "stderr", "revised_prompt", "code", "logs", "query", "queries", "command", "commands", "diff", "quote",
    )
)  # fmt: skip
_LOG_PROBABILITIES = "logprobs"
_named_texts = re.compile(
    rb'"(?:%b)"\s*+:\s*+(?!null|""|\[\s*+\]|\{\s*+\})' % "|".join(sorted(_TEXT)).encode()
).findall
_names_log_probabilities = re.compile(rb'"logprobs"\s*+:\s*+(?!null|\[\s*+\])').search
#: Of these every string is text, whatever it is called.
_VARIABLES = "variables"
_ROLES = frozenset(("system", "developer", "user", "assistant", "tool"))
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


class Place(NamedTuple):
    path: Path
    text: Text


def asked_places(members: Members) -> tuple[list[Place], int]:
    """Every text that a request tells a model, and how many messages there are. Raises what decoding raises."""
    places: list[Place] = []
    messages = 0
    for name, role in _ASKED.items():
        raw = members.get(name)
        if not isinstance(raw, Raw):
            continue
        value = decode_any(raw)
        if isinstance(value, str):
            places.append(_place((name,), role, value))
            messages += name != "instructions"
        elif isinstance(value, list):
            messages += len(value)
            for index, item in enumerate(value):
                if isinstance(item, str):
                    places.append(_place((name, index), role, item))
                elif isinstance(item, dict):
                    _of_message(places, name, index, item)
        elif isinstance(value, Mapping):
            places += _texts((name,), role, value)
    return places, messages


def refuse_twice(members: Members) -> None:
    """Raises ``InvalidRequest`` naming the member in which one is given twice, and what decoding raises."""
    for name, raw in members.items():
        if isinstance(raw, Raw) and not told_once(bytes(raw), decode_any(raw)):
            raise InvalidRequest(
                f"{name}: a member is given twice in one of its objects; give each once.", param=name
            )


def form_places(form: Form) -> tuple[list[Place], int]:
    """The same of a form: its fields. Raises ``InvalidRequest`` for one that cannot be read in one way only."""
    places = []
    for name in dict.fromkeys(part.name for part in form.parts):
        role = _ASKED.get(name.partition("[")[0])
        if role is not None and (value := form.text(name, longest=MAX_FIELD)):
            places.append(_place((name,), role, value))
    return places, len(places)


def _of_message(places: list[Place], name: str, index: int, item: dict[str, Any]) -> None:
    """The texts of a message or an item. Nearly all have one, right below."""
    role = _role(item)
    for key, inner in item.items():
        if isinstance(inner, str):
            if inner and key in _TEXT:
                places.append(Place((name, index, key), Text(role, inner, f"{name}[{index}].{key}")))
        elif isinstance(inner, list | dict):
            places += _texts((name, index, key), role, inner, key in _TEXT)


def _role(item: Mapping[str, Any]) -> str:
    """Who speaks in a message or an item."""
    role, kind = item.get("role"), item.get("type")
    if role == "function":
        return "tool"
    if isinstance(role, str) and role in _ROLES:
        return role
    if isinstance(kind, str):
        if kind.endswith("_output"):
            return "tool"
        if kind.endswith("_call") or kind == "reasoning":
            return "assistant"
    return "user"


def answer_places(value: Any) -> list[Place]:
    """Every text of a decoded answer, or of a part of one."""
    return list(_texts((), "assistant", value))


def is_text(name: str) -> bool:
    """Whether a member of this name holds text, wherever it stands."""
    return name in _TEXT


def may_say_more(raw: bytes, known: int) -> bool:
    """Whether some JSON may have other texts than ``known`` ones that were found in it, none of them empty."""
    return len(_named_texts(raw)) != known or ESCAPED.search(raw) is not None


def says_no_log_probabilities(raw: bytes) -> bool:
    return b"logprobs" not in raw or _names_log_probabilities(raw) is None


def log_probabilities(value: Any) -> dict[Path, Any]:
    """Where some decoded JSON tells a text once more, token by token, and what stands there where it does not."""
    found: dict[Path, Any] = {}
    waiting: list[tuple[Path, Any]] = [((), value)] if isinstance(value, list | Mapping) else []
    while waiting:
        at, one = waiting.pop()
        for name, below in one.items() if isinstance(one, Mapping) else enumerate(one):
            if name == _LOG_PROBABILITIES:
                if below:
                    found[*at, name] = [] if isinstance(below, list) else None
            elif isinstance(below, list | Mapping):
                waiting.append(((*at, name), below))
    return found


def _texts(path: Path, role: str, value: Any, text: bool = False) -> Iterator[Place]:
    # Not by recursion: what is nested as deeply as a decoder allows must not be too deep here.
    waiting: list[tuple[Path, Any, bool]] = [(path, value, text)]
    while waiting:
        at, one, text = waiting.pop()
        if isinstance(one, str):
            if text and one:
                yield _place(at, role, one)
        elif isinstance(one, Mapping):
            every = bool(at) and at[-1] == _VARIABLES
            for name in reversed(one):
                inner = one[name]
                if isinstance(inner, str | list | Mapping):
                    waiting.append(((*at, name), inner, every or name in _TEXT))
        elif isinstance(one, list):
            for index in range(len(one) - 1, -1, -1):
                inner = one[index]
                if isinstance(inner, str | list | Mapping):
                    waiting.append(((*at, index), inner, text))


def _place(path: Path, role: str, text: str) -> Place:
    return Place(path, Text(role, text, where(path)))


def where(path: Path) -> str:
    """``messages[2].content``"""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


# ---------------------------------------------------------------------- changing


def rewritten(raw: bytes | Raw, changes: Mapping[Path, Any]) -> bytes:
    """JSON with other values at some paths. What is not on the way to one of them keeps its bytes."""
    if () in changes:
        return encode(changes[()])
    inner: dict[str | int, dict[Path, Any]] = {}
    for path, value in changes.items():
        inner.setdefault(path[0], {})[path[1:]] = value
    if isinstance(next(iter(inner)), str):
        members = _decode_members(raw)
        for name, below in inner.items():
            assert isinstance(name, str)
            members[name] = Raw(rewritten(members.get(name, b"null"), below))
        return encode(members)
    items = _decode_list(raw)
    for index, below in inner.items():
        assert isinstance(index, int)
        items[index] = Raw(rewritten(items[index], below))
    return encode(items)


def rewrite_members(members: Members, changes: Mapping[Path, Any]) -> int:
    """Change texts of a request; returns by how many bytes it grew."""
    grew = 0
    by_member: dict[str, dict[Path, Any]] = {}
    for path, value in changes.items():
        by_member.setdefault(str(path[0]), {})[path[1:]] = value
    for name, below in by_member.items():
        before = members[name]
        after = rewritten(before, below)
        grew += len(after) - len(bytes(before))
        members[name] = Raw(after)
    return grew


# ---------------------------------------------------------------------- answers as a whole

_RESPONSE_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def answers_of(body: Mapping[str, Any], schema: Any) -> list[Answer]:
    """The choices of a decoded answer; none when it has no text."""
    if isinstance(body.get("choices"), list):
        return [_choice(one, schema) for one in body["choices"] if isinstance(one, Mapping)]
    if isinstance(body.get("output"), list):
        return [_response(body, schema)]
    if isinstance(body.get("text"), str):
        return [Answer(body["text"], "stop", "", False, schema)]
    return []


def _choice(choice: Mapping[str, Any], schema: Any) -> Answer:
    message = choice.get("message")
    message = message if isinstance(message, Mapping) else {}
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(one.get("text") or "") for one in content if isinstance(one, Mapping))
    return Answer(
        text=content if isinstance(content, str) else "",
        finish=str(choice.get("finish_reason") or ""),
        refusal=str(message.get("refusal") or ""),
        tools=bool(message.get("tool_calls") or message.get("function_call")),
        schema=schema,
    )


def _response(body: Mapping[str, Any], schema: Any) -> Answer:
    texts, refusals, tools = [], [], False
    for item in body["output"]:
        if not isinstance(item, Mapping):
            continue
        tools = tools or str(item.get("type", "")).endswith("_call")
        content = item.get("content")
        for part in content if isinstance(content, list) and item.get("type") == "message" else ():
            if isinstance(part, Mapping):
                texts.append(str(part.get("text") or ""))
                refusals.append(str(part.get("refusal") or ""))
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    finish = _RESPONSE_FINISH.get(str(reason), "") if reason else "stop"
    return Answer("".join(texts), finish, "".join(refusals), tools, schema)


def schema_asked(members: Members) -> Any:
    """The JSON Schema that a request asks its answer to follow: ``response_format`` of chat, ``text.format`` of responses.
    ``True``, which every JSON follows, for JSON without a schema; None for none."""
    raw, kind = members.get("response_format"), "json_schema"
    if raw is None:
        raw, kind = members.get("text"), "format"
    if not isinstance(raw, Raw):
        return None
    asked = decode_any(raw)
    if kind == "format" and isinstance(asked, Mapping):
        asked = asked.get("format")
    if not isinstance(asked, Mapping):
        return None
    if asked.get("type") == "json_object":
        return True
    if asked.get("type") != "json_schema":
        return None
    held = asked.get("json_schema") if kind == "json_schema" else asked
    schema = held.get("schema") if isinstance(held, Mapping) else None
    return schema if isinstance(schema, Mapping | bool) else None
