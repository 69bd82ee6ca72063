"""POST /v1/responses, and its sisters that compact and count. Fields: OpenAI API reference, "Responses"; those not named here
go through untouched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.tokens import count_chat
from llmops.core.tokens.media import part_upper_bound
from llmops.gateway.endpoints.base import (
    ESCAPED,
    FREE,
    MAX_TOKENS,
    MAX_USAGE_TOKENS,
    MAX_USER,
    NULL,
    Asked,
    Members,
    Raw,
    Reference,
    Whole,
    asked_of,
    count_member,
    encode,
    flag_member,
    member,
    read_members,
    text_member,
    tier_of,
    whole_from,
    whole_of,
    with_defaults,
)
from llmops.gateway.kept.objects import FILE, ITEM, MAX_ID, RESPONSE
from llmops.gateway.routing import Target
from llmops.gateway.streaming.events import Relay, tool_names
from llmops.gateway.streaming.responses import FINISHES, ResponsesRelay
from llmops.providers.pricing import AUDIO_IN, IMAGE_IN
from llmops.usage.records import Tokens

CAP = "max_output_tokens"
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
#: How much a count is raised to be a bound: the shape in which items are shown to a model is not published.
_MARGIN = 0.25
_MARGIN_TOKENS = 64


class Responses:
    name = "responses"
    path = "/responses"
    has_output = True
    forms = False

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        asked = asked_of(members, len(body))
        _read_input(asked)
        asked.stream = flag_member(members, "stream")
        if CAP in members:
            asked.cap, asked.cap_field = count_member(members, CAP, largest=MAX_TOKENS), CAP
        if not asked.user and "safety_identifier" in members:
            asked.user = text_member(members, "safety_identifier", longest=MAX_USER)
        if "service_tier" in members:
            asked.tier = tier_of(member(members, "service_tier"))
        asked.background = "background" in members and flag_member(members, "background")
        if not _given(members, "store") or flag_member(members, "store"):
            asked.keeps = RESPONSE
        if asked.background and not asked.keeps:
            raise InvalidRequest("background: needs store to be true.", param="background")
        asked.unmetered = _unmetered(members)
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        sent = with_defaults(asked.members, target)
        if cap is not None and cap != asked.cap:
            sent[CAP] = cap
        return encode(sent)

    def input_bound(self, asked: Asked, target: Target) -> int:
        window = target.entry.context_window
        if asked.media == NONE:
            return min(asked.size, window)
        if asked.media == UNBOUNDED:
            return window
        size = asked.size
        for part in _parts(member(asked.members, "input")):
            tokens, data = _part_bound(part, target.entry.upstream_model)
            if tokens is None:
                return window
            size += tokens - data
        return min(size, window)

    def count_input(self, asked: Asked, target: Target) -> int:
        bound = self.input_bound(asked, target)
        if asked.media == UNBOUNDED:
            return bound
        tools = member(asked.members, "tools")
        counted = count_chat(
            _messages(asked.members), target.entry.upstream_model, tools if isinstance(tools, list) else None
        )
        shown = sum(len(bytes(asked.members.get(name, b""))) for name in ("text", "tool_choice"))
        return min(counted + int(counted * _MARGIN) + _MARGIN_TOKENS + shown, bound)

    def usage(self, raw: bytes | None) -> Tokens | None:
        return usage_of(raw)

    def whole(self, body: bytes) -> Whole | None:
        try:
            answer = _decode_answer(body)
        except msgspec.ValidationError:
            return whole_of(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if answer.object != "response" and not answer.status:
            return whole_from(answer)
        found = whole_from(answer, error_inside=False)
        found.status = answer.status or ""
        found.finish = FINISHES.get(found.status, "")
        if answer.incomplete_details is not None and answer.incomplete_details.reason:
            found.finish = answer.incomplete_details.reason
        if found.status == "failed":
            found.failed = _code_of(answer.error)
        if answer.output:
            found.tools = tool_names(_tools_of(answer.output))
            found.thought = any(item.type == "reasoning" for item in answer.output)
            found.items = [
                name
                for item in answer.output
                for name in (item.id, item.container_id)
                if name and isinstance(name, str)
            ]
        return found

    def text(self, body: bytes) -> str:
        """Text, refusals, reasoning that is shown, tool calls."""
        try:
            output = _decode_output(body).output
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return body.decode("utf-8", "replace")
        return "".join(text for item in output or () for text in _said(item))

    def relay(self, asked: Asked) -> Relay:
        return ResponsesRelay()


class Compact(Responses):
    """A pass of the model over a conversation that makes it shorter. Its output has no cap: the model's largest bounds it."""

    name = "responses.compact"
    path = "/responses/compact"

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        asked = asked_of(members, len(body))
        _read_input(asked)
        if "service_tier" in members:
            asked.tier = tier_of(member(members, "service_tier"))
        asked.uncapped = True
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        return encode(with_defaults(asked.members, target, parameters=False))


