"""Conditions over a call's arguments, such as ``amount > 1000`` or ``environment = production and not present(ticket)``. Pure.

    condition  := term {"or" term};  term := factor {"and" factor};  factor := "not" factor | "(" condition ")" | test
    test       := "present" "(" path ")" | value operator literal | value "in" "[" literal {"," literal} "]"
    value      := path | "length" "(" path ")";  operator := "=" | "!=" | ">" | ">=" | "<" | "<=" | "contains"
    literal    := number | "text in quotes" | word | true | false | null;  path := name {"." name}

A path that leads through a list stands for each of its members. Nothing is called, assigned or repeated, so the work is
bounded by the text and the arguments. Logic has three values (Kleene): a test of what is missing, or of another type than
asked for, is neither true nor false but ``None``, and whoever asks decides what follows from that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

LONGEST, MOST_TOKENS, DEEPEST = 500, 120, 12

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d{1,30}(?:\.\d{1,30})?(?![\w.]))|(?P<text>"[^"]*"|'[^']*')
    |(?P<word>[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*)|(?P<sign><=|>=|!=|==|[=<>()\[\],]))""",
    re.VERBOSE,
)
_KEYWORDS = frozenset(("and", "or", "not", "in", "contains", "present", "length", "true", "false", "null"))

Truth = bool | None
Condition = Callable[[Mapping[str, Any]], Truth]


class ConditionRefused(ValueError):
    """The text is no condition; says why."""


def parse(text: str) -> Condition:
    """The condition that ``text`` states. Raises ``ConditionRefused``."""
    if len(text) > LONGEST:
        raise ConditionRefused(f"at most {LONGEST} characters")
    return _Parser(_tokens(text)).whole()


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ConditionRefused(f"{text[at : at + 20].strip()!r} cannot be read")
        found.append((str(match.lastgroup), str(match[str(match.lastgroup)])))
        at = match.end()
        if len(found) > MOST_TOKENS:
            raise ConditionRefused("it is too long; write several rules")
    return found


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens, self._at, self._depth = tokens, 0, 0

    def whole(self) -> Condition:
        found = self._any()
        if self._at < len(self._tokens):
            raise ConditionRefused(f"{self._tokens[self._at][1]!r} is one too many")
        return found

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise ConditionRefused("it ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, *texts: str) -> str | None:
        """The next token if it is one of these, which are no quoted text."""
        if self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind in ("word", "sign") and text in texts:
                self._at += 1
                return text
        return None

    def _must(self, text: str) -> None:
        if self._take(text) is None:
            raise ConditionRefused(f"{text!r} is missing")

    def _any(self) -> Condition:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda given: _or(part(given) for part in parts)

    def _all(self) -> Condition:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda given: _not(_or(_not(part(given)) for part in parts))

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ConditionRefused("it is nested too deeply")
        try:
            if self._take("not"):
                inner = self._one()
                return lambda given: _not(inner(given))
            if self._take("("):
                found = self._any()
                self._must(")")
                return found
            return self._test()
        finally:
            self._depth -= 1

    def _test(self) -> Condition:
        if self._take("present"):
            path = self._in_brackets()
            return lambda given: any(value not in (None, _MISSING) for value in _values(given, path))
        measure: Callable[[Any], Any] = _itself
        if self._take("length"):
            path, measure = self._in_brackets(), _length
        else:
            path = self._path()
        if self._take("in"):
            self._must("[")
            options = [self._literal()]
            while self._take(","):
                options.append(self._literal())
            self._must("]")
            return lambda given: _or(
                _or(_same(measure(value), option) for option in options) for value in _values(given, path)
            )
        operator = self._take("=", "==", "!=", ">", ">=", "<", "<=", "contains")
        if operator is None:
            raise ConditionRefused(
                "after a name comes one of = != > >= < <= contains in, as in: amount > 1000"
            )
        compare, literal = _OPERATORS[operator], self._literal()
        if operator in _ORDERED and not isinstance(literal, Decimal):
            raise ConditionRefused(f"{operator} compares with a number")
        return lambda given: _or(compare(measure(value), literal) for value in _values(given, path))

    def _in_brackets(self) -> tuple[str, ...]:
        self._must("(")
        path = self._path()
        self._must(")")
        return path

    def _path(self) -> tuple[str, ...]:
        kind, text = self._next()
        if kind != "word" or text in _KEYWORDS:
            raise ConditionRefused(f"{text!r} is not the name of an argument")
        return tuple(text.split("."))

    def _literal(self) -> Any:
        kind, text = self._next()
        if kind == "number":
            return Decimal(text)
        if kind == "text":
            return text[1:-1]
        if kind == "word" and (text not in _KEYWORDS or text in _CONSTANTS):
            return _CONSTANTS.get(text, text)
        raise ConditionRefused(f"{text!r} is neither a number nor a text")


_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}
_MISSING = object()


def _values(given: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """What the path leads to: each member of lists on the way, and of a list at its end."""
    if isinstance(given, list):
        for member in given:
            yield from _values(member, path)
    elif not path:
        yield given
    elif isinstance(given, Mapping) and path[0] in given:
        yield from _values(given[path[0]], path[1:])
    else:
        yield _MISSING


def _or(truths: Any) -> Truth:
    unsure = False
    for truth in truths:
        if truth:
            return True
        unsure = unsure or truth is None
    return None if unsure else False


def _not(truth: Truth) -> Truth:
    return None if truth is None else not truth


def _itself(value: Any) -> Any:
    return value


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, str | Mapping) else _MISSING


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    # The shortest text of a float is what was written.
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _same(value: Any, literal: Any) -> Truth:
    """Texts are the same without regard to case, width and white space around: whoever carries it out may see it so."""
    if value is _MISSING:
        return None
    if literal is None or value is None:
        return value is None and literal is None
    if isinstance(literal, bool) or isinstance(value, bool):
        return value is literal if isinstance(value, bool) and isinstance(literal, bool) else None
    if isinstance(literal, Decimal):
        number = _number(value)
        return None if number is None else number == literal
    return _folded(value) == _folded(literal) if isinstance(value, str) else None


def _differs(value: Any, literal: Any) -> Truth:
    """Texts differ unless they are the same letter by letter."""
    if isinstance(value, str) and isinstance(literal, str):
        return value != literal
    return _not(_same(value, literal))


def _contains(value: Any, literal: Any) -> Truth:
    if not isinstance(value, str) or not isinstance(literal, str):
        return _same(value, literal)
    return _folded(literal) in _folded(value)


def _ordered(holds: Callable[[Decimal, Decimal], bool]) -> Callable[[Any, Any], Truth]:
    def compare(value: Any, literal: Any) -> Truth:
        number = _number(value)
        return None if number is None else holds(number, literal)

    return compare


_ORDERED = (">", ">=", "<", "<=")
_OPERATORS: dict[str, Callable[[Any, Any], Truth]] = {
    "=": _same,
    "==": _same,
    "!=": _differs,
    "contains": _contains,
    ">": _ordered(lambda left, right: left > right),
    ">=": _ordered(lambda left, right: left >= right),
    "<": _ordered(lambda left, right: left < right),
    "<=": _ordered(lambda left, right: left <= right),
}
