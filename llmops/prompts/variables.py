"""What a prompt may be given: declared variables with types and limits, and the values that callers send. Pure.

A variable is declared as ``{name, type, required, default, trusted, description}`` and the limits of its type:

    text      min_length, max_length (characters)
    integer   minimum, maximum
    number    minimum, maximum
    boolean
    choice    choices: texts that the organisation lists
    list      max_items, max_length (characters of all of it as JSON)
    object    max_length (characters of it as JSON)

Texts, lists and objects are what callers bring from outside, unless they are declared ``trusted``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llmops.core.errors import InvalidRequest
from llmops.core.texts import text_problem

TEXT, INTEGER, NUMBER, BOOLEAN, CHOICE, LIST, OBJECT = (
    "text",
    "integer",
    "number",
    "boolean",
    "choice",
    "list",
    "object",
)
TYPES = (TEXT, INTEGER, NUMBER, BOOLEAN, CHOICE, LIST, OBJECT)
#: Types whose values may hold any words.
WORDED = frozenset({TEXT, LIST, OBJECT})
MOST_VARIABLES = 60
LONGEST_NAME = 40
#: Characters of a text, or of a list or object as JSON, where a variable sets no limit of its own, and at the most.
USUAL_LENGTH, MOST_LENGTH = 20_000, 1_000_000
USUAL_ITEMS, MOST_ITEMS = 200, 5_000
MOST_CHOICES, LONGEST_CHOICE = 200, 200
#: Beyond this JSON and JavaScript no longer agree about whole numbers.
LARGEST = 2**53
DEEPEST = 8
_NAME = re.compile(rf"[A-Za-z][A-Za-z0-9_]{{0,{LONGEST_NAME - 1}}}")
#: Words of the template language, which no variable may have as its name.
RESERVED = frozenset(
    (
        "and", "or", "not", "in", "is", "if", "else", "elif", "endif", "for", "endfor", "true", "false", "none", "True",
        "False", "None", "loop", "self", "super", "raw", "endraw", "block", "macro", "call", "filter", "set", "import",
        "include", "extends", "from", "with", "autoescape",
    )
)  # fmt: skip
MEMBERS = (
    "name", "type", "description", "required", "default", "trusted", "min_length", "max_length", "minimum", "maximum",
    "max_items", "choices",
)  # fmt: skip
_LIMITS = {
    TEXT: ("min_length", "max_length"),
    INTEGER: ("minimum", "maximum"),
    NUMBER: ("minimum", "maximum"),
    BOOLEAN: (),
    CHOICE: ("choices",),
    LIST: ("max_items", "max_length"),
    OBJECT: ("max_length",),
}


class Variable(msgspec.Struct, frozen=True):
    """A declared variable. ``default`` holds where a caller gives none; None where there is none."""

    name: str
    type: str = TEXT
    description: str = ""
    required: bool = True
    default: Any = None
    trusted: bool = False
    min_length: int = 0
    max_length: int = USUAL_LENGTH
    minimum: float | None = None
    maximum: float | None = None
    max_items: int = USUAL_ITEMS
    choices: tuple[str, ...] = ()

    @property
    def foreign(self) -> bool:
        """Whether its values come from outside and may hold any words."""
        return self.type in WORDED and not self.trusted


def checked_variables(given: object, *, path: str = "variables") -> list[dict[str, Any]]:
    """Declarations as a version keeps them: ``name`` and ``type``, and what differs from its default.

    Raises ``InvalidRequest`` whose ``param`` is the path of the first thing that is wrong (``variables[0].max_length``).
    """
    if not isinstance(given, list | tuple):
        raise InvalidRequest(f"{path}: give a list of variables.", param=path)
    if len(given) > MOST_VARIABLES:
        raise InvalidRequest(f"{path}: a prompt has at most {MOST_VARIABLES} variables.", param=path)
    kept = [_declared(one, f"{path}[{index}]") for index, one in enumerate(given)]
    seen: set[str] = set()
    for index, one in enumerate(kept):
        if one["name"] in seen:
            where = f"{path}[{index}].name"
            raise InvalidRequest(f"{where}: {one['name']} is declared twice.", param=where)
        seen.add(one["name"])
    return kept


def variable_of(declared: Mapping[str, Any]) -> Variable:
    """A declaration that was checked before."""
    return Variable(**{**declared, "choices": tuple(declared.get("choices", ()))})


def text_variable(name: str) -> dict[str, Any]:
    """How a variable is declared that a template uses and nobody declared."""
    return {"name": name, "type": TEXT}


def name_problem(name: object) -> str:
    """Why a variable cannot be called so; empty when it can."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"use letters, digits and underscores, a letter first, at most {LONGEST_NAME}"
    return f"{name} is a word of the template language; choose another" if name in RESERVED else ""


