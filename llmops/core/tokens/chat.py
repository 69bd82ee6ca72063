"""Counting a chat request: its messages, its tools and what the provider puts around them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from llmops.core.tokens.counting import count_text
from llmops.core.tokens.media import part_upper_bound
from llmops.core.tokens.models import encoding_for

_PER_MESSAGE = 3
_PER_NAME = 1
_REPLY_PRIMER = 3

_FUNCTION_START = {"o200k_base": 7, "cl100k_base": 10}
_FUNCTIONS_END = 12
_PROPERTIES_START = 3
_PROPERTY = 3
_ENUM_START = -3
_ENUM_ITEM = 3
# The cookbook knows strings only: a number is shown without the quotes, which leaves the bar between two values.
_ENUM_NUMBER = 1

Count = Callable[[str], int]


def count_chat(
    messages: Iterable[Mapping[str, Any]],
    model: str,
    tools: Iterable[Mapping[str, Any]] | None = None,
    *,
    count: Count | None = None,
) -> int:
    """The prompt tokens of a chat request in OpenAI's shape.

    Source: OpenAI cookbook, "How to count tokens with tiktoken", sections 6 and 7: 3 tokens a message, 1 more for a
    ``name``, 3 that prime the reply; for functions 7 each (10 for models on cl100k_base), 3 for a list of properties,
    3 for each property, 3 for each value of an enum less 3, and 12 at the end. Exact for text messages to models whose
    encoding is known; the format in which tools are shown to a model is not published, so with tools (and with tool
    calls in the history) it is a close estimate. Parts: images and sounds count at their worst case, files not at all.
    ``count`` counts a text in place of the model's encoding.
    """
    if count is None:
        count = partial(count_text, model=model)
    total = _REPLY_PRIMER + sum(_message(message, model, count) for message in messages)
    functions = [tool for tool in tools or () if isinstance(tool, Mapping)]
    if functions:
        start = _FUNCTION_START[encoding_for(model).name]
        total += _FUNCTIONS_END + sum(start + _function(function, count) for function in functions)
    return total


def _message(message: Mapping[str, Any], model: str, count: Count) -> int:
    total = _PER_MESSAGE
    for key, value in message.items():
        if key == "content" and isinstance(value, list):
            total += sum(_part(part, model, count) for part in value)
        elif key == "tool_calls" and isinstance(value, list):
            total += sum(_tool_call(call, count) for call in value)
        elif key == "function_call":
            total += _tool_call({"function": value}, count)
        elif key == "name" and isinstance(value, str):
            total += _PER_NAME + count(value)
        elif isinstance(value, str):
            total += count(value)
    return total


def _part(part: Any, model: str, count: Count) -> int:
    if isinstance(part, str):
        return count(part)
    if not isinstance(part, Mapping):
        return 0
    text = part.get("text", part.get("refusal"))
    if isinstance(text, str):
        return count(text)
    return part_upper_bound(part, model) or 0


def _tool_call(call: Any, count: Count) -> int:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return 0
    return sum(count(function[key]) for key in ("name", "arguments") if isinstance(function.get(key), str))


def _function(tool: Mapping[str, Any], count: Count) -> int:
    function = tool.get("function")
    if not isinstance(function, Mapping):
        # The responses API has the function's fields on the tool itself; a tool of another kind is counted as text.
        if "name" not in tool:
            return count(_compact(tool))
        function = tool
    total = count(f"{function.get('name', '')}:{_without_stop(function.get('description'))}")
    parameters = function.get("parameters")
    return total + _properties(parameters, count) if isinstance(parameters, Mapping) else total


def _properties(schema: Mapping[str, Any], count: Count) -> int:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not properties:
        return 0
    total = _PROPERTIES_START
    for name, prop in properties.items():
        total += _PROPERTY
        if not isinstance(prop, Mapping):
            total += count(str(name))
            continue
        kind = prop.get("type", "")
        shown = kind if isinstance(kind, str) else _compact(kind)
        total += count(f"{name}:{shown}:{_without_stop(prop.get('description'))}")
        choices = prop.get("enum")
        if isinstance(choices, list):
            total += _ENUM_START + sum(
                _ENUM_ITEM + count(item) if isinstance(item, str) else _ENUM_NUMBER + count(_compact(item))
                for item in choices
            )
        items = prop.get("items")
        total += _properties(prop, count) + (_properties(items, count) if isinstance(items, Mapping) else 0)
    return total


def _without_stop(description: Any) -> str:
    return description.removesuffix(".") if isinstance(description, str) else ""


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
