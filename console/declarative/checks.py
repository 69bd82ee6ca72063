"""Reading YAML with positions, and small checks of which the file's shape is made. Pure.

A check takes a YAML node, its path (``routes[0].targets``) and a ``Report``; it returns the value, or ``BAD`` after it
has reported what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any

import yaml

from llmops.core.errors import InvalidRequest
from llmops.core.money import parse_usd
from llmops.core.texts import text_problem

MOST_CHARS = 8 * 1024 * 1024
_MOST_PROBLEMS = 50
_STR, _INT, _FLOAT, _BOOL, _NULL = (
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")
)
_WORDS = {_STR: "text", _INT: "a number", _FLOAT: "a number", _BOOL: "true or false", _NULL: "nothing"}


class _Bad:
    def __repr__(self) -> str:
        return "BAD"


BAD: Any = _Bad()


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that is wrong: 1-based ``line``, where in the file's tree, and why."""

    line: int
    path: str
    reason: str

    def __str__(self) -> str:
        return (
            f"line {self.line}: {self.path}: {self.reason}"
            if self.path
            else f"line {self.line}: {self.reason}"
        )


class BadFile(InvalidRequest):
    """The file cannot be applied; ``found`` has every problem with its line. Nothing was changed."""

    code = "bad_file"

    def __init__(self, found: list[Found]) -> None:
        self.found = sorted(found, key=lambda problem: problem.line)
        super().__init__(
            "\n".join(map(str, self.found)),
            data={
                "problems": [
                    {"line": item.line, "path": item.path, "reason": item.reason} for item in self.found
                ]
            },
        )


@dataclass
class Report:
    found: list[Found] = field(default_factory=list)

    def bad(self, node: yaml.Node | int, path: str, reason: str) -> Any:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        if len(self.found) < _MOST_PROBLEMS:
            self.found.append(Found(line, path, reason))
        return BAD

    def raise_if_any(self) -> None:
        if self.found:
            raise BadFile(self.found)


Check = Callable[[yaml.Node, str, Report], Any]


# libyaml takes a fifth of the time; wheels have it, and without it the same is read slowly.
_Parser: Any = yaml.cyaml.CParser if yaml.__with_libyaml__ else yaml.SafeLoader  # type: ignore[attr-defined]


class _Loader(yaml.composer.Composer, _Parser, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """Without aliases: they can make a small text expand without bound."""

    def __init__(self, text: str) -> None:
        # libyaml counts bytes where it tells of these, and does not take half a surrogate at all.
        if (found := yaml.reader.Reader.NON_PRINTABLE.search(text)) is not None:
            raise yaml.reader.ReaderError("", found.start(), ord(found.group()), "unicode", "not allowed")
        _Parser.__init__(self, text)
        yaml.composer.Composer.__init__(self)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not supported; write the value out", event.start_mark
            )
        return super().compose_node(parent, index)


