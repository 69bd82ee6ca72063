"""From a version of a prompt and the values of its variables to what the model is told. Pure.

    system     the organisation's policy          \\  one system message: values from outside are set off
    task       what is to be done                 /   one by one, where they stand
    context    what was retrieved                 \\  one user message: each layer is set off as a whole
    user       what the end user brings           /
    output     a JSON Schema that the answer follows

A version is compiled once and rendered many times; rendering takes microseconds, touches nothing, and is bounded
(``templating.py``). Renderings are promised to stay as they are: ``RENDERER`` is raised when they no longer do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from llmops.core.digests import digest
from llmops.core.errors import InvalidRequest
from llmops.prompts.delimiters import (
    CONTEXT,
    CONTEXT_END,
    DATA,
    DATA_END,
    GUARD,
    holds_control_tokens,
    tagged,
    without_marks,
)
from llmops.prompts.templating import Budget, Layer, RenderingStopped, TemplateProblem, compile_layer
from llmops.prompts.variables import Variable, values_of, variable_of

RENDERER = 1
#: In the order in which they are told, with what the editor calls them.
LAYERS = {
    "system": "System policy",
    "task": "Task",
    "context": "Retrieved context",
    "user": "User data",
}
_INLINE = ("system", "task")


class Rendered(NamedTuple):
    """What the model is told; an empty text is no message."""

    system: str
    user: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """As chat messages."""
        told = (("system", self.system), ("user", self.user))
        return [{"role": role, "content": text} for role, text in told if text]

    @property
    def digest(self) -> str:
        return digest({"system": self.system, "user": self.user})


class Compiled:
    """A version that can be rendered. Raises ``InvalidRequest`` naming the layer or variable that is wrong."""

    __slots__ = ("_layers", "_static", "variables")

    def __init__(
        self, layers: Mapping[str, str], variables: list[Mapping[str, Any]] | tuple[Any, ...]
    ) -> None:
        self.variables: tuple[Variable, ...] = tuple(map(variable_of, variables))
        by_name = {one.name: one for one in self.variables}
        self._layers = {name: _layer(name, layers.get(name) or "", by_name) for name in LAYERS}
        self._static: Rendered | None = None
        if not self.variables:
            try:
                self._static = self._rendered({})
            except RenderingStopped as stopped:
                raise InvalidRequest(f"The prompt cannot be rendered: {stopped}.") from None

    def unused(self) -> list[str]:
        """Declared variables that no layer uses."""
        used = frozenset().union(*(layer.uses for layer in self._layers.values()))
        return [one.name for one in self.variables if one.name not in used]

    def render(self, given: Mapping[str, Any], *, path: str = "variables") -> Rendered:
        """With the values that a caller gives. Raises ``InvalidRequest`` naming ``path.variable``."""
        values = values_of(self.variables, given, path=path)
        if self._static is not None:
            return self._static
        try:
            return self._rendered({name: without_marks(value) for name, value in values.items()})
        except RenderingStopped as stopped:
            raise InvalidRequest(
                f"{path}: the prompt cannot be rendered with these values: {stopped}.", param=path
            ) from None

    def _rendered(self, values: Mapping[str, Any]) -> Rendered:
        budget = Budget()
        written = {name: layer.render(values, budget).strip("\n") for name, layer in self._layers.items()}
        blocks = []
        if written["context"].strip():
            blocks.append(f"{CONTEXT}\n{tagged(written['context'])}\n{CONTEXT_END}")
        if written["user"].strip():
            blocks.append(f"{DATA}\n{tagged(written['user'])}\n{DATA_END}")
        orders = [tagged(written[name]) for name in _INLINE if written[name].strip()]
        if blocks or any(self._layers[name].delimits for name in _INLINE):
            orders.append(GUARD)
        return Rendered("\n\n".join(orders), "\n\n".join(blocks))


def _layer(name: str, source: str, variables: Mapping[str, Variable]) -> Layer:
    try:
        if holds_control_tokens(source):
            raise TemplateProblem(
                "it holds control tokens of models, such as <|im_start|>; write them otherwise"
            )
        return compile_layer(source, variables, inline=name in _INLINE)
    except TemplateProblem as problem:
        raise InvalidRequest(f"{name}: {problem}.", param=name) from None
