"""Prompts by reference: a request that names a prompt becomes one that says what the prompt says. No I/O.

``prompt={"id", "version", "variables"}`` is OpenAI's own way of naming a prompt in ``/v1/responses``; ``/v1/chat/completions`` takes
the same here. Prompts that are OpenAI's own (``pmpt_...``) go on untouched. Everything after this step (policies, cache, budgets,
counting) sees an ordinary request.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llmops.core.errors import InvalidRequest, NotFound
from llmops.gateway.call import Call
from llmops.gateway.endpoints.base import NULL, Asked, Members, Raw, encode, member
from llmops.gateway.endpoints.chat import CAP_FIELDS, CHAT, Chat
from llmops.gateway.endpoints.responses import CAP, RESPONSES, Responses
from llmops.prompts.published import Served, served
from llmops.prompts.rendering import Rendered
from llmops.serving.snapshot import PromptEntry

_OPENAIS = "pmpt_"
_PLACE = re.compile(r"(messages|input)\[(\d+)\]")
_MEMBERS = ("id", "version", "variables")
_decode_list = msgspec.json.Decoder(list[Raw]).decode


def expand(call: Call, body: bytes, asked: Asked) -> Asked:
    """The request that ``asked`` stands for, which names a prompt.

    Raises ``InvalidRequest`` naming ``prompt.variables.NAME`` or what else is wrong, ``NotFound`` for a prompt or version that the
    key's project does not have.
    """
    endpoint = call.endpoint
    assert isinstance(endpoint, Chat | Responses)
    named = member(asked.members, "prompt")
    if not isinstance(named, dict):
        raise InvalidRequest(
            "prompt: must be an object with the id of a prompt.", param="prompt", code="invalid_type"
        )
    name = named.get("id")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("prompt.id: must be the name of a prompt, as text.", param="prompt.id")
    entry = _find(call, name)
    if entry is None:
        if endpoint is RESPONSES and (name.startswith(_OPENAIS) or _listed(call, name)):
            return endpoint.read_whole(body)
        raise NotFound(
            f"prompt.id: there is no prompt {name[:100]!r} for this project. An operator can publish one in the console, under "
            "Prompts.",
            param="prompt.id",
            code="prompt_not_found",
        )
    for other in named:
        if other not in _MEMBERS:
            raise InvalidRequest(
                f"prompt.{str(other)[:60]}: there is no such member. Members are {', '.join(_MEMBERS)}.",
                param=f"prompt.{str(other)[:60]}",
            )
    version = named.get("version")
    if version is not None and (isinstance(version, bool) or not isinstance(version, str | int)):
        raise InvalidRequest(
            "prompt.version: must be a label or the number of a version.",
            param="prompt.version",
            code="invalid_type",
        )
    variables = named.get("variables")
    if variables is None:
        variables = {}
    elif not isinstance(variables, dict):
        raise InvalidRequest(
            "prompt.variables: must be an object.", param="prompt.variables", code="invalid_type"
        )
    found = served(entry, version)
    # Also what is refused from here on is recorded as a call of this version.
    call.prompt = (entry.slug, found.number)
    rendered = found.compiled.render(variables, path="prompt.variables")
    members = {name: raw for name, raw in asked.members.items() if name != "prompt"}
    sent = (
        _for_chat(members, found, rendered) if endpoint is CHAT else _for_responses(members, found, rendered)
    )
    try:
        expanded = endpoint.read_whole(encode(sent))
    except InvalidRequest as refused:
        raise _as_sent(refused, len(rendered.messages) if endpoint is CHAT else bool(rendered.user)) from None
    expanded.own_cap = any(_given(members, field) for field in (*CAP_FIELDS, CAP))
    if not expanded.model:
        expanded.model = found.route
    return expanded


def _find(call: Call, name: str) -> PromptEntry | None:
    """A prompt of the key's project, or a shared one."""
    key = call.key
    assert key is not None
    prompts = call.view.snapshot.prompts
    return prompts.get((key.project, name)) or prompts.get(("", name))


def _listed(call: Call, name: str) -> bool:
    """Whether an operator lists the id among the objects at a provider that every project may name."""
    return any(
        name == listed or (listed.endswith("*") and name.startswith(listed[:-1]))
        for provider in call.view.snapshot.providers.values()
        for listed in provider.shared_objects
    )


def _given(members: Members, name: str) -> bool:
    return name in members and bytes(members[name]) != NULL


def _for_chat(members: Members, found: Served, rendered: Rendered) -> dict[str, Any]:
    sent: dict[str, Any] = dict(members)
    messages = [Raw(encode(one)) for one in rendered.messages]
    if _given(members, "messages"):
        messages += _list(members["messages"], "messages")
    sent["messages"] = messages
    capped = any(_given(members, field) for field in CAP_FIELDS)
    for name, value in found.chat.items():
        if not _given(members, name) and not (capped and name in CAP_FIELDS):
            sent[name] = value
    if found.response_format is not None:
        if _given(members, "response_format"):
            raise _contract("response_format")
        sent["response_format"] = found.response_format
    return sent


def _for_responses(members: Members, found: Served, rendered: Rendered) -> dict[str, Any]:
    sent: dict[str, Any] = dict(members)
    if rendered.system:
        own = member(members, "instructions")
        if own is not None and not isinstance(own, str):
            raise InvalidRequest(
                "instructions: must be text beside a prompt, which has instructions of its own.",
                param="instructions",
                code="invalid_type",
            )
        sent["instructions"] = f"{rendered.system}\n\n{own}" if own else rendered.system
    if rendered.user:
        sent["input"] = [
            {"type": "message", "role": "user", "content": rendered.user},
            *_input(members),
        ]
    for name, value in found.responses.items():
        if not _given(members, name):
            sent[name] = value
    if found.reasoning:
        sent["reasoning"] = {**found.reasoning, **_object(members, "reasoning")}
    if found.text or found.format is not None:
        own_text = _object(members, "text")
        if found.format is not None:
            if own_text.get("format") is not None:
                raise _contract("text.format")
            own_text["format"] = found.format
        sent["text"] = {**found.text, **own_text}
    return sent


def _input(members: Members) -> list[Any]:
    """What the caller adds to the prompt, as items."""
    if not _given(members, "input"):
        return []
    raw = members["input"]
    if bytes(memoryview(raw)[:1]) == b'"':
        return [{"type": "message", "role": "user", "content": raw}]
    return _list(raw, "input")


def _list(raw: Raw, name: str) -> list[Any]:
    try:
        return list(_decode_list(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequest(f"{name}: must be a list.", param=name, code="invalid_type") from None


def _object(members: Members, name: str) -> dict[str, Any]:
    value = member(members, name) if _given(members, name) else None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name}: must be an object.", param=name, code="invalid_type")
    return value


def _as_sent(refused: InvalidRequest, before: int) -> InvalidRequest:
    """A refusal that counts messages and items as the caller sent them: without the ``before`` ones of the prompt."""
    place = _PLACE.match(refused.param or "")
    if place is None or int(place[2]) < before:
        return refused
    told, meant = f"{place[1]}[{place[2]}]", f"{place[1]}[{int(place[2]) - before}]"
    assert refused.param is not None
    return InvalidRequest(
        refused.message.replace(told, meant, 1),
        param=refused.param.replace(told, meant, 1),
        code=refused.code,
    )


def _contract(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"{param}: the prompt says itself what shape its answers have; leave this out, or name a version without an output "
        "contract.",
        param=param,
    )
