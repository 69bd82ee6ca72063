"""Versions as data planes serve them: compiled beside the requests, with what they add to a request at each address. Pure."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from llmops.core.errors import ConsoleError, NotFound, ServiceUnavailable
from llmops.prompts.parameters import for_chat, for_responses
from llmops.prompts.rendering import Compiled

log = logging.getLogger(__name__)

#: The label that is meant where a request names no version.
USUAL_LABEL = "production"
#: So long ``prepare`` compiles before what is published takes effect; a large prompt takes a few milliseconds.
PATIENCE_S = 0.25
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_DEEPEST_SCHEMA = 40
_encode = msgspec.json.Encoder().encode


class Version(Protocol):
    """A version as a revision holds it."""

    @property
    def number(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def layers(self) -> Mapping[str, str]: ...
    @property
    def variables(self) -> tuple[Mapping[str, Any], ...]: ...
    @property
    def output_schema(self) -> Mapping[str, Any] | None: ...
    @property
    def route(self) -> str: ...
    @property
    def parameters(self) -> Mapping[str, Any]: ...


class Named(Protocol):
    """A prompt as a revision holds it."""

    @property
    def slug(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def versions(self) -> tuple[Any, ...]: ...
    @property
    def labels(self) -> Mapping[str, int]: ...


class Served:
    """A version that requests may name. Members are JSON, ready to stand in a body."""

    __slots__ = (
        "chat",
        "compiled",
        "format",
        "number",
        "reasoning",
        "response_format",
        "responses",
        "route",
        "text",
    )

    def __init__(self, slug: str, version: Version) -> None:
        self.number = version.number
        self.route = version.route
        self.compiled = Compiled(version.layers, list(version.variables))
        plain, reasoning, text = for_responses(version.parameters)
        self.chat = {
            name: msgspec.Raw(_encode(value)) for name, value in for_chat(version.parameters).items()
        }
        self.responses = {name: msgspec.Raw(_encode(value)) for name, value in plain.items()}
        self.reasoning: dict[str, Any] = reasoning
        self.text: dict[str, Any] = text
        #: the output contract, as each address takes it; None without one
        self.response_format: msgspec.Raw | None = None
        self.format: dict[str, Any] | None = None
        if version.output_schema is not None:
            about = {
                "name": _NOT_IN_NAMES.sub("_", slug)[:64],
                "schema": version.output_schema,
                "strict": is_strict(version.output_schema),
            }
            self.response_format = msgspec.Raw(_encode({"type": "json_schema", "json_schema": about}))
            self.format = {"type": "json_schema", **about}


_Key = tuple[str, str, str]
_served: dict[_Key, Served] = {}
#: What labels mean and is not compiled yet.
_waiting: deque[tuple[_Key, str, Version]] = deque()


def prepare(prompts: Iterable[Named], *, seconds: float = PATIENCE_S) -> None:
    """Forget what is no longer served, and compile versions that labels mean for at most ``seconds``, those of the usual label
    first: a thousand prompts that all changed must not keep anything else from taking effect. ``prepare_more`` does the rest;
    what is asked for before is compiled then. Beside the requests."""
    global _served, _waiting
    kept: dict[_Key, Served] = {}
    first: list[tuple[_Key, str, Version]] = []
    later: list[tuple[_Key, str, Version]] = []
    for prompt in prompts:
        wanted = set(prompt.labels.values())
        usual = prompt.labels.get(USUAL_LABEL)
        for version in prompt.versions:
            key = (prompt.project, prompt.slug, f"{version.number}:{version.digest}")
            if (found := _served.get(key)) is not None:
                kept[key] = found
            elif version.number in wanted:
                (first if version.number == usual else later).append((key, prompt.slug, version))
    _served, _waiting = kept, deque(first + later)
    prepare_more(seconds)


def prepare_more(seconds: float) -> int:
    """Go on compiling for at most ``seconds``; how many versions still wait. Beside the requests."""
    until = time.monotonic() + seconds
    waiting = _waiting
    while waiting and time.monotonic() < until:
        key, slug, version = waiting.popleft()
        if key in _served:
            continue
        try:
            _served[key] = Served(slug, version)
        except ConsoleError as refused:
            log.error("prompt %s, version %d cannot be used: %s", slug, version.number, refused.message)
        except Exception:
            # One that is made so that it breaks what reads it must not keep a revoked key from taking effect.
            log.exception("prompt %s, version %d cannot be used", slug, version.number)
    return len(waiting)


def served(prompt: Named, asked: str | int | None) -> Served:
    """The version that ``asked`` means: a number, a label, or None for the label ``production``.

    Raises ``NotFound`` with ``param`` ``prompt.version``, ``ServiceUnavailable`` for a version that cannot be used.
    """
    number = _number(prompt, asked)
    version = next((one for one in reversed(prompt.versions) if one.number == number), None)
    if version is None:
        raise _unknown(prompt, f"has no version {str(asked)[:60]} that is published")
    key = (prompt.project, prompt.slug, f"{version.number}:{version.digest}")
    found = _served.get(key)
    if found is None:
        try:
            found = Served(prompt.slug, version)
        except ConsoleError as refused:
            log.error("prompt %s, version %d cannot be used: %s", prompt.slug, number, refused.message)
            raise ServiceUnavailable(
                f"Version {number} of the prompt {prompt.slug!r} cannot be used. Ask an operator to make it anew in the console.",
                code="prompt_unusable",
            ) from None
        _served[key] = found
    return found


def _number(prompt: Named, asked: str | int | None) -> int:
    if asked is None or asked == "":
        if USUAL_LABEL not in prompt.labels:
            raise _unknown(prompt, f"has no label {USUAL_LABEL!r}, which is meant where no version is named")
        return prompt.labels[USUAL_LABEL]
    if isinstance(asked, int):
        return asked
    if asked in prompt.labels:
        return prompt.labels[asked]
    if asked.isascii() and asked.isdecimal() and len(asked) < 10:
        return int(asked)
    raise _unknown(prompt, f"has no label {asked[:60]!r} that is published")


def _unknown(prompt: Named, what: str) -> NotFound:
    labels = (
        ", ".join(f"{name} (version {number})" for name, number in sorted(prompt.labels.items())) or "none"
    )
    newest = prompt.versions[-1].number if prompt.versions else 0
    return NotFound(
        f"prompt.version: the prompt {prompt.slug!r} {what}. Labels: {labels[:500]}; the newest published version is {newest}.",
        param="prompt.version",
        code="prompt_version_not_found",
    )


def is_strict(schema: Any, depth: int = 0) -> bool:
    """Whether a schema is one that providers hold answers to strictly: each object lists all its members as required and admits
    no others. Source: OpenAI, "Structured outputs", supported schemas."""
    if depth > _DEEPEST_SCHEMA or not isinstance(schema, Mapping):
        return False
    members = schema.get("properties")
    if schema.get("type") == "object" or members is not None:
        if not isinstance(members, Mapping) or schema.get("additionalProperties") is not False:
            return False
        required = schema.get("required")
        if not isinstance(required, list | tuple) or set(required) != set(members):
            return False
    elif depth == 0:
        return False
    inner: list[Any] = list(members.values()) if isinstance(members, Mapping) else []
    for name in ("$defs", "definitions"):
        if isinstance(schema.get(name), Mapping):
            inner += schema[name].values()
    if "items" in schema:
        inner.append(schema["items"])
    inner += schema.get("anyOf", [])
    if any(name in schema for name in ("allOf", "oneOf", "not", "if", "patternProperties", "prefixItems")):
        return False
    return all(is_strict(one, depth + 1) for one in inner)