def _declared(given: object, path: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{path}: give an object with a name and a type.", param=path)
    for member in given:
        if member not in MEMBERS:
            raise InvalidRequest(
                f"{path}: a variable has no {str(member)[:60]!r}. Members are {', '.join(MEMBERS)}.",
                param=path,
            )
    name, kind = given.get("name"), given.get("type", TEXT)
    if problem := name_problem(name):
        raise InvalidRequest(f"{path}.name: {problem}.", param=f"{path}.name")
    if kind not in TYPES:
        raise InvalidRequest(f"{path}.type: choose one of {', '.join(TYPES)}.", param=f"{path}.type")
    description = given.get("description", "")
    if not isinstance(description, str) or len(description) > 300 or text_problem(description):
        raise InvalidRequest(
            f"{path}.description: one line of at most 300 characters.", param=f"{path}.description"
        )
    for flag in ("required", "trusted"):
        if not isinstance(given.get(flag, False), bool):
            raise InvalidRequest(f"{path}.{flag}: must be true or false.", param=f"{path}.{flag}")
    for limit in ("min_length", "max_length", "minimum", "maximum", "max_items", "choices"):
        if given.get(limit) not in (None, (), []) and limit not in _LIMITS[kind]:
            raise InvalidRequest(
                f"{path}.{limit}: a variable of type {kind} has no {limit}.", param=f"{path}.{limit}"
            )
    if given.get("trusted") and kind not in WORDED:
        raise InvalidRequest(
            f"{path}.trusted: only texts, lists and objects come from outside; take it out.",
            param=f"{path}.trusted",
        )
    built = Variable(
        name=name,  # type: ignore[arg-type]
        type=kind,
        description=description,
        required=bool(given.get("required", True)),
        trusted=bool(given.get("trusted", False)),
        min_length=_count(given, "min_length", path, least=0, most=MOST_LENGTH, usual=0),
        max_length=_count(given, "max_length", path, least=1, most=MOST_LENGTH, usual=USUAL_LENGTH),
        minimum=_bound(given, "minimum", path, kind),
        maximum=_bound(given, "maximum", path, kind),
        max_items=_count(given, "max_items", path, least=1, most=MOST_ITEMS, usual=USUAL_ITEMS),
        choices=_choices(given, path) if kind == CHOICE else (),
    )
    if built.min_length > built.max_length:
        raise InvalidRequest(f"{path}.min_length: it is more than max_length.", param=f"{path}.min_length")
    if built.minimum is not None and built.maximum is not None and built.minimum > built.maximum:
        raise InvalidRequest(f"{path}.minimum: it is more than maximum.", param=f"{path}.minimum")
    default = given.get("default")
    if default is not None:
        try:
            default = value_of(built, default, path=f"{path}.default")
        except InvalidRequest as refused:
            raise InvalidRequest(refused.message, param=refused.param) from None
    return _plain(msgspec.structs.replace(built, default=default))


def _plain(variable: Variable) -> dict[str, Any]:
    """Without what is as it is by default, so that equal declarations are equal."""
    usual = Variable(variable.name)
    kept: dict[str, Any] = {"name": variable.name, "type": variable.type}
    for member in MEMBERS[2:]:
        value = getattr(variable, member)
        if value != getattr(usual, member):
            kept[member] = list(value) if isinstance(value, tuple) else value
    return kept


def _count(given: Mapping[Any, Any], member: str, path: str, *, least: int, most: int, usual: int) -> int:
    value = given.get(member)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidRequest(
            f"{path}.{member}: must be a whole number from {least} to {most:,}.", param=f"{path}.{member}"
        )
    return value


def _bound(given: Mapping[Any, Any], member: str, path: str, kind: str) -> float | None:
    value = given.get(member)
    if value is None:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not -LARGEST <= value <= LARGEST
        or (kind == INTEGER and not whole)
    ):
        raise InvalidRequest(
            f"{path}.{member}: must be a {'whole ' if kind == INTEGER else ''}number.",
            param=f"{path}.{member}",
        )
    return int(value) if kind == INTEGER else value


def _choices(given: Mapping[Any, Any], path: str) -> tuple[str, ...]:
    choices = given.get("choices")
    where = f"{path}.choices"
    if not isinstance(choices, list | tuple) or not 1 <= len(choices) <= MOST_CHOICES:
        raise InvalidRequest(f"{where}: list 1 to {MOST_CHOICES} texts.", param=where)
    for one in choices:
        if not isinstance(one, str) or not one or len(one) > LONGEST_CHOICE or text_problem(one):
            raise InvalidRequest(
                f"{where}: each is a text of one line, of 1 to {LONGEST_CHOICE} characters.", param=where
            )
    if len(set(choices)) < len(choices):
        raise InvalidRequest(f"{where}: one of them stands there twice.", param=where)
    return tuple(choices)


# Values ---------------------------------------------------------------------------------------------------------------


