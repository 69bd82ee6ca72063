"""How much work it is to check an answer against a JSON Schema. Pure.

A validator follows a reference each time it meets it: a schema of a few lines that refers twice to what refers twice to the
next, thirty times over, is more work than a process ever ends, and a validator cannot be stopped. So where the
caller wrote the schema the work is counted first. Equal work is counted once and multiplied, which is cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: Subschemas applied to values: about a tenth of a second.
MOST = 100_000
#: Different pairs of a subschema and a value that are looked at before the answer is: too much.
_MOST_PAIRS = 50_000
_LISTS = ("allOf", "anyOf", "oneOf")
_ONES = ("not", "if", "then", "else")
_OF_MEMBERS = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_OF_ITEMS = ("additionalItems", "unevaluatedItems", "contains", "items")
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
#: References that depend on more than the document's shape.
_UNKNOWN = ("$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor", "$id", "id")


class _TooMuch(Exception):
    pass


def grows(schema: bytes) -> bool:
    """Whether a schema, as JSON, may be more work than its own size."""
    return any(mark in schema for mark in (b"$", b"unevaluated"))


def bounded(schema: Any, value: Any) -> bool:
    """Whether ``value`` can be checked against ``schema`` with a bounded amount of work."""
    try:
        return _Count(schema).of(schema, value) <= MOST
    except (_TooMuch, RecursionError):
        return False


class _Count:
    """Counts how often a subschema is applied. What refers to itself at the same place counts once there."""

    def __init__(self, root: Any) -> None:
        self._root = root
        #: (subschema, value) -> applications; 0 while it is being counted
        self._known: dict[tuple[int, int], int] = {}

    def of(self, schema: Any, value: Any) -> int:
        if not isinstance(schema, Mapping):
            return 1
        place = (id(schema), id(value) if isinstance(value, (dict, list)) else 0)
        if (known := self._known.get(place)) is not None:
            return known
        if len(self._known) >= _MOST_PAIRS:
            raise _TooMuch
        self._known[place] = 0
        total = 1
        for applied, to in self._applied(schema, value):
            total += self.of(applied, to)
            if total > MOST:
                raise _TooMuch
        self._known[place] = total
        return total

    def _applied(self, schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
        """What a subschema applies to which values."""
        yield from self._in_place(schema, value)
        if any(name in schema for name in _UNEVALUATED):
            # What is not evaluated is found by evaluating all of it again, and again for what is inside.
            yield from self._in_place(schema, value)
            yield from self._in_place(schema, value)
        if isinstance(value, dict):
            yield from self._of_members(schema, value)
        elif isinstance(value, list):
            for one, item in zip(_list(schema.get("prefixItems")), value, strict=False):
                yield one, item
            for name in _OF_ITEMS:
                each = schema.get(name)
                if isinstance(each, list):
                    yield from zip(each, value, strict=False)
                elif isinstance(each, Mapping):
                    for item in value:
                        yield each, item

    def _in_place(self, schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
        if "$ref" in schema:
            yield self._at(schema["$ref"]), value
        for name in _UNKNOWN:
            # A property may be called so; a reference is text.
            if isinstance(schema.get(name), str) and (schema is not self._root or "Ref" in name):
                raise _TooMuch
        for name in _LISTS:
            for one in _list(schema.get(name)):
                yield one, value
        for name in _ONES:
            if name in schema:
                yield schema[name], value
        for name in ("dependentSchemas", "dependencies"):
            for one in _map(schema.get(name)).values():
                yield one, value

    def _of_members(self, schema: Mapping[str, Any], value: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
        properties = _map(schema.get("properties"))
        for name, one in value.items():
            if name in properties:
                yield properties[name], one
        for each in _map(schema.get("patternProperties")).values():
            for one in value.values():
                yield each, one
        for name in _OF_MEMBERS:
            if isinstance(schema.get(name), Mapping):
                for one in value.values():
                    yield schema[name], one

    def _at(self, reference: Any) -> Any:
        """The subschema of this document that a reference names."""
        if not isinstance(reference, str) or not reference.startswith("#") or "%" in reference:
            raise _TooMuch
        found = self._root
        path = reference[1:]
        if path and not path.startswith("/"):
            raise _TooMuch
        for step in path.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            else:
                raise _TooMuch
        return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
