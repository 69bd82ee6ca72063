"""The template language of prompts: a small part of Jinja2 that cannot hang, fill memory or reach anything. Pure.

What is allowed is a list, not what is forbidden: text, ``{{ value }}``, ``{% if %}``, ``{% for %}`` over what a variable holds,
comparisons, members, and the filters and tests below. There is nothing that calls, assigns, repeats, imports or recurses, so
the work of a template is bounded by its own size, by what its variables hold, and by a budget of steps and characters.

Names are known before anything runs: a variable that is used and not declared, or declared and not used, is an error of
the template, not of a call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes, pass_context
from jinja2.environment import Template
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmops.prompts.delimiters import MARKS, marked
from llmops.prompts.variables import Variable

MOST_SOURCE = 100_000
MOST_NODES, DEEPEST_NODE, MOST_LOOPS_INSIDE, MOST_TOKENS = 4_000, 60, 3, 20_000
#: Rounds of all loops of a rendering together, and characters of all of it.
MOST_ROUNDS, MOST_RENDERED = 10_000, 2_000_000
_BUDGET = "0budget"  # No template can name it: names begin with a letter.

_LOOP_MEMBERS = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})
_WORDS = {
    nodes.Call: "calls",
    nodes.Macro: "macros",
    nodes.CallBlock: "call blocks",
    nodes.FilterBlock: "filter blocks",
    nodes.Assign: "set",
    nodes.AssignBlock: "set",
    nodes.NSRef: "namespaces",
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "blocks",
    nodes.With: "with",
    nodes.ScopedEvalContextModifier: "autoescape",
    nodes.Mul: "multiplication",
    nodes.Pow: "powers",
    nodes.Div: "division",
    nodes.FloorDiv: "division",
    nodes.Mod: "formatting with %",
    nodes.Concat: "joining with ~ (write the two values one after the other)",
    nodes.Slice: "slices",
    nodes.Dict: "dictionaries",
}


class TemplateProblem(ValueError):
    """What is wrong with a template, as the rest of a sentence; ``line`` counts from 1, 0 where none is to blame."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


class RenderingStopped(ValueError):
    """A template cannot be rendered with these values; the text says why, and repeats none of them."""


@dataclass(slots=True)
class Budget:
    """What a rendering may still spend. Shared by all layers of a prompt."""

    rounds: int = MOST_ROUNDS
    chars: int = MOST_RENDERED

    def round(self) -> None:
        self.rounds -= 1
        if self.rounds < 0:
            raise RenderingStopped(f"its loops go more than {MOST_ROUNDS:,} rounds; send fewer items")

    def write(self, piece: str) -> None:
        self.chars -= len(piece)
        if self.chars < 0:
            raise RenderingStopped(f"it would become longer than {MOST_RENDERED:,} characters; send less")


class Layer:
    """One compiled template. ``uses`` are the variables that it names; ``delimits``: it sets off what comes from outside."""

    __slots__ = ("_render", "delimits", "fixed", "uses")

    def __init__(
        self, template: Template | None, fixed: str | None, uses: frozenset[str], delimits: bool
    ) -> None:
        self._render = template
        self.fixed = fixed
        self.uses = uses
        self.delimits = delimits

    def render(self, values: Mapping[str, Any], budget: Budget) -> str:
        """The text, with marks for delimiters (``delimiters.py``). Raises ``RenderingStopped``."""
        if self.fixed is not None:
            return self.fixed
        template = self._render
        assert template is not None
        pieces: list[str] = []
        context = template.new_context({**values, _BUDGET: budget})
        try:
            for piece in template.root_render_func(context):
                budget.write(piece)
                pieces.append(piece)
        except RenderingStopped:
            raise
        except TemplateError as failed:
            raise RenderingStopped(_undefined_words(failed)) from None
        except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError, MemoryError) as failed:
            raise RenderingStopped(
                f"a value does not fit what the template does with it ({type(failed).__name__})"
            ) from None
        return "".join(pieces)


