"""From a decoded request to an answer: what chat and responses have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from llmops.core.tokens import upper_bound
from llmops.simulator.behaviour import Behaviour, UnknownModifier, parse
from llmops.simulator.catalogue import Profile, profile_of
from llmops.simulator.errors import ApiError, out_of_quota, too_long, wrong
from llmops.simulator.exchange import Exchange
from llmops.simulator.generation import Tool


def behaviour_of(exchange: Exchange, model: str, kind: str) -> tuple[Behaviour, Profile]:
    """What this call does and the model's profile. Raises the 400 or 404 that a caller gets for a wrong name."""
    header = exchange.header(b"x-simulator")
    try:
        behaviour = parse(model, header)
    except UnknownModifier as error:
        raise wrong(str(error), param="model", code="unknown_modifier") from error
    profile = profile_of(behaviour.base, kind, exchange.app.any_model)
    if profile is None:
        raise ApiError(
            404,
            f"The model {behaviour.base!r} does not exist: the simulator's models begin with 'sim-'.",
            code="model_not_found",
            param="model",
        )
    if profile.kind != kind:
        raise wrong(
            f"{profile.name!r} is a model for {profile.kind}, not for {kind}.", "model", "model_not_supported"
        )
    if behaviour.sometimes:
        name = f"{model} {header}"
        behaviour = behaviour.at(exchange.app.count_call(name), name)
    if behaviour.fault.quota:
        raise out_of_quota()
    if behaviour.fault.context_length:
        raise too_long(profile.context_window)
    return behaviour, profile


def fits(profile: Profile, raw: bytes, prompt: int, output: int | None, param: str) -> None:
    """Raise what a provider answers to a prompt or an output that its model does not hold."""
    if output is not None:
        if output < 1:
            raise wrong(
                f"Invalid '{param}': {output} is less than the least, 1.", param, "integer_below_min_value"
            )
        if output > profile.max_output_tokens:
            raise wrong(
                f"{param} is too large: {output}. {profile.name} gives at most {profile.max_output_tokens} tokens.",
                param,
                "invalid_value",
            )
    if upper_bound(raw) + (output or 0) > profile.context_window and (
        prompt + (output or 0) > profile.context_window
    ):
        raise too_long(profile.context_window, prompt, output)


def tools_of(tools: list[dict[str, Any]] | None, param: str = "tools") -> tuple[Tool, ...]:
    """Function tools in either dialect; tools of other kinds are the provider's own and are never called here."""
    found: list[Tool] = []
    for index, tool in enumerate(tools or []):
        if tool.get("type") != "function":
            continue
        function = tool.get("function", tool)
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise wrong(
                f"Missing required parameter: '{param}[{index}].function.name'.",
                f"{param}[{index}].function.name",
            )
        found.append(Tool(name, function.get("parameters")))
    return tuple(found)


def tool_choice_of(choice: Any, tools: tuple[Tool, ...]) -> str:
    if choice is None or choice == "auto":
        return "auto"
    if choice in ("none", "required"):
        return str(choice)
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
        if isinstance(name, str):
            if name not in {tool.name for tool in tools}:
                raise wrong(f"Tool choice {name!r} is not among the tools.", "tool_choice")
            return name
        return "auto"
    raise wrong("Invalid 'tool_choice': it is 'none', 'auto', 'required' or names a function.", "tool_choice")


def schema_of(format_: Mapping[str, Any] | None, where: str) -> Mapping[str, Any] | None:
    """The schema to keep to: ``{}`` for any object, ``None`` for text. ``where`` names the field in errors."""
    if format_ is None:
        return None
    kind = format_.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {}
    if kind != "json_schema":
        raise wrong(f"Invalid '{where}.type': it is 'text', 'json_object' or 'json_schema'.", f"{where}.type")
    holder = format_.get("json_schema", format_)
    schema = holder.get("schema") if isinstance(holder, Mapping) else None
    if not isinstance(schema, Mapping) or not schema:
        raise wrong(
            f"Missing required parameter: '{where}.json_schema.schema'.", f"{where}.json_schema.schema"
        )
    return schema


def last_said(messages: Iterable[Any]) -> tuple[str, str]:
    """Role and text of the last message."""
    role, said = "", ""
    for message in messages:
        if isinstance(message, Mapping):
            role, content = str(message.get("role", "")), message.get("content")
            if isinstance(content, list):
                parts = (part.get("text") for part in content if isinstance(part, Mapping))
                content = " ".join(part for part in parts if isinstance(part, str))
            said = content if isinstance(content, str) else ""
    return role, said


def canonical(*parts: Any) -> bytes:
    return msgspec.json.encode(parts)
