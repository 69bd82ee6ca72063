"""Reading a template, and refusing in it what is not part of the language. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from llmops.prompts.delimiters import MARKS, marked
from llmops.prompts.templating.environment import ENVIRONMENT, LOOP_MEMBERS
from llmops.prompts.templating.filters import FILTERS, TESTS
from llmops.prompts.templating.limits import (
    DEEPEST_NODE,
    MOST_LOOPS_INSIDE,
    MOST_NODES,
    MOST_SOURCE,
    MOST_TOKENS,
    TemplateProblem,
)
from llmops.prompts.variables import Variable

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


def parsed(source: str) -> nodes.Template:
    """The tree of a template, within its bounds; nothing in it is checked yet. Raises ``TemplateProblem``."""
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
        for count, _ in enumerate(ENVIRONMENT.lex(source)):
            if count > MOST_TOKENS:
                raise TemplateProblem("it is too complicated; take parts of it out")
        tree = ENVIRONMENT.parse(source)
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


def only_text(node: nodes.Output) -> bool:
    """Whether nothing of it depends on values."""
    return all(isinstance(part, nodes.TemplateData) for part in node.nodes)


class Checker:
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
            raise TemplateProblem(f"of loop there are {', '.join(sorted(LOOP_MEMBERS))}", node.lineno)
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
            if node.attr not in LOOP_MEMBERS:
                raise TemplateProblem(f"of loop there are {', '.join(sorted(LOOP_MEMBERS))}", node.lineno)
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
