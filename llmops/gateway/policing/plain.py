"""The usual shapes of requests and answers of chat: texts right where they stand in nearly all of them, and nowhere else.

Read strictly: a member that is not known here may hold a text, and then ``texts`` looks everywhere.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llmops.core.once import texts_told_once
from llmops.gateway.endpoints.base import Members, Raw
from llmops.policies.checks.base import Answer

#: Times of a caption with the number before them, and what stands at the top of WebVTT (W3C WebVTT, SubRip).
_TIMES = re.compile(r"(?:^[0-9]+[ \t]*\r?\n)?^[^\r\n]*-->[^\r\n]*\r?$|\AWEBVTT[^\r\n]*\r?$", re.MULTILINE)
#: Other members of a request that tell a model something.
_nowhere_else = frozenset(("instructions", "input", "prompt", "prediction")).isdisjoint


class _Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    role: str = ""
    content: str | None = None
    name: str | None = None
    tool_call_id: str | None = None


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    role: str = ""
    content: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: list[Any] | None = None
    reasoning: None = None
    reasoning_content: None = None


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    message: _Said
    index: int = 0
    logprobs: None = None
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    output: None = None
    text: None = None
    data: None = None
    segments: None = None


_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def spoken(captions: str) -> str | None:
    """What captions in SRT or WebVTT say, without the times between; None of other text."""
    if "-->" not in captions:
        return None
    return " ".join(_TIMES.sub("", captions).split())


def plain_asked(members: Members) -> tuple[str, int] | None:
    """All texts of a request, a line each or more, and how many messages it has; None when they may stand elsewhere."""
    raw = members.get("messages")
    if not isinstance(raw, Raw) or not _nowhere_else(members):
        return None
    try:
        messages = _decode_messages(raw)
    except _UNREADABLE:
        return None
    given, texts = 0, []
    for one in messages:
        content = one.content
        if content is not None:
            given += 1
            if content:
                texts.append(content)
        given += (one.role != "") + (one.name is not None) + (one.tool_call_id is not None)
    if not texts_told_once(bytes(raw), given):
        return None
    return "\n".join(texts), len(messages)


def plain_answers(body: bytes, schema: Any) -> list[Answer] | None:
    """The choices of an answer that says nothing but their contents; None of any other."""
    try:
        choices = _decode_answer(body).choices
    except _UNREADABLE:
        return None
    answers = []
    for choice in choices:
        message = choice.message
        if message.annotations or message.tool_calls:
            return None
        answers.append(Answer(message.content or "", choice.finish_reason or "", "", False, schema))
    return answers
