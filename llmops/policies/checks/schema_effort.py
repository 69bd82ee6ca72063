"""How much work it is to check an answer against a JSON Schema. Pure.

A validator follows a reference each time it meets it: a schema of a few lines that refers twice to what refers twice to the
next, thirty times over, is more work than a process ever ends. It holds each object of a long list against each of many that may be
chosen, one after the other; and where long repetitions stand within each other a pattern takes its time for each letter. A validator
cannot be stopped, and where it is called on an event loop nothing else goes on meanwhile. So the work is counted first, unless schema and
answer are so small that it cannot be much. Equal work is counted once and multiplied, which is cheap.

Figures are those of jsonschema_rs 0.61 and the regex engine in it: choices without members are looked up at once, whatever their number, and so are
the names of members.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any

#: A quarter of a second, in units of 40 ns: about what it takes to apply a subschema to a value.
MOST = 6_000_000
#: Where references lead to a subschema it takes longer, and is found out less exactly.
_REFERRED = 60
#: An object or a list is held against one that may be chosen: for each value within.
_COMPARED = 4
#: A letter is held against a pattern that is small when it is compiled, and against any other.
_LETTER, _LETTER_OF_LARGE = 1, 75
#: Bytes of a compiled pattern: the most that is taken, and what is small.
PATTERN_BYTES, _SMALL_PATTERN_BYTES = 100_000, 15_000
#: Each has to be compiled.
MOST_PATTERNS = 200
#: Different pairs of a subschema and a value that are looked at before the answer is: too much.
_MOST_PAIRS, _MOST_PAIRS_REFERRED = 200_000, 50_000
_LISTS = ("allOf", "anyOf", "oneOf")
_ONES = ("not", "if", "then", "else")
_OF_MEMBERS = ("additionalProperties", "unevaluatedProperties")
_OF_ITEMS = ("additionalItems", "unevaluatedItems", "contains", "items")
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
#: References that depend on more than the document's shape.
_UNKNOWN = ("$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor", "$id", "id")


class _TooMuch(Exception):
    pass


class Effort:
    """What a schema takes. ``encoded`` is the schema as JSON."""

    def __init__(self, schema: Any, encoded: bytes) -> None:
        self._schema = schema
        self._refers = any(mark in encoded for mark in (b"$", b"unevaluated"))
        found = [_Choices(one) for one in _inside(schema) if isinstance(one, dict)]
        self._once = sum(one.once for one in found)
        self._patterns = {pattern for one in found for pattern in one.patterns}

    def allows(self, value: Any, size: int) -> bool:
        """Whether ``value``, of ``size`` bytes as JSON, is checked in a bounded amount of time."""
        if len(self._patterns) > MOST_PATTERNS:
            return False
        # Each value has a byte of its own and one that ends it.
        letters = len(self._patterns) * size * _LETTER_OF_LARGE
        if not self._refers and self._once * (size // 2 + 1) + letters <= MOST:
            return True
        applied, pairs = (_REFERRED, _MOST_PAIRS_REFERRED) if self._refers else (1, _MOST_PAIRS)
        count = _Count(self._schema, applied, pairs, reads=letters > MOST // 2)
        try:
            return count.of(self._schema, value) <= MOST
        except (_TooMuch, RecursionError):
            return False


class _Choices:
    """What a value is held against by one subschema, one after the other."""

    __slots__ = ("of_members", "once", "patterns", "within")

    def __init__(self, schema: Mapping[str, Any]) -> None:
        #: values within what may be chosen, for who holds something itself
        self.within = sum(_size(one) for one in _list(schema.get("enum"))) + _size(schema.get("const"))
        self.of_members = [one for one in _map(schema.get("patternProperties")) if isinstance(one, str)]
        own = schema.get("pattern")
        self.patterns = [*self.of_members, *([own] if isinstance(own, str) else [])]
        self.once = 1 + self.within * _COMPARED


class _Count:
    """Counts units of work. What refers to itself at the same place counts once there. ``reads``: letters count as well."""

    def __init__(self, root: Any, applied: int, pairs: int, *, reads: bool) -> None:
        self._root, self._applied_once, self._pairs, self._reads = root, applied, pairs, reads
        #: (subschema, value) -> units; 0 while it is being counted
        self._known: dict[tuple[int, int], int] = {}
        self._choices: dict[int, _Choices] = {}

    def of(self, schema: Any, value: Any) -> int:
        if not isinstance(schema, Mapping):
            return 1
        place = (id(schema), self._alike(value))
        if (known := self._known.get(place)) is not None:
            return known
        if len(self._known) >= self._pairs:
            raise _TooMuch
        self._known[place] = 0
        total = self._applied_once + self._held(schema, value)
        for applied, to, times in self._applied(schema, value):
            total += self.of(applied, to) * times
            if total > MOST:
                raise _TooMuch
        self._known[place] = total
        return total

    def _alike(self, value: Any) -> int:
        """The same for values that take the same work: what holds nothing is all alike, texts as far as they are as long."""
        if isinstance(value, (dict, list)):
            return id(value)
        return -1 - len(value) if self._reads and isinstance(value, str) else 0

    def _held(self, schema: Mapping[str, Any], value: Any) -> int:
        choices = self._choices.get(id(schema))
        if choices is None:
            choices = self._choices[id(schema)] = _Choices(schema)
        if isinstance(value, dict):
            found = choices.within * _COMPARED
            if choices.of_members:
                letters = sum(map(len, value)) if self._reads else 0
                found += sum(len(value) + letters * _letter(one) for one in choices.of_members)
            return found
        if isinstance(value, list):
            return choices.within * _COMPARED
        pattern = schema.get("pattern")
        if self._reads and isinstance(value, str) and isinstance(pattern, str):
            return len(value) * _letter(pattern)
        return 0

    def _applied(self, schema: Mapping[str, Any], value: Any) -> Iterator[tuple[Any, Any, int]]:
        """What a subschema applies to which values, and how often to one that stands for others."""
        # What is not evaluated is found by evaluating all of it again, and again for what is inside.
        times = 3 if any(name in schema for name in _UNEVALUATED) else 1
        for one, to in self._in_place(schema, value):
            yield one, to, times
        if isinstance(value, dict):
            yield from self._of_members(schema, value)
        elif isinstance(value, list):
            for one, item in zip(_list(schema.get("prefixItems")), value, strict=False):
                yield one, item, 1
            for name in _OF_ITEMS:
                each = schema.get(name)
                if isinstance(each, list):
                    for one, item in zip(each, value, strict=False):
                        yield one, item, 1
                elif isinstance(each, Mapping):
                    yield from self._to_each(each, value)

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

    def _of_members(self, schema: Mapping[str, Any], value: dict[str, Any]) -> Iterator[tuple[Any, Any, int]]:
        properties = _map(schema.get("properties"))
        for name, one in value.items():
            if name in properties:
                yield properties[name], one, 1
        for each in _map(schema.get("patternProperties")).values():
            yield from self._to_each(each, value.values())
        for name in _OF_MEMBERS:
            if isinstance(schema.get(name), Mapping):
                yield from self._to_each(schema[name], value.values())
        if isinstance(schema.get("propertyNames"), Mapping):
            yield from self._to_each(schema["propertyNames"], value.keys())

    def _to_each(self, schema: Any, values: Collection[Any]) -> Iterator[tuple[Any, Any, int]]:
        """``schema`` applied to each of ``values``."""
        apart = (dict, list, str) if self._reads else (dict, list)
        alike = len(values)
        for one in values:
            if isinstance(one, apart):
                alike -= 1
                yield schema, one, 1
        if alike:
            yield schema, None, alike

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


@lru_cache(maxsize=1024)
def _letter(pattern: str) -> int:
    """Units that a letter takes at most."""
    # 5 MB, for schemas alone.
    import jsonschema_rs

    size = jsonschema_rs.RegexOptions(size_limit=_SMALL_PATTERN_BYTES)
    try:
        jsonschema_rs.validator_for({"pattern": pattern}, offline=True, pattern_options=size)
    except (jsonschema_rs.ValidationError, ValueError):
        return _LETTER_OF_LARGE
    return _LETTER


def why_refused(said: str) -> str:
    """What a validator says of a schema that it does not take, with what to do about a pattern."""
    if not said.endswith('is not a "regex"'):
        return said[:200]
    return (
        f"{said[:200]} that is taken here: leave out references back and around, and where it repeats what repeats, repeat less (at most "
        f"{PATTERN_BYTES // 1000} kB when it is compiled)"
    )


def _inside(value: Any) -> Iterator[Any]:
    """Every value within a value, itself included."""
    left = [value]
    while left:
        one = left.pop()
        yield one
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one


def _size(value: Any) -> int:
    """Values within one that holds some; what holds nothing is looked up at once."""
    return sum(1 for _ in _inside(value)) if isinstance(value, (dict, list)) else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