def compile_layer(source: str, variables: Mapping[str, Variable], *, inline: bool) -> Layer:
    """``source`` as a layer. ``inline``: values from outside are set off one by one, where they stand.

    Raises ``TemplateProblem``.
    """
    tree = _parsed(source)
    if all(isinstance(node, nodes.Output) and _only_text(node) for node in tree.body):
        text = "".join(part.data for node in tree.body for part in node.nodes)  # type: ignore[attr-defined]
        return Layer(None, marked(text), frozenset(), delimits=False)
    checker = _Checker(variables, inline=inline)
    checker.body(tree.body, frozenset(), frozenset(), loops=0)
    # Names bound by loops are the same words that a variable may have, so what is used is collected on the way.
    try:
        code = _ENVIRONMENT.compile(tree, name="prompt", filename="<prompt>")
        template = Template.from_code(_ENVIRONMENT, code, {})
    except (TemplateError, SyntaxError, RecursionError, MemoryError, ValueError):
        raise TemplateProblem("it is too complicated; take parts of it out") from None
    return Layer(template, None, frozenset(checker.uses), checker.delimits)


def names_used(source: str) -> list[str]:
    """Names that a template takes from outside, in the order of their first use. Raises ``TemplateProblem``."""
    checker = _Checker(None, inline=False)
    checker.body(_parsed(source).body, frozenset(), frozenset(), loops=0)
    return list(checker.uses)


# Reading --------------------------------------------------------------------------------------------------------------


def _parsed(source: str) -> nodes.Template:
    if len(source) > MOST_SOURCE:
        raise TemplateProblem(f"it is longer than {MOST_SOURCE:,} characters")
    if any(mark in source for mark in MARKS):
        raise TemplateProblem(
            "it holds characters of the private use area, which the console needs for itself"
        )
    if "{" not in source:
        return nodes.Template(
            [nodes.Output([nodes.TemplateData(source)], lineno=1)] if source else [], lineno=1
        )
    try:
        for count, _ in enumerate(_ENVIRONMENT.lex(source)):
            if count > MOST_TOKENS:
                raise TemplateProblem("it is too complicated; take parts of it out")
        tree = _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as wrong:
        raise TemplateProblem((wrong.message or "not a template").rstrip("."), wrong.lineno) from None
    except (RecursionError, MemoryError, ValueError, OverflowError):
        raise TemplateProblem("it is nested too deeply") from None
    _check_size(tree)
    return tree


def _check_size(tree: nodes.Template) -> None:
    """Bounds of the tree, without recursion: whatever walks it afterwards does recurse."""
    count = 0
    waiting: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > MOST_NODES:
            raise TemplateProblem("it is too complicated; take parts of it out")
        if depth > DEEPEST_NODE:
            raise TemplateProblem("it is nested too deeply", getattr(node, "lineno", 0) or 0)
        waiting.extend((child, depth + 1) for child in node.iter_child_nodes())


def _only_text(node: nodes.Output) -> bool:
    return all(isinstance(part, nodes.TemplateData) for part in node.nodes)


