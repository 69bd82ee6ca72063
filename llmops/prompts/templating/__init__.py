"""The template language of prompts: a small part of Jinja2 that cannot hang, fill memory or reach anything. Pure.

What is allowed is a list, not what is forbidden: text, ``{{ value }}``, ``{% if %}``, ``{% for %}`` over what a variable holds,
comparisons, members, and the filters and tests of `filters.py`. There is nothing that calls, assigns, repeats, imports or recurses, so
the work of a template is bounded by its own size, by what its variables hold, and by a budget of steps and characters.

Names are known before anything runs: a variable that is used and not declared, or declared and not used, is an error of
the template, not of a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.environment import Template

from llmops.prompts.delimiters import marked
from llmops.prompts.templating.checking import Checker, only_text, parsed
from llmops.prompts.templating.environment import BUDGET, ENVIRONMENT
from llmops.prompts.templating.limits import (
    MOST_RENDERED,
    MOST_ROUNDS,
    MOST_SOURCE,
    Budget,
    RenderingStopped,
    TemplateProblem,
)
from llmops.prompts.variables import Variable

__all__ = [
    "MOST_RENDERED",
    "MOST_ROUNDS",
    "MOST_SOURCE",
    "Budget",
    "Layer",
    "RenderingStopped",
    "TemplateProblem",
    "compile_layer",
    "names_used",
]


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
        context = template.new_context({**values, BUDGET: budget})
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
    tree = parsed(source)
    if all(isinstance(node, nodes.Output) and only_text(node) for node in tree.body):
        text = "".join(part.data for node in tree.body for part in node.nodes)  # type: ignore[attr-defined]
        return Layer(None, marked(text), frozenset(), delimits=False)
    checker = Checker(variables, inline=inline)
    checker.body(tree.body, frozenset(), frozenset(), loops=0)
    # Names bound by loops are the same words that a variable may have, so what is used is collected on the way.
    try:
        code = ENVIRONMENT.compile(tree, name="prompt", filename="<prompt>")
        template = Template.from_code(ENVIRONMENT, code, {})
    except (TemplateError, SyntaxError, RecursionError, MemoryError, ValueError):
        raise TemplateProblem("it is too complicated; take parts of it out") from None
    return Layer(template, None, frozenset(checker.uses), checker.delimits)


def names_used(source: str) -> list[str]:
    """Names that a template takes from outside, in the order of their first use. Raises ``TemplateProblem``."""
    checker = Checker(None, inline=False)
    checker.body(parsed(source).body, frozenset(), frozenset(), loops=0)
    return list(checker.uses)


def _undefined_words(failed: TemplateError) -> str:
    return (failed.message or "it cannot be rendered").rstrip(".")
