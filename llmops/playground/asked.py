"""What a column of the playground asks, checked, and the request to the data plane that follows from it. Pure.

A column is ``{source, variables, messages, model, parameters, response_format, tools}``. ``source`` is ``prompt`` (a version as it
stands), ``edited`` (its words were changed here) or ``text`` (messages of one's own). ``Material`` is what the prompts room has of
the version that the column names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmops.core.digests import digest
from llmops.core.errors import InvalidRequest
from llmops.core.texts import text_problem
from llmops.policies.checks.schema import validator
from llmops.prompts.content import checked as checked_content
from llmops.prompts.parameters import checked_parameters, for_chat
from llmops.prompts.published import Served, is_strict
from llmops.prompts.rendering import LAYERS
from llmops.serving.snapshot import PromptVersionEntry

PROMPT, EDITED, TEXT = "prompt", "edited", "text"
SOURCES = (PROMPT, EDITED, TEXT)
ROLES = ("system", "user", "assistant")
MOST_MESSAGES, MOST_CHARACTERS = 100, 400_000
MOST_TOOLS, MOST_JSON_BYTES = 64, 100_000
#: Members of a column. ``project``, ``prompt`` and ``version`` say what ``Material`` is of; whoever calls this looked it up.
MEMBERS = frozenset(
    (
        "id", "project", "source", "prompt", "version", "content", "variables", "messages", "model", "parameters",
        "response_format", "tools",
    )
)  # fmt: skip
DRAFT = "draft"


@dataclass(frozen=True)
class Material:
    """A version of a prompt, or its draft (``version`` is then ``draft``). ``served``: data planes know it by its number."""

    slug: str
    version: str
    content: Mapping[str, Any]
    served: bool = False


@dataclass(frozen=True)
class Request:
    """``body`` is for ``/v1/chat/completions``. ``version`` says what of the prompt was tried: a number, ``draft``, ``edited``."""

    body: dict[str, Any]
    model: str
    prompt: str = ""
    version: str = ""
    tags: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return digest(self.body)


def request_of(column: Mapping[str, Any], material: Material | None) -> Request:
    """Raises ``InvalidRequest`` whose ``param`` names the field of the page that is wrong (``variables.ticket``, ``tools``)."""
    for name in column:
        if name not in MEMBERS:
            raise InvalidRequest(f"{str(name)[:60]}: a column has no such member.", param=str(name)[:60])
    source = column.get("source")
    if source not in SOURCES:
        raise InvalidRequest(f"source: one of {', '.join(SOURCES)}.", param="source")
    if source == TEXT:
        request = _of_text(column)
    elif material is None:
        raise InvalidRequest("prompt: choose a prompt and a version of it.", param="prompt")
    else:
        request = _of_prompt(column, material, edited=source == EDITED)
    body = request.body
    body.update(for_chat(checked_parameters(_object(column, "parameters"))))
    _shape_the_answer(column, body)
    if tools := _tools(column.get("tools")):
        body["tools"] = tools
    body["model"] = request.model
    body["stream"], body["stream_options"] = True, {"include_usage": True}
    if not request.model:
        raise InvalidRequest("model: choose a route or a model to ask.", param="model")
    return request


def edited_content(column: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a version as it was changed in a column: its words, and what its answer and parameters are to be."""
    given = _object(column, "content")
    changed = {**base, "variables": base.get("variables")}
    for layer in LAYERS:
        if layer in given:
            changed[layer] = given[layer]
    names = {one.get("name") for one in base.get("variables") or () if isinstance(one, Mapping)}
    # Names that are new in the text are declared as text; those that no layer names any more are taken out.
    changed["variables"] = None
    if names:
        found = checked_content({**changed, "samples": [], "token_ceiling": None})["variables"]
        declared = {one["name"]: one for one in base["variables"]}
        changed["variables"] = [declared.get(one["name"], one) for one in found]
        kept = {one["name"] for one in found}
        changed["samples"] = [
            {
                "name": one["name"],
                "variables": {name: value for name, value in one["variables"].items() if name in kept},
            }
            for one in base.get("samples") or ()
        ]
    return changed