class InputTokens(Responses):
    """How many tokens an input has, as the provider counts them. Free."""

    name = "responses.input_tokens"
    path = "/responses/input_tokens"
    has_output = False
    forms = False

    def read(self, body: bytes) -> Asked:
        members = read_members(body)
        asked = asked_of(members, len(body))
        _read_input(asked)
        asked.billing = FREE
        return asked

    def encode(self, asked: Asked, target: Target, cap: int | None) -> bytes:
        return encode(with_defaults(asked.members, target, parameters=False))

    def usage(self, raw: bytes | None) -> Tokens | None:
        # Nothing was used: what is counted is the answer.
        return Tokens()

    def whole(self, body: bytes) -> Whole | None:
        return whole_of(body)


RESPONSES, COMPACT, INPUT_TOKENS = Responses(), Compact(), InputTokens()


# ---------------------------------------------------------------------- what is asked


class _Item(msgspec.Struct):
    """Only enough of an input item to know that it is one, and whether it names a kept one."""

    type: str | None = None
    role: str | None = None
    id: Any = None
    approval_request_id: Any = None


_check_items = msgspec.json.Decoder(list[_Item]).decode


def _read_input(asked: Asked) -> None:
    """Check ``input`` and what it refers to; say what bounds its tokens."""
    members = asked.members
    raw = members.get("input", NULL)
    first = bytes(memoryview(raw)[:2])
    refers = _conversation(members)
    if first == b"nu":
        if not refers and not _given(members, "prompt"):
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
    if any(one.kind != FILE for one in refers) or _given(members, "prompt"):
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


def _given(members: Members, name: str) -> bool:
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
    for part in _parts(items):
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


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
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


def _part_bound(part: Mapping[str, Any], model: str) -> tuple[int | None, int]:
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


def _unmetered(members: Members) -> str:
    """What of a request is billed by other measures than its tokens, in words; empty for nothing."""
    if _given(members, "prompt"):
        return "a prompt kept at the provider, whose tools are not known here"
    if _given(members, "context_management"):
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


def _messages(members: Members) -> list[Mapping[str, Any]]:
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


# ---------------------------------------------------------------------- what is answered


class _Reason(msgspec.Struct):
    reason: str | None = None


class _OutputItem(msgspec.Struct):
    type: str = ""
    name: str | None = None
    id: Any = None
    container_id: Any = None


class _Answer(msgspec.Struct):
    model: Any = ""
    usage: Raw = Raw()
    error: Raw = Raw()
    id: Any = ""
    service_tier: Any = None
    object: Any = ""
    status: str | None = None
    incomplete_details: _Reason | None = None
    output: list[_OutputItem] | None = None


class _Part(msgspec.Struct):
    text: str | None = None
    refusal: str | None = None


class _Spoken(msgspec.Struct):
    type: str = ""
    content: list[_Part] | None = None
    summary: list[_Part] | None = None
    name: str | None = None
    arguments: Any = None
    input: Any = None


class _Output(msgspec.Struct):
    output: list[_Spoken] | None = None


class _Error(msgspec.Struct):
    code: str | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_output = msgspec.json.Decoder(_Output).decode
_decode_error = msgspec.json.Decoder(_Error).decode


def _tools_of(output: list[_OutputItem]) -> Iterator[str]:
    for item in output:
        if item.type.endswith("_call"):
            yield item.name or item.type.removesuffix("_call")


def _said(item: _Spoken) -> Iterator[str]:
    for part in (*(item.content or ()), *(item.summary or ())):
        yield part.text or part.refusal or ""
    if item.type.endswith("_call"):
        yield item.name or ""
        for given in (item.arguments, item.input):
            if given is not None:
                yield given if isinstance(given, str) else encode(given).decode()


def _code_of(error: Raw) -> str:
    try:
        return _decode_error(error).code or "failed"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "failed"


_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_USAGE_TOKENS)]


class _InputDetails(msgspec.Struct):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None


class _Usage(msgspec.Struct):
    input_tokens: Annotated[int, msgspec.Meta(ge=1, le=MAX_USAGE_TOKENS)]
    output_tokens: _Count = 0
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


_decode_usage = msgspec.json.Decoder(_Usage).decode


def usage_of(raw: bytes | None) -> Tokens | None:
    """Tokens of a response's ``usage``, as ``believable_usage`` reads those of chat."""
    if not raw or raw == NULL:
        return None
    try:
        usage = _decode_usage(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    asked, answered = usage.input_tokens_details, usage.output_tokens_details
    cached = asked.cached_tokens or 0 if asked is not None else 0
    written = asked.cache_write_tokens or 0 if asked is not None else 0
    reasoned = answered.reasoning_tokens or 0 if answered is not None else 0
    return Tokens(
        input=usage.input_tokens,
        cached=min(cached, usage.input_tokens),
        cache_write=min(written, max(0, usage.input_tokens - cached)),
        output=usage.output_tokens,
        reasoning=min(reasoned, usage.output_tokens),
    )