class _Checker:
    """Walks a tree, refuses what is not on the list, and sets loops and values from outside apart in it.

    ``variables`` None: only names are wanted, whatever they stand for.
    """

    def __init__(self, variables: Mapping[str, Variable] | None, *, inline: bool) -> None:
        self.variables = variables
        self.inline = inline
        self.uses: dict[str, None] = {}
        self.delimits = False

    def body(
        self, body: list[nodes.Node], bound: frozenset[str], foreign: frozenset[str], *, loops: int
    ) -> None:
        """``bound``: names of loops around; ``foreign``: those of them that hold what comes from outside."""
        for node in body:
            if isinstance(node, nodes.Output):
                self._output(node, bound, foreign)
            elif isinstance(node, nodes.If):
                self._if(node, bound, foreign, loops)
            elif isinstance(node, nodes.For):
                self._for(node, bound, foreign, loops)
            else:
                raise _refused(node)

    def _output(self, node: nodes.Output, bound: frozenset[str], foreign: frozenset[str]) -> None:
        for index, part in enumerate(node.nodes):
            if isinstance(part, nodes.TemplateData):
                part.data = marked(part.data)
                continue
            if self.expression(part, bound, foreign) and self.inline:
                self.delimits = True
                node.nodes[index] = nodes.Filter(part, "_delimited", [], [], None, None, lineno=part.lineno)

    def _if(self, node: nodes.If, bound: frozenset[str], foreign: frozenset[str], loops: int) -> None:
        self.expression(node.test, bound, foreign)
        self.body(node.body, bound, foreign, loops=loops)
        for one in node.elif_:
            self._if(one, bound, foreign, loops)
        self.body(node.else_, bound, foreign, loops=loops)

    def _for(self, node: nodes.For, bound: frozenset[str], foreign: frozenset[str], loops: int) -> None:
        if node.recursive:
            raise TemplateProblem("recursive loops are not part of this language", node.lineno)
        if loops >= MOST_LOOPS_INSIDE:
            raise TemplateProblem(
                f"loops stand in one another more than {MOST_LOOPS_INSIDE} deep", node.lineno
            )
        outside = self.expression(node.iter, bound, foreign)
        names = self._targets(node.target)
        inner = bound | names | {"loop"}
        inner_foreign = (foreign - names) | (names if outside else frozenset())
        if node.test is not None:
            self.expression(node.test, inner - {"loop"}, inner_foreign)
        self.body(node.body, inner, inner_foreign, loops=loops + 1)
        self.body(node.else_, bound, foreign, loops=loops)
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)

    def _targets(self, target: nodes.Node) -> frozenset[str]:
        parts = target.items if isinstance(target, nodes.Tuple) else [target]
        names = set()
        for part in parts:
            if not isinstance(part, nodes.Name) or part.name.startswith("_") or part.name == "loop":
                raise TemplateProblem("a loop gives each item a plain name", target.lineno)
            names.add(part.name)
        return frozenset(names)

    def expression(self, node: nodes.Node, bound: frozenset[str], foreign: frozenset[str]) -> bool:
        """Check an expression; whether its value may hold words from outside."""
        if isinstance(node, nodes.Name):
            return self._name(node, bound, foreign)
        if isinstance(node, nodes.Const):
            if isinstance(node.value, str) and any(mark in node.value for mark in MARKS):
                raise TemplateProblem("it holds characters of the private use area", node.lineno)
            if node.value is not None and not isinstance(node.value, str | bool | int | float):
                raise _refused(node)
            return False
        if isinstance(node, nodes.List | nodes.Tuple):
            return self._any(node.items, bound, foreign)
        if isinstance(node, nodes.Compare):
            self.expression(node.expr, bound, foreign)
            self._any([one.expr for one in node.ops], bound, foreign)
            return False
        if isinstance(node, nodes.Not):
            self.expression(node.node, bound, foreign)
            return False
        if isinstance(node, nodes.And | nodes.Or | nodes.Add | nodes.Sub):
            return self._any([node.left, node.right], bound, foreign)
        if isinstance(node, nodes.Neg | nodes.Pos):
            return self.expression(node.node, bound, foreign)
        if isinstance(node, nodes.CondExpr):
            self.expression(node.test, bound, foreign)
            if node.expr2 is None:
                raise TemplateProblem("an if inside {{ }} needs its else", node.lineno)
            return self._any([node.expr1, node.expr2], bound, foreign)
        if isinstance(node, nodes.Getattr):
            return self._member(node, bound, foreign)
        if isinstance(node, nodes.Getitem):
            if not isinstance(node.arg, nodes.Const | nodes.Name | nodes.Neg):
                raise TemplateProblem("between [ ] stands a number, a text or a name", node.lineno)
            self.expression(node.arg, bound, foreign)
            return self.expression(node.node, bound, foreign)
        if isinstance(node, nodes.Filter):
            return self._filter(node, bound, foreign)
        if isinstance(node, nodes.Test):
            if node.name not in TESTS:
                raise TemplateProblem(
                    f"there is no test {node.name!r}; there are {', '.join(TESTS)}", node.lineno
                )
            self._arguments(node, bound, foreign)
            if node.node is not None:
                self.expression(node.node, bound, foreign)
            return False
        raise _refused(node)

    def _name(self, node: nodes.Name, bound: frozenset[str], foreign: frozenset[str]) -> bool:
        name = node.name
        if name == "loop" and name in bound:
            raise TemplateProblem(f"of loop there are {', '.join(sorted(_LOOP_MEMBERS))}", node.lineno)
        if name in bound:
            return name in foreign
        if name.startswith("_") or name in ("loop", "self", "super", "varargs", "kwargs", "caller"):
            raise TemplateProblem(f"{name!r} cannot be used here", node.lineno)
        self.uses.setdefault(name)
        if self.variables is None:
            return True
        declared = self.variables.get(name)
        if declared is None:
            raise TemplateProblem(f"{name} is not declared as a variable", node.lineno)
        return declared.foreign

    def _member(self, node: nodes.Getattr, bound: frozenset[str], foreign: frozenset[str]) -> bool:
        of = node.node
        if isinstance(of, nodes.Name) and of.name == "loop" and "loop" in bound:
            if node.attr not in _LOOP_MEMBERS:
                raise TemplateProblem(f"of loop there are {', '.join(sorted(_LOOP_MEMBERS))}", node.lineno)
            return False
        if node.attr.startswith("_"):
            raise TemplateProblem("members whose names begin with _ cannot be used", node.lineno)
        return self.expression(of, bound, foreign)

    def _filter(self, node: nodes.Filter, bound: frozenset[str], foreign: frozenset[str]) -> bool:
        if node.name not in FILTERS:
            raise TemplateProblem(
                f"there is no filter {node.name!r}; there are {', '.join(FILTERS)}", node.lineno
            )
        outside = self._arguments(node, bound, foreign)
        if node.node is None:
            raise _refused(node)
        return self.expression(node.node, bound, foreign) or outside

    def _arguments(self, node: Any, bound: frozenset[str], foreign: frozenset[str]) -> bool:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise TemplateProblem("arguments with * are not part of this language", node.lineno)
        return self._any([*node.args, *(one.value for one in node.kwargs)], bound, foreign)

    def _any(self, parts: Iterable[nodes.Node], bound: frozenset[str], foreign: frozenset[str]) -> bool:
        # Each of them is checked, also after one that may hold words from outside.
        outside = [self.expression(part, bound, foreign) for part in parts]
        return any(outside)