def values_of(
    variables: Iterable[Variable], given: Mapping[str, Any], *, path: str = "variables"
) -> dict[str, Any]:
    """A value for each variable: as given, or its default; None where an optional one has neither.

    Raises ``InvalidRequest`` whose ``param`` names the variable (``prompt.variables.ticket``): missing, unknown, of another type
    or beyond its limits.
    """
    found: dict[str, Any] = {}
    for variable in variables:
        value = given.get(variable.name)
        where = f"{path}.{variable.name}"
        if value is not None:
            found[variable.name] = value_of(variable, value, path=where)
        elif variable.default is not None or not variable.required:
            found[variable.name] = variable.default
        elif variable.name in given:
            raise InvalidRequest(f"{where}: must not be null; the prompt needs it.", param=where)
        else:
            raise InvalidRequest(
                f"{where}: missing; the prompt needs it{_told(variable)}.",
                param=where,
                code="missing_required_parameter",
            )
    if len(found) < len(given) or not given.keys() <= found.keys():
        unknown = next((name for name in given if name not in found), None)
        if unknown is not None:
            name = str(unknown)[:60]
            known = ", ".join(found) or "none"
            raise InvalidRequest(
                f"{path}.{name}: the prompt has no such variable. Its variables: {known}.",
                param=f"{path}.{name}",
            )
    return found


def value_of(variable: Variable, value: Any, *, path: str) -> Any:
    """``value`` as the variable takes it. Raises ``InvalidRequest`` with ``path``."""
    kind = variable.type
    if kind == TEXT:
        if (
            isinstance(value, Mapping)
            and value.get("type") == "input_text"
            and isinstance(value.get("text"), str)
        ):
            # OpenAI's own way of saying that a variable is text.
            value = value["text"]
        if not isinstance(value, str):
            raise _wrong(path, "must be text", code="invalid_type")
        if len(value) > variable.max_length:
            raise _wrong(
                path, f"is {len(value):,} characters long; at most {variable.max_length:,} are taken"
            )
        if len(value) < variable.min_length:
            raise _wrong(path, f"must have at least {variable.min_length:,} characters")
        return value
    if kind == BOOLEAN:
        if not isinstance(value, bool):
            raise _wrong(path, "must be true or false", code="invalid_type")
        return value
    if kind == CHOICE:
        if value not in variable.choices:
            raise _wrong(path, f"must be one of {', '.join(variable.choices)[:300]}")
        return value
    if kind in (INTEGER, NUMBER):
        return _number(variable, value, path)
    if kind == LIST:
        if not isinstance(value, list):
            raise _wrong(path, "must be a list", code="invalid_type")
        if len(value) > variable.max_items:
            raise _wrong(path, f"has {len(value):,} items; at most {variable.max_items:,} are taken")
    elif not isinstance(value, dict):
        raise _wrong(path, "must be an object", code="invalid_type")
    _check_inside(value, path)
    if (length := _length(value, path)) > variable.max_length:
        raise _wrong(
            path, f"is {length:,} characters of JSON long; at most {variable.max_length:,} are taken"
        )
    return value


def _number(variable: Variable, value: Any, path: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise _wrong(path, "must be a number", code="invalid_type")
    if variable.type == INTEGER and isinstance(value, float):
        if not value.is_integer() or abs(value) > LARGEST:
            raise _wrong(path, "must be a whole number", code="invalid_type")
        value = int(value)
    if not -LARGEST <= value <= LARGEST:
        raise _wrong(path, "is beyond what a number may be here")
    if variable.minimum is not None and value < variable.minimum:
        raise _wrong(path, f"must be at least {variable.minimum:g}")
    if variable.maximum is not None and value > variable.maximum:
        raise _wrong(path, f"must be at most {variable.maximum:g}")
    return value


def _check_inside(value: Any, path: str) -> None:
    """Depth and kinds of what a list or an object holds, without recursion."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        if isinstance(one, Mapping | list):
            if depth > DEEPEST:
                raise _wrong(path, f"is nested more than {DEEPEST} deep")
            inner: Sequence[Any] = list(one.values()) if isinstance(one, Mapping) else one
            waiting.extend((part, depth + 1) for part in inner)
        elif isinstance(one, int | float) and not isinstance(one, bool):
            if not -LARGEST <= one <= LARGEST and not isinstance(one, float):
                raise _wrong(path, "holds a whole number beyond what a number may be here")
        elif one is not None and not isinstance(one, str | bool):
            raise _wrong(path, "holds what JSON cannot", code="invalid_type")


def _length(value: Any, path: str) -> int:
    try:
        return len(msgspec.json.encode(value).decode())
    except (ValueError, TypeError, msgspec.MsgspecError, RecursionError):
        raise _wrong(path, "cannot be written as JSON") from None


def _wrong(path: str, what: str, *, code: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"{path}: {what}.", param=path, code=code)


def _told(variable: Variable) -> str:
    kind = {TEXT: "text", CHOICE: "one of " + ", ".join(variable.choices)[:200]}.get(
        variable.type, f"of type {variable.type}"
    )
    return f" ({kind})"
