"""What a version of a prompt says, as plain values: checking it, its digest, and what its renderings are. Pure.

``{system, task, context, user, output_schema, variables, route, parameters, token_ceiling, samples}``; a member that is left out is
empty. Where ``variables`` are left out, what the layers name is declared as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.core.digests import canonical_json, digest
from llmops.core.errors import InvalidRequest
from llmops.core.texts import text_problem
from llmops.core.tokens import count_chat, count_text
from llmops.policies.checks.schema import validator
from llmops.prompts.parameters import checked_parameters
from llmops.prompts.rendering import LAYERS, Compiled, Rendered
from llmops.prompts.templating import MOST_SOURCE, TemplateProblem, names_used
from llmops.prompts.variables import MOST_VARIABLES, checked_variables, name_problem, text_variable

MEMBERS = (*LAYERS, "output_schema", "variables", "route", "parameters", "token_ceiling", "samples")
MOST_SCHEMA_BYTES = 100_000
MOST_SAMPLES, MOST_SAMPLE_BYTES = 20, 500_000
LARGEST_CEILING = 10_000_000
#: A model for each encoding in which tokens are counted.
ENCODINGS = {"o200k_base": "gpt-4o", "cl100k_base": "gpt-4"}
EMPTY: dict[str, Any] = {
    **dict.fromkeys(LAYERS, ""),
    "output_schema": None,
    "variables": [],
    "route": "",
    "parameters": {},
    "token_ceiling": None,
    "samples": [],
}


def drafted(given: object) -> dict[str, Any]:
    """Work in progress, as a draft keeps it: every member there, of the right type and bounded, right or not.

    Raises ``InvalidRequest`` naming the member that cannot be kept.
    """
    if not isinstance(given, Mapping):
        raise InvalidRequest("content: give an object.", param="content")
    for name in given:
        if name not in MEMBERS:
            raise InvalidRequest(
                f"{str(name)[:60]}: a prompt has no such member. Members are {', '.join(MEMBERS)}.",
                param=str(name)[:60],
            )
    kept = {name: given[name] if given.get(name) is not None else EMPTY[name] for name in MEMBERS}
    # None, and not an empty list: what the layers name is declared by itself.
    kept["variables"] = given.get("variables")
    for name in LAYERS:
        kept[name] = _layer(name, kept[name])
    if not isinstance(kept["route"], str) or len(kept["route"]) > 63:
        raise InvalidRequest("route: give the name of a route.", param="route")
    kinds: dict[str, type] = {"variables": list, "parameters": dict, "samples": list}
    for name, kind in kinds.items():
        if not isinstance(kept[name], kind) and not (name == "variables" and kept[name] is None):
            raise InvalidRequest(f"{name}: give {'a list' if kind is list else 'an object'}.", param=name)
    if kept["output_schema"] is not None and not isinstance(kept["output_schema"], dict):
        raise InvalidRequest("output_schema: give a JSON Schema as an object.", param="output_schema")
    for name in MEMBERS:
        _storable(name, kept[name], most=MOST_SOURCE * 6 if name in LAYERS else MOST_SAMPLE_BYTES)
    return kept


def checked(given: object) -> dict[str, Any]:
    """What a version keeps. Raises ``InvalidRequest`` whose ``param`` names the member, variable or parameter that is wrong
    (``variables[0].max_length``, ``task``), and says why.
    """
    kept = drafted(given)
    if not any(kept[name].strip() for name in LAYERS):
        raise InvalidRequest("system: a prompt says something in at least one layer.", param="system")
    kept["variables"] = checked_variables(inferred(kept) if kept["variables"] is None else kept["variables"])
    kept["parameters"] = checked_parameters(kept["parameters"])
    _check_schema(kept["output_schema"])
    ceiling = kept["token_ceiling"]
    if ceiling is not None and (
        isinstance(ceiling, bool) or not isinstance(ceiling, int) or not 1 <= ceiling <= LARGEST_CEILING
    ):
        raise InvalidRequest(
            f"token_ceiling: a whole number from 1 to {LARGEST_CEILING:,}.", param="token_ceiling"
        )
    compiled = Compiled(kept, kept["variables"])
    if unused := compiled.unused():
        index = next(n for n, one in enumerate(kept["variables"]) if one["name"] == unused[0])
        raise InvalidRequest(
            f"variables[{index}]: {unused[0]} is declared, and no layer uses it. Use it or take it out.",
            param=f"variables[{index}]",
        )
    kept["samples"] = _samples(kept["samples"])
    if (
        ceiling is not None
        and not kept["samples"]
        and any(one.required and one.default is None for one in compiled.variables)
    ):
        raise InvalidRequest(
            "samples: a token ceiling is held against samples; give at least one.", param="samples"
        )
    return kept


def inferred(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A declaration, as text, of each name that the layers take from outside, in the order of their first use."""
    names: dict[str, None] = {}
    for layer in LAYERS:
        try:
            names.update(dict.fromkeys(names_used(content[layer])))
        except TemplateProblem as problem:
            raise InvalidRequest(f"{layer}: {problem}.", param=layer) from None
    return [text_variable(name) for name in list(names)[: MOST_VARIABLES + 1]]