def _refused(node: nodes.Node) -> TemplateProblem:
    word = next(
        (word for kind, word in _WORDS.items() if isinstance(node, kind)), type(node).__name__.lower()
    )
    return TemplateProblem(f"{word}: not part of this language", getattr(node, "lineno", 0) or 0)


def _undefined_words(failed: TemplateError) -> str:
    return (failed.message or "it cannot be rendered").rstrip(".")


# Filters and tests ------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
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
    between = _text(separator)
    parts = [_text(one if attribute is None else _of(one, attribute)) for one in value]
    _bounded(sum(map(len, parts)) + len(between) * len(parts))
    return between.join(parts)


def _of(value: Any, name: Any) -> Any:
    if isinstance(value, Mapping) and name in value:
        return value[name]
    raise RenderingStopped("an item has no member of the name that join asks for")


def _replace(value: Any, old: Any, new: Any) -> str:
    text, out, into = _text(value), _text(old), _text(new)
    if not out:
        raise RenderingStopped("replace needs a text to look for")
    _bounded(len(text) + text.count(out) * len(into))
    return text.replace(out, into)


def _truncate(value: Any, length: Any = 255, end: Any = "…") -> str:
    text, most, ending = _text(value), _whole(length), _text(end)
    return text if len(text) <= most else text[: max(0, most - len(ending))] + ending


def _indent(value: Any, width: Any = 4) -> str:
    text, wide = _text(value), _whole(width, most=40)
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
    return lambda value: change(_text(value))


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


@pass_context
def _counted(context: Context, value: Any) -> Iterator[Any]:
    """What a loop goes over; each round is paid for before it begins."""
    if isinstance(value, Undefined):
        str(value)
    if value is None:
        return
    if not isinstance(value, list | tuple | dict | str):
        raise RenderingStopped("a loop goes over a list, an object or a text, and not over a number")
    budget: Budget = context[_BUDGET]
    for one in value:
        budget.round()
        yield one


def _delimited(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        return value
    return f"{MARKS[0]}{value}{MARKS[1]}"


class _Environment(ImmutableSandboxedEnvironment):
    """Members of objects and items of lists, sums of numbers, and nothing else."""

    intercepted_binops = frozenset(("+", "-"))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in _LOOP_MEMBERS:
            return getattr(obj, attribute)
        return self._inside(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return self._inside(obj, argument)

    def _inside(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            str(obj)
        if isinstance(obj, dict) and isinstance(argument, str):
            if argument in obj:
                return obj[argument]
            return self.undefined(f"an object has no member {argument[:60]!r}")
        if isinstance(obj, list | str) and isinstance(argument, int) and not isinstance(argument, bool):
            if -len(obj) <= argument < len(obj):
                return obj[argument]
            return self.undefined("a list has no item of that number")
        if isinstance(argument, str):
            return self.undefined(f"there is no member {argument[:60]!r}, since the value is no object")
        return self.undefined("the value is no list")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        for value in (left, right):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RenderingStopped("only numbers can be added or subtracted")
        return left + right if operator == "+" else left - right

    def call(self, *args: Any, **kwargs: Any) -> Any:
        raise RenderingStopped("nothing can be called")


def _environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_text,
        cache_size=0,
    )
    environment.globals.clear()
    environment.filters = {**FILTERS, "_counted": _counted, "_delimited": _delimited}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment


_ENVIRONMENT = _environment()