def parse(text: str) -> yaml.Node:
    """The tree of the one YAML document in ``text``. Raises ``BadFile`` with the line."""
    if len(text) > MOST_CHARS:
        raise BadFile([Found(1, "", f"the file is larger than {MOST_CHARS // 1024 // 1024} MiB")])
    loader: Any = None
    try:
        loader = _Loader(text)
        root: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # What is missing at the end is missing on the last line, not on one behind it.
        line = min(mark.line + 1, len(text.splitlines())) if mark else 1
        # Only the parser's own words: the context would quote the file, which may hold secrets.
        raise BadFile([Found(line, "", f"not valid YAML: {error.problem}")]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadFile([Found(line, "", "not valid YAML: a character that YAML does not allow")]) from None
    except RecursionError:
        raise BadFile([Found(1, "", "not valid YAML: nested too deeply")]) from None
    finally:
        if loader is not None:
            loader.dispose()
    if root is None:
        raise BadFile([Found(1, "", "the file is empty; it starts with version: 1")])
    return root


@dataclass(frozen=True, slots=True)
class Item:
    """A mapping that was read: its values by member, and the line of each member that stands in the file."""

    line: int
    values: dict[str, Any]
    lines: dict[str, int]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def line_of(self, name: str) -> int:
        return self.lines.get(name, self.line)


@dataclass(frozen=True, slots=True)
class Member:
    check: Check
    default: Any = None
    required: bool = False


def record(members: Mapping[str, Member]) -> Check:
    """A mapping with these members and no others; gives an ``Item``."""

    def check(node: yaml.Node, path: str, report: Report) -> Any:
        pairs = _pairs(node, path, report)
        if pairs is BAD:
            return BAD
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        sound = True
        for name, (key_node, value_node) in pairs.items():
            where = f"{path}.{name}" if path else name
            member = members.get(name)
            if member is None:
                report.bad(key_node, path, unknown(name, members))
                sound = False
                continue
            lines[name] = value_node.start_mark.line + 1
            value = member.check(value_node, where, report)
            sound = sound and value is not BAD
            values[name] = value
        for name, member in members.items():
            if name not in pairs:
                if member.required:
                    report.bad(node, path, f"the member {name!r} is missing")
                    sound = False
                default = member.default
                values[name] = default() if callable(default) else default
        return Item(node.start_mark.line + 1, values, lines) if sound else BAD

    return check


def unknown(name: str, allowed: Mapping[str, Any]) -> str:
    near = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    if near:
        return f"there is no member {name[:60]!r} here; did you mean {near[0]!r}?"
    return f"there is no member {name[:60]!r} here. Members: {', '.join(allowed)}"


def mapping_of(check_value: Check, *, allowed: tuple[str, ...] | None = None, most: int = 1_000) -> Check:
    """A mapping from free (or ``allowed``) names to values; gives a dict."""

    def check(node: yaml.Node, path: str, report: Report) -> Any:
        pairs = _pairs(node, path, report)
        if pairs is BAD:
            return BAD
        if len(pairs) > most:
            return report.bad(node, path, f"at most {most} members are read")
        values: dict[str, Any] = {}
        for name, (key_node, value_node) in pairs.items():
            if allowed is not None and name not in allowed:
                values[name] = report.bad(key_node, path, unknown(name, dict.fromkeys(allowed)))
            else:
                values[name] = check_value(value_node, f"{path}.{name}", report)
        return BAD if any(value is BAD for value in values.values()) else values

    return check


def list_of(check_item: Check, *, most: int = 10_000) -> Check:
    def check(node: yaml.Node, path: str, report: Report) -> Any:
        if not isinstance(node, yaml.SequenceNode):
            return report.bad(node, path, f"write a list here, not {_word(node)}")
        if len(node.value) > most:
            return report.bad(node, path, f"at most {most} items are read")
        items = [check_item(item, f"{path}[{index}]", report) for index, item in enumerate(node.value)]
        return BAD if any(item is BAD for item in items) else items

    return check


def text(*, most: int, blank: bool = True, lines: bool = False) -> Check:
    """Text on one line, or with ``lines`` on several."""

    def check(node: yaml.Node, path: str, report: Report) -> Any:
        value = _scalar(node, _STR)
        if value is BAD:
            hint = '; put it in quotes: "..."' if isinstance(node, yaml.ScalarNode) else ""
            return report.bad(node, path, f"write text here, not {_word(node)}{hint}")
        if problem := text_problem(value, lines=lines):
            return report.bad(node, path, problem)
        if len(value) > most:
            return report.bad(node, path, f"at most {most} characters are kept")
        if not blank and not value.strip():
            return report.bad(node, path, "this must not be empty")
        return value

    return check


def slug(node: yaml.Node, path: str, report: Report) -> Any:
    value = text(most=63)(node, path, report)
    if value is not BAD and not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", value):
        return report.bad(
            node,
            path,
            "use lowercase letters, digits, dots, underscores and hyphens, starting with a letter or digit",
        )
    return value


def choice(*allowed: str) -> Check:
    def check(node: yaml.Node, path: str, report: Report) -> Any:
        value = _scalar(node, _STR)
        if value is BAD or value not in allowed:
            near = get_close_matches(str(getattr(node, "value", ""))[:60], allowed, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            return report.bad(node, path, f"this is one of {', '.join(allowed)}{hint}")
        return value

    return check


def whole(least: int, most: int) -> Check:
    def check(node: yaml.Node, path: str, report: Report) -> Any:
        value = _scalar(node, _INT)
        if value is BAD:
            return report.bad(node, path, f"write a whole number here, not {_word(node)}")
        if not least <= value <= most:
            return report.bad(node, path, f"this must be from {least} to {most}")
        return value

    return check


def scaled(factor: int, least: int, most: int, *, unit: str) -> Check:
    """A decimal number, exactly multiplied to a whole one: seconds to milliseconds, a rate to percent."""

    def check(node: yaml.Node, path: str, report: Report) -> Any:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in (_INT, _FLOAT):
            return report.bad(node, path, f"write a number of {unit} here, not {_word(node)}")
        try:
            value = Decimal(node.value.replace("_", "")) * factor
        except InvalidOperation:
            return report.bad(
                node, path, f"write a number of {unit} here, such as {Decimal(most) / factor / 2}"
            )
        if not value.is_finite() or not least <= value <= most:
            return report.bad(
                node, path, f"this must be from {Decimal(least) / factor} to {Decimal(most) / factor} {unit}"
            )
        if value != int(value):
            return report.bad(node, path, f"steps smaller than {Decimal(1) / factor} {unit} are not kept")
        return int(value)

    return check


def yes_or_no(node: yaml.Node, path: str, report: Report) -> Any:
    value = _scalar(node, _BOOL)
    return report.bad(node, path, f"write true or false here, not {_word(node)}") if value is BAD else value


def usd(node: yaml.Node, path: str, report: Report) -> Any:
    """An amount as text; gives nanodollars."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in (_STR, _INT):
        return report.bad(
            node,
            path,
            'write the amount as text in quotes, such as "2.50"; floating point cannot hold money exactly',
        )
    try:
        return parse_usd(node.value, field=path)
    except InvalidRequest as refused:
        return report.bad(node, path, refused.message.removeprefix(f"{path}: "))


def moment(node: yaml.Node, path: str, report: Report) -> Any:
    """A time with its zone; gives an aware datetime in UTC."""
    value = getattr(node, "value", None)
    if isinstance(node, yaml.ScalarNode) and isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            found = None
        if found is not None and found.tzinfo is not None:
            return found.astimezone(UTC)
    return report.bad(node, path, 'write a time with its zone in quotes, such as "2027-01-31T00:00:00Z"')


def _json(*, lines: bool, most: int = 1_000) -> Check:
    def check(node: yaml.Node, path: str, report: Report) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return list_of(check)(node, path, report)
        if isinstance(node, yaml.MappingNode):
            return mapping_of(check, most=most)(node, path, report)
        value = _scalar(node, *_WORDS)
        if value is BAD or (isinstance(value, float) and value - value != 0):
            return report.bad(node, path, "JSON cannot hold this value; put it in quotes if text is meant")
        if problem := text_problem(value, lines=lines):
            return report.bad(node, path, problem)
        return value

    return check


#: Anything that JSON can hold, with texts on one line, or on several.
json_value, json_text = _json(lines=False), _json(lines=True)


def node_at(node: yaml.Node, path: str) -> yaml.Node:
    """The node that ``path`` (``.settings.rules[1].words``) leads to below ``node``, or the last one on the way."""
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
        found = None
        if name and isinstance(node, yaml.MappingNode):
            found = next((value for key, value in node.value if getattr(key, "value", None) == name), None)
        elif index and isinstance(node, yaml.SequenceNode) and int(index) < len(node.value):
            found = node.value[int(index)]
        if found is None:
            return node
        node = found
    return node


def _pairs(node: yaml.Node, path: str, report: Report) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return report.bad(node, path, f"write members (name: value) here, not {_word(node)}")
    pairs: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            return report.bad(key_node, path, "the name of a member is plain text")
        name = key_node.value
        if name in pairs:
            first = pairs[name][0].start_mark.line + 1
            return report.bad(key_node, path, f"{name[:60]!r} stands here twice (first on line {first})")
        pairs[name] = (key_node, value_node)
    return pairs


def _scalar(node: yaml.Node, *tags: str) -> Any:
    if not isinstance(node, yaml.ScalarNode) or node.tag not in tags:
        return BAD
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (ValueError, OverflowError):
        return BAD


def _word(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "members"
    return _WORDS.get(node.tag, "a date" if node.tag.endswith(":timestamp") else "this")
