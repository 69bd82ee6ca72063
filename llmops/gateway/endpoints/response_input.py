"""What the body of a request for a response asks for: what bounds its input, what it names that is kept, what is not billed in
tokens. Fields: OpenAI API reference, "Responses"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.tokens.media import part_upper_bound
from llmops.gateway.endpoints.base import (
    ESCAPED,
    NULL,
    Asked,
    Members,
    Raw,
    Reference,
    encode,
    member,
    text_member,
)
from llmops.gateway.kept.owners import FILE, ITEM, MAX_ID, RESPONSE
from llmops.providers.pricing import AUDIO_IN, IMAGE_IN

#: What input holds beside text: nothing, parts that are bounded one by one, something whose tokens are not in the request.
NONE, PARTS, UNBOUNDED = 0, 1, 2
#: Tools that run at the caller's, or that are nothing but text for the model: their cost is in the tokens.
_METERED_TOOLS = frozenset(
    {
        "function",
        "custom",
        "local_shell",
        "apply_patch",
        "computer",
        "computer_use_preview",
        "computer-preview",
    }
)
#: Words without which an input is nothing but text.
_MARKS = tuple(
    f'"{word}"'.encode()
    for word in (
        "input_image", "input_audio", "input_file", "file_id", "item_reference", "computer_screenshot", "image_url",
        "image_generation_call", "compaction", "compaction_summary", "computer_call_output", "vector_store_ids",
    )
)  # fmt: skip
#: Kinds of input items that stand for what only the provider knows, or whose bytes say nothing about their tokens.
_UNSEEN = frozenset(
    {"item_reference", "compaction", "compaction_summary", "input_file", "image_generation_call"}
)
#: Members of a tool that name what a provider keeps: the kind of object (None: any), and its name in words.
_KEPT: dict[str, tuple[str | None, str]] = {
    "vector_store_ids": (None, "vector store"),
    "container": (None, "container"),
    "container_id": (None, "container"),
    "file_id": (FILE, "file"),
    "file_ids": (FILE, "file"),
    "skill_id": (None, "skill"),
    "tunnel_id": (None, "tunnel"),
}
#: Members of an input item that are about it, and what certain kinds must hold so that the item itself is told and not only
#: named: a provider looks everything else up by the item's id.
_ABOUT = frozenset(("type", "id", "status", "role"))
_TOLD_BY = {
    "item_reference": (),
    "reasoning": ("encrypted_content", "content"),
    "compaction": ("encrypted_content",),
    "image_generation_call": ("result",),
}
#: Members in which an answer tells where something came from: nothing is looked up by them.
_SOURCES = frozenset(("annotations", "results"))
#: Members of a tool that are the caller's own words, whatever they are called inside.
_SCHEMAS = frozenset(("parameters", "output_schema", "filters", "headers", "user_location"))


class _Item(msgspec.Struct):
    """Only enough of an input item to know that it is one, and whether it names a kept one."""

    type: str | None = None
    role: str | None = None
    id: Any = None
    approval_request_id: Any = None


_check_items = msgspec.json.Decoder(list[_Item]).decode


def read_input(asked: Asked) -> None:
    """Check ``input`` and what it refers to; say what bounds its tokens."""
    members = asked.members
    raw = members.get("input", NULL)
    first = bytes(memoryview(raw)[:2])
    refers = _conversation(members)
    if first == b"nu":
        if not refers and not given(members, "prompt"):
            raise InvalidRequest(
                "input: missing; it is needed.", param="input", code="missing_required_parameter"
            )
    elif first[:1] == b"[":
        if any(one.id or one.approval_request_id for one in _checked_list(raw)):
            named, asked.tells = _items_named(member(members, "input"))
            refers += named
        found = bytes(raw)
        if any(mark in found for mark in _MARKS) or ESCAPED.search(found):
            asked.media, files = _media(member(members, "input"))
            asked.uses = AUDIO_IN | IMAGE_IN
            refers += files
    elif first[:1] != b'"':
        raise InvalidRequest("input: must be text or a list of items.", param="input", code="invalid_type")
    elif first == b'""':
        raise InvalidRequest("input: must not be empty.", param="input")
    if any(one.kind != FILE for one in refers) or given(members, "prompt"):
        # The provider adds context that is not seen here.
        asked.media = UNBOUNDED
    if "prompt" in members:
        # Its variables may be files and images.
        refers += _prompt(member(members, "prompt"))
    if "tools" in members:
        refers += _stores(member(members, "tools"))
    if "prompt_cache_options" in members:
        options = member(members, "prompt_cache_options")
        compared = options.get("comparison_response_id") if isinstance(options, Mapping) else None
        if isinstance(compared, str) and compared:
            where = "prompt_cache_options.comparison_response_id"
            refers.append(Reference(RESPONSE, compared, where, "not_found", "response"))
    asked.refers = tuple(refers)


def given(members: Members, name: str) -> bool:
    """Whether a member is there and not null."""
    return name in members and bytes(memoryview(members[name])[:4]) != NULL


def _checked_list(raw: bytes | Raw) -> list[_Item]:
    try:
        if items := _check_items(raw):
            return items
    except msgspec.ValidationError as error:
        where = str(error).partition("`$")[2].rstrip("`")
        raise InvalidRequest(
            f"input{where}: each item must be an object.", param=f"input{where}", code="invalid_type"
        ) from None
    except RecursionError:
        raise InvalidRequest("input: nested too deeply.", param="input") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidRequest("input: not valid JSON.", param="input", code="invalid_json") from None
    raise InvalidRequest("input: must not be empty.", param="input")


def _items_named(items: list[Any]) -> tuple[list[Reference], tuple[str, ...]]:
    """The kept items that stand in the input by nothing but their ids, and the ids of those that stand there in full."""
    refers: list[Reference] = []
    told: list[str] = []
    approved: list[Reference] = []
    for index, item in enumerate(items):
        name, request = item.get("id"), item.get("approval_request_id")
        if isinstance(name, str) and name:
            if _told(item):
                told.append(name)
            else:
                refers.append(Reference(ITEM, name, f"input[{index}].id", "not_found", "item"))
        if isinstance(request, str) and request:
            where = f"input[{index}].approval_request_id"
            approved.append(Reference(ITEM, request, where, "not_found", "item"))
    refers += [one for one in approved if one.id not in told]
    return refers, tuple(dict.fromkeys(told))


def _told(item: Mapping[str, Any]) -> bool:
    """Whether an item stands in a request in full."""
    members = _TOLD_BY.get(item.get("type") or "")
    if members is None:
        return any(value not in (None, "", [], {}) for name, value in item.items() if name not in _ABOUT)
    return any(item.get(name) for name in members)


def _prompt(prompt: Any) -> list[Reference]:
    """A prompt that the provider keeps, and the files that its variables name."""
    name = prompt.get("id") if isinstance(prompt, Mapping) else None
    named = [Reference(None, name, "prompt.id", "not_found", "prompt")] if isinstance(name, str) else []
    return named + _media(prompt, param="prompt")[1]


def _conversation(members: Members) -> list[Reference]:
    refers = []
    if previous := text_member(members, "previous_response_id", longest=MAX_ID):
        refers.append(
            Reference(RESPONSE, previous, "previous_response_id", "previous_response_not_found", "response")
        )
    if "conversation" in members:
        given = member(members, "conversation")
        named = given.get("id") if isinstance(given, Mapping) else given
        if named is not None and (not isinstance(named, str) or not named):
            raise InvalidRequest(
                "conversation: must be an id, or an object with one.",
                param="conversation",
                code="invalid_type",
            )
        if named:
            refers.append(Reference(None, named, "conversation", "conversation_not_found", "conversation"))
    return refers


def _stores(tools: Any) -> list[Reference]:
    """Vector stores, containers and files that tools work on, wherever in a tool they are named."""
    refers = []
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        waiting: list[tuple[str, Any]] = [(f"tools[{index}]", tool)]
        while waiting:
            where, one = waiting.pop()
            if isinstance(one, list):
                waiting += [(where, inner) for inner in one]
            elif isinstance(one, Mapping):
                for name, value in one.items():
                    if name in _KEPT:
                        refers += [
                            Reference(_KEPT[name][0], text, f"{where}.{name}", "not_found", _KEPT[name][1])
                            for text in (value if isinstance(value, list) else [value])
                            if isinstance(text, str) and text
                        ]
                    if name not in _SCHEMAS and isinstance(value, (list, Mapping)):
                        waiting.append((f"{where}.{name}", value))
    return refers


def _media(items: Any, *, param: str = "input") -> tuple[int, list[Reference]]:
    """What bounds the tokens of these items, and the files and stores that they name."""
    media, refers = NONE, []
    for part in parts_of(items):
        kind = part.get("type")
        if kind in _UNSEEN:
            media = UNBOUNDED
        elif media == NONE and ("image_url" in part or kind in ("input_image", "input_audio")):
            media = PARTS
        file = part.get("file_id")
        if isinstance(file, str) and file:
            refers.append(Reference(FILE, file, param, "not_found", "file"))
        stores = part.get("vector_store_ids")
        for store in stores if isinstance(stores, list) else ():
            if isinstance(store, str):
                # A tool that a search for tools found.
                refers.append(Reference(None, store, param, "not_found", "vector store"))
    return media, refers


def parts_of(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every object inside of items, and the items themselves, but not where their text came from."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            yield one
            waiting.extend(
                inner
                for name, inner in one.items()
                if isinstance(inner, (list, Mapping)) and name not in _SOURCES
            )
        elif isinstance(one, list):
            waiting.extend(inner for inner in one if isinstance(inner, (list, Mapping)))


def part_bound(part: Mapping[str, Any], model: str) -> tuple[int | None, int]:
    """The most tokens that a part costs beyond its text, and how many of its bytes are data that say nothing about them."""
    kind, url = part.get("type"), part.get("image_url")
    data = len(url) if isinstance(url, str) and url.startswith("data:") else 0
    if kind == "input_image" or isinstance(url, str):
        return part_upper_bound({**part, "type": "input_image"}, model), data
    if kind == "input_audio":
        sound = part.get("input_audio")
        held = sound.get("data") if isinstance(sound, Mapping) else None
        return part_upper_bound(part, model), len(held) if isinstance(held, str) else 0
    return 0, 0


def unmetered(members: Members) -> str:
    """What of a request is billed by other measures than its tokens, in words; empty for nothing."""
    if given(members, "prompt"):
        return "a prompt kept at the provider, whose tools are not known here"
    if given(members, "context_management"):
        return "context management, which lets the model work more than once"
    if "tools" not in members:
        return ""
    tools = member(members, "tools")
    if tools is None:
        return ""
    if not isinstance(tools, list):
        raise InvalidRequest("tools: must be a list.", param="tools", code="invalid_type")
    return next(filter(None, map(_unmetered_tool, tools)), "")


def _unmetered_tool(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, Mapping) else None
    if kind in _METERED_TOOLS:
        return ""
    if kind == "namespace":
        inner = tool.get("tools")
        return next(filter(None, map(_unmetered_tool, inner)), "") if isinstance(inner, list) else ""
    if (
        kind == "shell"
        and isinstance(where := tool.get("environment"), Mapping)
        and where.get("type") == "local"
    ):
        return ""
    if kind == "tool_search" and tool.get("execution") == "client":
        return ""
    return f"the tool {kind[:60]!r}" if isinstance(kind, str) else "a tool of no known type"


def messages_of(members: Members) -> list[Mapping[str, Any]]:
    """Instructions and input as chat messages, in which form they are counted."""
    messages: list[Mapping[str, Any]] = []
    instructions = member(members, "instructions") if "instructions" in members else None
    if isinstance(instructions, str):
        messages.append({"role": "system", "content": instructions})
    elif instructions is not None:
        messages.append({"role": "system", "content": encode(instructions).decode()})
    given = member(members, "input")
    if isinstance(given, str):
        messages.append({"role": "user", "content": given})
    for item in given if isinstance(given, list) else ():
        if not isinstance(item, Mapping):
            continue
        if item.get("type", "message") == "message":
            messages.append({"role": item.get("role", ""), "content": item.get("content")})
        else:
            messages.append({"role": "tool", "content": encode(item).decode()})
    return messages
