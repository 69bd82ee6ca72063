"""Jinja2's sandbox, with nothing in it but the filters and tests of the language. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jinja2 import StrictUndefined, pass_context
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmops.prompts.delimiters import MARKS
from llmops.prompts.templating.filters import FILTERS, TESTS, as_text
from llmops.prompts.templating.limits import Budget, RenderingStopped

BUDGET = "0budget"  # No template can name it: names begin with a letter.
LOOP_MEMBERS = frozenset({"index", "index0", "revindex", "revindex0", "first", "last", "length"})


@pass_context
def _counted(context: Context, value: Any) -> Iterator[Any]:
    """What a loop goes over; each round is paid for before it begins."""
    if isinstance(value, Undefined):
        str(value)
    if value is None:
        return
    if not isinstance(value, list | tuple | dict | str):
        raise RenderingStopped("a loop goes over a list, an object or a text, and not over a number")
    budget: Budget = context[BUDGET]
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
        if isinstance(obj, LoopContext) and attribute in LOOP_MEMBERS:
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
        finalize=as_text,
        cache_size=0,
    )
    environment.globals.clear()
    environment.filters = {**FILTERS, "_counted": _counted, "_delimited": _delimited}
    environment.tests = {name: environment.tests[name] for name in TESTS}
    return environment


ENVIRONMENT = _environment()
