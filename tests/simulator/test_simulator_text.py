"""What the simulator says without counting is what tiktoken counts; instances of schemas are valid."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.tokens import count_text
from llmops.simulator import counting, text
from llmops.simulator.schema import minimal


def test_every_beginning_of_every_sentence_costs_one_token_a_piece() -> None:
    for sentence in text._PIECES:
        pieces = [*text.OPENING, *sentence]
        for length in range(len(pieces) + 1):
            assert count_text("".join(pieces[:length]), "gpt-4o") == length, pieces[:length]
    for length in range(len(text.REFUSAL) + 1):
        assert count_text("".join(text.REFUSAL[:length]), "gpt-4o") == length


@given(seed=st.integers(0, 2**64 - 1), length=st.one_of(st.none(), st.integers(0, 3_000)))
def test_prose_of_any_length_is_counted_right(seed: int, length: int | None) -> None:
    pieces = text.words(seed, length)
    assert count_text("".join(pieces), "gpt-4o") == len(pieces)
    assert pieces == text.words(seed, length)
    if length is None:
        assert 24 <= len(pieces) <= 100
        assert "".join(pieces).startswith("Simulated answer: ")
    else:
        assert len(pieces) == length


@given(seed=st.integers(0, 2**64 - 1), length=st.integers(0, 300))
def test_prose_is_estimated_right(seed: int, length: int) -> None:
    # The first word, "Simulated", has two tokens.
    assert counting.pieces("".join(text.words(seed, length))) == length - (length > 1)


@given(st.text(st.characters(max_codepoint=126), max_size=200))
def test_an_estimate_is_never_more_than_the_exact_count(asked: str) -> None:
    assert counting.pieces(asked) <= count_text(asked, "gpt-4o")
    assert bool(counting.pieces(asked)) == bool(asked)


def test_pieces_are_valid_json_strings() -> None:
    assert {piece: json.loads(shown) for piece, shown in text.AS_JSON.items()} == {
        piece: piece for piece in text.AS_JSON
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS: dict[str, dict[str, Any]] = {
    "strings": _object(
        a={"type": "string"}, b={"type": "string", "minLength": 20}, c={"maxLength": 2, "type": "string"}
    ),
    "numbers": _object(
        a={"type": "integer", "minimum": 3},
        b={"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
        c={"type": "integer", "maximum": -4},
        d={"type": "integer", "multipleOf": 7, "minimum": 1},
        e={"type": "number", "exclusiveMaximum": 0},
    ),
    "choices": _object(
        a={"enum": ["x", "y"]}, b={"const": 5}, c={"type": ["null", "boolean"]}, d={"type": "null"}
    ),
    "lists": _object(
        a={"type": "array", "items": {"type": "string"}},
        b={"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True},
        c={"type": "array", "items": {"enum": ["p", "q"]}, "minItems": 2, "uniqueItems": True},
        d={"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2},
    ),
    "patterns": _object(
        a={"type": "string", "pattern": r"^[A-Z]{3}-\d{4}$"},
        b={"type": "string", "pattern": r"^(?:yes|no)\s\w+[^a-z]$"},
        c={"type": "string", "pattern": r"^@\S+$"},
    ),
    "formats": _object(
        **{
            name.replace("-", "_"): {"type": "string", "format": name}
            for name in ("date", "date-time", "email", "uuid", "ipv4", "ipv6")
        }
    ),
    "any of": _object(
        a={"anyOf": [{"type": "null"}, {"type": "string", "minLength": 3}]},
        b={"oneOf": [{"type": "integer"}, {"type": "string"}]},
        c={"allOf": [{"type": "object", "properties": {"x": {"type": "integer"}}}, {"required": ["x"]}]},
    ),
    "references": {
        "$defs": {"label": {"type": "string", "enum": ["low", "high"]}, "a/b": {"type": "integer"}},
        **_object(a={"$ref": "#/$defs/label"}, b={"$ref": "#/$defs/a~1b"}),
    },
    "recursive": {
        "$defs": {
            "node": _object(
                value={"type": "integer"}, next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
            )
        },
        "$ref": "#/$defs/node",
    },
    "recursive list": {
        **_object(name={"type": "string"}, children={"type": "array", "items": {"$ref": "#"}}),
    },
    "optional": {"type": "object", "properties": {"a": {"type": "string"}}, "minProperties": 1},
    "no type": {"properties": {"a": {"type": "string"}}, "required": ["a"]},
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_instances_are_valid(name: str) -> None:
    schema = SCHEMAS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    instance = minimal(schema)
    jsonschema.validate(
        instance,
        schema,
        cls=jsonschema.Draft202012Validator,
        format_checker=jsonschema.FormatChecker(),
    )
    assert json.loads(json.dumps(instance)) == instance


KEYWORDS = [
    *("type", "properties", "required", "items", "anyOf", "allOf", "oneOf", "$ref", "$defs", "enum", "const"),
    *("minItems", "minLength", "maxLength", "pattern", "minimum", "multipleOf", "uniqueItems", "prefixItems"),
]


def test_schemas_that_would_explode_are_cut_off() -> None:
    wide = {"type": "array", "minItems": 60, "items": {"$ref": "#"}}
    assert len(json.dumps(minimal(wide))) < 200_000
    pattern = {"type": "string", "pattern": "((a{900}){900}){900}"}
    assert minimal(pattern) == "simulated"


json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYWORDS),
            st.one_of(
                inner,
                st.sampled_from(["object", "array", "string", "integer", "#", "#/$defs", "(", "[^a]{2}"]),
            ),
            max_size=5,
        ),
    ),
    max_leaves=25,
)


@given(schema=json_value)
def test_nonsense_for_a_schema_gives_something_that_is_json(schema: Any) -> None:
    json.dumps(minimal(schema))