def _of_prompt(column: Mapping[str, Any], material: Material, *, edited: bool) -> Request:
    content = checked_content(edited_content(column, material.content) if edited else material.content)
    variables = _object(column, "variables")
    names = {one["name"] for one in content["variables"]}
    # Columns share their variables: what another column's prompt takes is not this one's.
    variables = {name: value for name, value in variables.items() if name in names}
    as_served = _served(material.slug, content)
    rendered = as_served.compiled.render(variables)
    model = _line(column.get("model") or content["route"], "model")
    if material.served and not edited:
        reference = {"id": material.slug, "version": int(material.version), "variables": variables}
        return Request({"prompt": reference}, model, material.slug, material.version)
    version = "edited" if edited else material.version
    body: dict[str, Any] = {"messages": rendered.messages, **_plain(as_served.chat)}
    if as_served.response_format is not None:
        body["response_format"] = json.loads(bytes(as_served.response_format))
    tag = f"{material.slug}@{version}"[:64]
    return Request(body, model, material.slug, version, [tag])


def _served(slug: str, content: Mapping[str, Any]) -> Served:
    """The content as data planes would hold it, so that a draft is asked in the very way in which its version will be."""
    return Served(
        slug,
        PromptVersionEntry(
            number=0,
            digest="",
            layers={name: content[name] for name in LAYERS},
            variables=tuple(content["variables"]),
            output_schema=content["output_schema"],
            route=content["route"],
            parameters=content["parameters"],
        ),
    )


def _plain(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.loads(bytes(raw)) for name, raw in members.items()}


def _of_text(column: Mapping[str, Any]) -> Request:
    given = column.get("messages")
    if not isinstance(given, list) or not 1 <= len(given) <= MOST_MESSAGES:
        raise InvalidRequest(f"messages: write something; at most {MOST_MESSAGES} turns.", param="messages")
    messages, characters = [], 0
    for index, one in enumerate(given):
        path = f"messages[{index}]"
        if not isinstance(one, Mapping) or one.get("role") not in ROLES:
            raise InvalidRequest(
                f"{path}: a turn is the system's, the user's or the assistant's.", param=path
            )
        text = one.get("content")
        text = text.replace("\r\n", "\n") if isinstance(text, str) else text
        if not isinstance(text, str) or text_problem(text, lines=True):
            raise InvalidRequest(f"{path}: {text_problem(text, lines=True) or 'text'}.", param=path)
        characters += len(text)
        if text.strip():
            messages.append({"role": one["role"], "content": text})
    if characters > MOST_CHARACTERS:
        raise InvalidRequest(f"messages: at most {MOST_CHARACTERS:,} characters together.", param="messages")
    if not any(one["role"] != "system" for one in messages):
        raise InvalidRequest("messages: write what the user says.", param="messages")
    return Request({"messages": messages}, _line(column.get("model"), "model"))


def _shape_the_answer(column: Mapping[str, Any], body: dict[str, Any]) -> None:
    shape = column.get("response_format")
    if shape is None:
        return
    if "response_format" in body:
        # The version says itself what shape its answers have.
        return
    if shape == {"type": "json_object"}:
        body["response_format"] = shape
        return
    schema = shape.get("schema") if isinstance(shape, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InvalidRequest("response_format: give a JSON Schema as an object.", param="response_format")
    _bounded(schema, "response_format")
    try:
        validator(dict(schema))
    except ValueError as problem:
        raise InvalidRequest(
            f"response_format: this is not a JSON Schema: {str(problem)[:200]}", param="response_format"
        ) from None
    body["response_format"] = _schema_format(schema)


def _schema_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    about = {"name": "answer", "schema": dict(schema), "strict": is_strict(schema)}
    return {"type": "json_schema", "json_schema": about}


def _tools(given: object) -> list[Any]:
    if given in (None, []):
        return []
    if not isinstance(given, list) or len(given) > MOST_TOOLS:
        raise InvalidRequest(f"tools: give a list of at most {MOST_TOOLS} tools as JSON.", param="tools")
    _bounded(given, "tools")
    for index, one in enumerate(given):
        function = one.get("function") if isinstance(one, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequest(
                f'tools[{index}]: a tool looks like {{"type": "function", "function": {{"name": "…", "parameters": {{…}}}}}}.',
                param="tools",
            )
    return given


def _bounded(value: object, param: str) -> None:
    if len(json.dumps(value)) > MOST_JSON_BYTES:
        raise InvalidRequest(f"{param}: more than {MOST_JSON_BYTES:,} bytes.", param=param)


def _object(column: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = column.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"{name}: give an object.", param=name)
    return dict(value)


def _line(value: object, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 63 or text_problem(value):
        raise InvalidRequest(f"{name}: give a name.", param=name)
    return value