def digest_of(content: Mapping[str, Any]) -> str:
    """What tells two versions apart: every member, whatever the note."""
    return digest({name: content[name] for name in MEMBERS})


def proved(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each sample rendered: ``{name, digest, tokens}``, with tokens by encoding where there is a ceiling to hold them against.

    Raises ``InvalidRequest`` for a sample that cannot be rendered (``samples[0].variables.ticket``), whose rendering is not the
    one that it promises (``samples[0].digest``), or that is over the ceiling.
    """
    compiled = Compiled(content, content["variables"])
    found = []
    ceiling = content["token_ceiling"]
    for index, sample in enumerate(
        content["samples"] or [{"name": "", "variables": {}}] * (ceiling is not None)
    ):
        path = f"samples[{index}]"
        rendered = compiled.render(sample["variables"], path=f"{path}.variables")
        promised = sample.get("digest")
        if promised and promised != rendered.digest:
            raise InvalidRequest(
                f"{path}.digest: {sample['name'] or path} is rendered otherwise than it promises. If that is meant, take the "
                "digest out.",
                param=f"{path}.digest",
            )
        told: dict[str, Any] = {"name": sample["name"], "digest": rendered.digest}
        if ceiling is not None:
            told["tokens"] = {
                encoding: tokens_of(rendered, content["output_schema"], model)
                for encoding, model in ENCODINGS.items()
            }
            most = min(told["tokens"].values())
            if most > ceiling:
                raise InvalidRequest(
                    f"token_ceiling: {sample['name'] or 'the prompt'} takes {most:,} tokens, more than the {ceiling:,} allowed.",
                    param="token_ceiling",
                )
        found.append(told)
    return found


def tokens_of(rendered: Rendered, schema: Any, model: str) -> int:
    """Input tokens of a rendering for a model as its provider spells it. CPU-bound; exact but for the schema."""
    counted = count_chat(rendered.messages, model) if rendered.messages else 0
    return counted + (count_text(canonical_json(schema).decode(), model) if schema is not None else 0)


def _layer(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name}: give text.", param=name)
    value = value.replace("\r\n", "\n").replace("\r", "\n")
    if len(value) > MOST_SOURCE:
        raise InvalidRequest(f"{name}: at most {MOST_SOURCE:,} characters.", param=name)
    return value


def _storable(name: str, value: Any, *, most: int) -> None:
    try:
        problem = text_problem(value, lines=True)
        size = len(canonical_json(value))
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest(f"{name}: JSON cannot hold one of the values.", param=name) from None
    if problem:
        raise InvalidRequest(f"{name}: {problem}.", param=name)
    if size > most:
        raise InvalidRequest(f"{name}: at most {most:,} bytes are kept.", param=name)


def _check_schema(schema: Any) -> None:
    if schema is None:
        return
    if len(canonical_json(schema)) > MOST_SCHEMA_BYTES:
        raise InvalidRequest(f"output_schema: at most {MOST_SCHEMA_BYTES:,} bytes.", param="output_schema")
    if not schema:
        raise InvalidRequest("output_schema: it says nothing; leave it out.", param="output_schema")
    try:
        validator(schema)
    except ValueError as error:
        raise InvalidRequest(f"output_schema: {str(error).rstrip('.')}.", param="output_schema") from None


def _samples(given: list[Any]) -> list[dict[str, Any]]:
    if len(given) > MOST_SAMPLES:
        raise InvalidRequest(f"samples: at most {MOST_SAMPLES}.", param="samples")
    kept = []
    for index, one in enumerate(given):
        path = f"samples[{index}]"
        if not isinstance(one, Mapping) or not isinstance(one.get("variables", {}), Mapping):
            raise InvalidRequest(f"{path}: give an object with a name and variables.", param=path)
        for member in one:
            if member not in ("name", "variables", "digest"):
                raise InvalidRequest(f"{path}: a sample has no {str(member)[:60]!r}.", param=path)
        name = one.get("name") or f"sample {index + 1}"
        if not isinstance(name, str) or len(name) > 80 or text_problem(name):
            raise InvalidRequest(f"{path}.name: one line of at most 80 characters.", param=f"{path}.name")
        for variable in one.get("variables") or {}:
            if name_problem(variable):
                raise InvalidRequest(
                    f"{path}.variables: there is no such variable.", param=f"{path}.variables"
                )
        sample = {"name": name, "variables": dict(one.get("variables") or {})}
        if promised := one.get("digest"):
            if not isinstance(promised, str) or len(promised) != 64:
                raise InvalidRequest(f"{path}.digest: 64 hexadecimal digits.", param=f"{path}.digest")
            sample["digest"] = promised
        kept.append(sample)
    return kept
