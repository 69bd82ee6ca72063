"""A small valid instance of a JSON Schema: what a model that keeps to ``response_format`` or a tool's schema returns."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

_FORMATS = {
    "date": "2025-01-01",
    "time": "12:00:00Z",
    "date-time": "2025-01-01T12:00:00Z",
    "duration": "P1D",
    "email": "simulated@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEEPEST = 24
_MOST_VALUES = 5_000
_LONGEST = 1_000


@dataclass(slots=True)
class _Document:
    """The whole schema, for references, and how many more values may be made of it."""

    root: Any
    left: int = _MOST_VALUES


def minimal(schema: Any) -> Any:
    """The smallest instance that the keywords OpenAI accepts ask for; optional properties are left out.

    Follows ``$ref`` within the document; where a schema is recursive, takes the branch that ends. Schemas that
    contradict themselves get an instance of the type they name; those that ask for more than 5,000 values get nulls
    from there on.
    """
    return _make(schema, _Document(schema), 0)


def _make(schema: Any, document: _Document, depth: int) -> Any:
    document.left -= 1
    if not isinstance(schema, Mapping) or depth > _DEEPEST or document.left < 0:
        return None
    schema = _resolved(schema, document.root)
    if "const" in schema:
        return schema["const"]
    for keyword in ("enum", "examples"):
        if isinstance(schema.get(keyword), list) and schema[keyword]:
            return schema[keyword][0]
    if "default" in schema:
        return schema["default"]
    for keyword in ("anyOf", "oneOf"):
        branches = schema.get(keyword)
        if isinstance(branches, list) and branches:
            rest = {key: value for key, value in schema.items() if key != keyword}
            return _make(_merged(rest, _simplest(branches)), document, depth + 1)
    if isinstance(schema.get("allOf"), list):
        merged: Mapping[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for branch in schema["allOf"]:
            merged = _merged(merged, branch if isinstance(branch, Mapping) else {}, document.root)
        return _make(merged, document, depth + 1)
    return _MAKERS.get(_type(schema), _nothing)(schema, document, depth)


def _type(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if isinstance(one, str) and one != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema or "required" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _resolved(schema: Mapping[str, Any], root: Any) -> Mapping[str, Any]:
    for _ in range(_DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        target = root
        for step in reference.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            target = target.get(step) if isinstance(target, Mapping) else None
        if not isinstance(target, Mapping):
            return {}
        schema = _merged({key: value for key, value in schema.items() if key != "$ref"}, target)
    return {}


def _merged(first: Mapping[str, Any], second: Mapping[str, Any], root: Any = None) -> Mapping[str, Any]:
    second = _resolved(second, root) if root is not None else second
    merged = {**first, **second}
    for keyword, empty in (("properties", dict), ("required", list)):
        if keyword in first and keyword in second and isinstance(first[keyword], empty):
            both = first[keyword], second[keyword]
            merged[keyword] = {**both[0], **both[1]} if empty is dict else [*both[0], *both[1]]
    return merged


def _simplest(branches: list[Any]) -> Mapping[str, Any]:
    """The branch that says something and does not lead back to the start, if there is one."""
    usable = [branch for branch in branches if isinstance(branch, Mapping)]
    plain = [
        branch for branch in usable if "$ref" not in branch and branch.get("type") not in ("null", "object")
    ]
    return (plain or [b for b in usable if b.get("type") == "null"] or usable or [{}])[0]


def _object(schema: Mapping[str, Any], document: _Document, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, Mapping) else {}
    required = schema.get("required")
    names = required if isinstance(required, list) else []
    made = {
        name: _make(properties.get(name, {}), document, depth + 1) for name in names if isinstance(name, str)
    }
    wanted = schema.get("minProperties")
    for name, inner in properties.items():
        if not isinstance(wanted, int) or len(made) >= wanted:
            break
        made.setdefault(name, _make(inner, document, depth + 1))
    return made


def _array(schema: Mapping[str, Any], document: _Document, depth: int) -> list[Any]:
    count = schema.get("minItems")
    count = min(count, 64) if isinstance(count, int) else 0
    prefix = schema.get("prefixItems")
    made = [_make(item, document, depth + 1) for item in prefix] if isinstance(prefix, list) else []
    while len(made) < count:
        item = _make(schema.get("items", {}), document, depth + 1)
        if schema.get("uniqueItems") and item in made:
            item = _another(item, made, schema.get("items"), document.root)
        made.append(item)
    return made


def _another(item: Any, made: list[Any], schema: Any, root: Any) -> Any:
    choices = _resolved(schema, root).get("enum") if isinstance(schema, Mapping) else None
    if isinstance(choices, list):
        return next((choice for choice in choices if choice not in made), item)
    if isinstance(item, str):
        return f"{item}{len(made)}"
    return item + len(made) if isinstance(item, int | float) and not isinstance(item, bool) else item


def _string(schema: Mapping[str, Any], document: _Document, depth: int) -> str:
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        try:
            made = "".join(_matching(node) for node in _parser.parse(pattern))
            if re.search(pattern, made):
                return made
        except (re.error, _NotMade, RecursionError, OverflowError):
            pass
    text = _FORMATS.get(schema.get("format", ""), "simulated")
    low, high = schema.get("minLength"), schema.get("maxLength")
    if isinstance(low, int):
        text = text.ljust(min(low, 10_000), "x")
    return text[:high] if isinstance(high, int) and high >= 0 else text


class _NotMade(Exception):
    pass


_CATEGORIES = {
    sre.CATEGORY_DIGIT: "0",
    sre.CATEGORY_WORD: "a",
    sre.CATEGORY_SPACE: " ",
    sre.CATEGORY_NOT_DIGIT: "a",
    sre.CATEGORY_NOT_WORD: "-",
    sre.CATEGORY_NOT_SPACE: "a",
}


def _matching(node: tuple[Any, Any]) -> str:
    """The shortest text for one node of a parsed regular expression."""
    kind, value = node
    if kind is sre.LITERAL:
        return chr(value)
    if kind is sre.ANY:
        return "a"
    if kind is sre.AT:
        return ""
    if kind is sre.NOT_LITERAL:
        return "a" if value != ord("a") else "b"
    if kind is sre.IN:
        return _member(value)
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        low, _, inner = value
        once = "".join(_matching(one) for one in inner)
        if len(once) * low > _LONGEST:
            raise _NotMade
        return once * low
    if kind is sre.SUBPATTERN:
        return "".join(_matching(one) for one in value[-1])
    if kind is sre.BRANCH:
        return "".join(_matching(one) for one in value[1][0])
    raise _NotMade


def _member(choices: list[tuple[Any, Any]]) -> str:
    kind, value = choices[0]
    if kind is sre.NEGATE:
        for letter in "a0 -_ABCxyz":
            if not any(_holds(choice, letter) for choice in choices[1:]):
                return letter
        raise _NotMade
    if kind is sre.RANGE:
        return chr(value[0])
    return _CATEGORIES[value] if kind is sre.CATEGORY else chr(value)


def _holds(choice: tuple[Any, Any], letter: str) -> bool:
    kind, value = choice
    if kind is sre.LITERAL:
        return chr(value) == letter
    if kind is sre.RANGE:
        return value[0] <= ord(letter) <= value[1]
    tests = {sre.CATEGORY_DIGIT: r"\d", sre.CATEGORY_WORD: r"\w", sre.CATEGORY_SPACE: r"\s"}
    negated = {sre.CATEGORY_NOT_DIGIT: r"\D", sre.CATEGORY_NOT_WORD: r"\W", sre.CATEGORY_NOT_SPACE: r"\S"}
    return bool(re.match((tests | negated)[value], letter))


def _number(schema: Mapping[str, Any], document: _Document, depth: int) -> float:
    low = _edge(schema, "minimum", "exclusiveMinimum", 1)
    high = _edge(schema, "maximum", "exclusiveMaximum", -1)
    step = schema.get("multipleOf")
    value = low if low is not None else min(0, high) if high is not None else 0
    if low is not None and high is not None and low > high:
        value = (schema.get("exclusiveMinimum", low) + schema.get("exclusiveMaximum", high)) / 2
    if isinstance(step, int | float) and step > 0:
        value = math.ceil(value / step) * step
    return value


def _edge(schema: Mapping[str, Any], inclusive: str, exclusive: str, inwards: int) -> float | None:
    edge = schema.get(exclusive)
    if isinstance(edge, int | float) and not isinstance(edge, bool):
        return math.floor(edge) + 1 if inwards > 0 else math.ceil(edge) - 1
    edge = schema.get(inclusive)
    return edge if isinstance(edge, int | float) and not isinstance(edge, bool) else None


def _integer(schema: Mapping[str, Any], document: _Document, depth: int) -> int:
    return math.ceil(_number(schema, document, depth))


def _boolean(schema: Mapping[str, Any], document: _Document, depth: int) -> bool:
    return True


def _nothing(schema: Mapping[str, Any], document: _Document, depth: int) -> None:
    return None


_MAKERS = {
    "object": _object,
    "array": _array,
    "string": _string,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
}
