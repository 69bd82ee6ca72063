"""The filters and tests of the language, each bounded in what it makes of what it is given. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.runtime import Undefined

from llmops.prompts.templating.limits import MOST_RENDERED, RenderingStopped


def as_text(value: Any) -> str:
    """A value as it is written into the text."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)  # Raises what is undefined.
    raise RenderingStopped("a list or an object cannot be written as it is: use tojson, join or a loop")


def _bounded(length: int) -> None:
    if length > MOST_RENDERED:
        raise RenderingStopped(f"it would become longer than {MOST_RENDERED:,} characters; send less")


def _whole(value: Any, *, least: int = 0, most: int = MOST_RENDERED) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RenderingStopped("a filter is given a number that does not fit")
    return value


def _length(value: Any) -> int:
    return len(value)


def _join(value: Any, separator: Any = "", attribute: Any = None) -> str:
    between = as_text(separator)
    parts = [as_text(one if attribute is None else _of(one, attribute)) for one in value]
    _bounded(sum(map(len, parts)) + len(between) * len(parts))
    return between.join(parts)


def _of(value: Any, name: Any) -> Any:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    raise RenderingStopped("an item has no member of the name that join asks for")


def _replace(value: Any, old: Any, new: Any) -> str:
    text, out, into = as_text(value), as_text(old), as_text(new)
    if not out:
        raise RenderingStopped("replace needs a text to look for")
    _bounded(len(text) + text.count(out) * len(into))
    return text.replace(out, into)


def _truncate(value: Any, length: Any = 255, end: Any = "…") -> str:
    text, most, ending = as_text(value), _whole(length), as_text(end)
    return text if len(text) <= most else text[: max(0, most - len(ending))] + ending


def _indent(value: Any, width: Any = 4) -> str:
    text, wide = as_text(value), _whole(width, most=40)
    _bounded(len(text) + text.count("\n") * wide)
    return text.replace("\n", "\n" + " " * wide)


def _default(value: Any, other: Any = "") -> Any:
    """``other`` where an optional variable was not given."""
    return other if value is None or isinstance(value, Undefined) else value


def _tojson(value: Any, indent: Any = None) -> str:
    if isinstance(value, Undefined):
        str(value)
    wide = None if indent is None else _whole(indent, most=8)
    return json.dumps(value, ensure_ascii=False, indent=wide)


def _round(value: Any, digits: Any = 0) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RenderingStopped("round takes a number")
    places = _whole(digits, most=15)
    return round(value, places) if places else round(value)


def _case(change: Callable[[str], str]) -> Callable[[Any], str]:
    return lambda value: change(as_text(value))


def _first(value: Any) -> Any:
    return value[0] if value else None


def _last(value: Any) -> Any:
    return value[-1] if value else None


FILTERS: dict[str, Callable[..., Any]] = {
    "default": _default,
    "first": _first,
    "indent": _indent,
    "join": _join,
    "last": _last,
    "length": _length,
    "lower": _case(str.lower),
    "replace": _replace,
    "round": _round,
    "title": _case(str.title),
    "tojson": _tojson,
    "trim": _case(str.strip),
    "truncate": _truncate,
    "upper": _case(str.upper),
}
TESTS = (
    "boolean",
    "defined",
    "divisibleby",
    "even",
    "false",
    "integer",
    "in",
    "none",
    "number",
    "odd",
    "string",
    "true",
    "undefined",
)
