"""Declared variables, values of callers, parameters, samples: what is accepted, and what names its fault."""

from __future__ import annotations

import pytest

from llmops.core.errors import InvalidRequest
from llmops.prompts.content import EMPTY, MEMBERS, checked, digest_of, drafted, proved
from llmops.prompts.parameters import checked_parameters, for_chat, for_responses
from llmops.prompts.rendering import Compiled
from llmops.prompts.variables import checked_variables, values_of, variable_of
from llmops.prompts.wording import compare, differences

TRIAGE = {
    "system": "You triage support tickets.",
    "task": "Classify the ticket.",
    "user": "{{ ticket }}",
    "output_schema": {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]},
    "route": "chat",
}


@pytest.mark.parametrize(
    ("path", "declared"),
    [
        ("variables", "x"),
        ("variables[0]", ["x"]),
        ("variables[0].name", [{"name": "1a"}]),
        ("variables[0].name", [{"name": "for"}]),
        ("variables[0].name", [{"type": "text"}]),
        ("variables[0].name", [{"name": "a" * 41}]),
        ("variables[1].name", [{"name": "a"}, {"name": "a"}]),
        ("variables[0].type", [{"name": "a", "type": "file"}]),
        ("variables[0]", [{"name": "a", "size": 1}]),
        ("variables[0].max_length", [{"name": "a", "max_length": 0}]),
        ("variables[0].max_length", [{"name": "a", "type": "integer", "max_length": 5}]),
        ("variables[0].min_length", [{"name": "a", "min_length": 6, "max_length": 5}]),
        ("variables[0].minimum", [{"name": "a", "type": "number", "minimum": 2, "maximum": 1}]),
        ("variables[0].minimum", [{"name": "a", "type": "integer", "minimum": 0.5}]),
        ("variables[0].choices", [{"name": "a", "type": "choice"}]),
        ("variables[0].choices", [{"name": "a", "type": "choice", "choices": ["b", "b"]}]),
        ("variables[0].choices", [{"name": "a", "choices": ["b"]}]),
        ("variables[0].default", [{"name": "a", "type": "choice", "choices": ["b"], "default": "c"}]),
        ("variables[0].default", [{"name": "a", "max_length": 2, "default": "abc"}]),
        ("variables[0].required", [{"name": "a", "required": "yes"}]),
        ("variables[0].trusted", [{"name": "a", "type": "integer", "trusted": True}]),
        ("variables[0].description", [{"name": "a", "description": "b\nc"}]),
        ("variables", [{"name": f"a{n}"} for n in range(61)]),
    ],
)
def test_a_wrong_declaration_is_named(path, declared):
    with pytest.raises(InvalidRequest) as refused:
        checked_variables(declared)
    assert refused.value.param == path


@pytest.mark.parametrize(
    ("declared", "value", "words"),
    [
        ({}, 5, "must be text"),
        ({"max_length": 3}, "abcd", "4 characters long; at most 3"),
        ({"min_length": 3}, "ab", "at least 3"),
        ({"type": "integer"}, "5", "must be a number"),
        ({"type": "integer"}, 5.5, "whole number"),
        ({"type": "integer"}, True, "must be a number"),
        ({"type": "integer", "minimum": 1}, 0, "at least 1"),
        ({"type": "number", "maximum": 1}, 1.5, "at most 1"),
        ({"type": "number"}, float("nan"), "must be a number"),
        ({"type": "number"}, 2**60, "beyond"),
        ({"type": "boolean"}, "true", "true or false"),
        ({"type": "choice", "choices": ["red", "blue"]}, "green", "one of red, blue"),
        ({"type": "choice", "choices": ["red"]}, ["red"], "one of red"),
        ({"type": "list"}, "a", "must be a list"),
        ({"type": "list", "max_items": 2}, [1, 2, 3], "3 items; at most 2"),
        ({"type": "list", "max_length": 10}, ["a" * 20], "characters of JSON"),
        ({"type": "object"}, [], "must be an object"),
        ({"type": "object"}, {"a": [[[[[[[[[1]]]]]]]]]}, "nested"),
        ({"type": "text"}, {"type": "input_image", "image_url": "http://x"}, "must be text"),
    ],
)
def test_a_value_that_does_not_fit_is_named(declared, value, words):
    variable = variable_of(checked_variables([{"name": "x", **declared}])[0])
    with pytest.raises(InvalidRequest, match=words) as refused:
        values_of([variable], {"x": value}, path="prompt.variables")
    assert refused.value.param == "prompt.variables.x"


def test_missing_and_unknown_values():
    variables = [
        variable_of(one)
        for one in checked_variables(
            [{"name": "a"}, {"name": "b", "default": "B"}, {"name": "c", "required": False}]
        )
    ]
    assert values_of(variables, {"a": "A"}) == {"a": "A", "b": "B", "c": None}
    assert values_of(variables, {"a": {"type": "input_text", "text": "A"}, "b": None})["a"] == "A"
    with pytest.raises(InvalidRequest) as refused:
        values_of(variables, {}, path="prompt.variables")
    assert (refused.value.param, refused.value.code) == ("prompt.variables.a", "missing_required_parameter")
    with pytest.raises(InvalidRequest) as refused:
        values_of(variables, {"a": None}, path="prompt.variables")
    assert refused.value.param == "prompt.variables.a"
    with pytest.raises(InvalidRequest, match="Its variables: a, b, c") as refused:
        values_of(variables, {"a": "A", "z": 1}, path="prompt.variables")
    assert refused.value.param == "prompt.variables.z"


def test_a_declaration_keeps_what_is_not_as_usual():
    assert checked_variables([{"name": "a", "type": "text", "required": True, "max_length": 20_000}]) == [
        {"name": "a", "type": "text"}
    ]
    assert checked_variables([{"name": "a", "type": "integer", "minimum": 1.0, "default": 2}]) == [
        {"name": "a", "type": "integer", "default": 2, "minimum": 1}
    ]


@pytest.mark.parametrize(
    ("param", "changes"),
    [
        ("sytem", {"sytem": "x"}),
        ("task", {"task": 5}),
        ("task", {"task": "a\x00b"}),
        ("task", {"task": "a" * 100_001}),
        ("system", {"system": "", "task": " ", "user": "", "variables": []}),
        ("output_schema", {"output_schema": {"type": "nothing"}}),
        ("output_schema", {"output_schema": {"$ref": "https://example.com/x"}}),
        ("output_schema", {"output_schema": "x"}),
        ("output_schema", {"output_schema": {}}),
        ("parameters.heat", {"parameters": {"heat": 1}}),
        ("parameters.temperature", {"parameters": {"temperature": 3}}),
        ("parameters.max_output_tokens", {"parameters": {"max_output_tokens": 1.5}}),
        ("parameters.stop", {"parameters": {"stop": ["a"] * 5}}),
        ("parameters.reasoning_effort", {"parameters": {"reasoning_effort": "huge"}}),
        ("token_ceiling", {"token_ceiling": 0, "samples": [{"variables": {"ticket": "a"}}]}),
        ("samples", {"token_ceiling": 100}),
        ("samples[0]", {"samples": ["x"]}),
        ("samples[0].name", {"samples": [{"name": "a\nb", "variables": {}}]}),
        ("samples[0].digest", {"samples": [{"variables": {"ticket": "a"}, "digest": "x"}]}),
        ("route", {"route": 5}),
    ],
)
def test_a_wrong_member_is_named(param, changes):
    with pytest.raises(InvalidRequest) as refused:
        checked({**TRIAGE, **changes})
    assert refused.value.param == param


def test_what_is_checked_is_whole_and_checks_again():
    kept = checked(TRIAGE)
    assert set(kept) == set(MEMBERS)
    assert checked(kept) == kept
    assert digest_of(checked({**TRIAGE, "task": "Classify the ticket.", "samples": []})) == digest_of(kept)
    assert digest_of(checked({**TRIAGE, "task": "Classify it."})) != digest_of(kept)
    assert checked({"task": "a\r\nb"})["task"] == "a\nb"


def test_samples_are_promises():
    content = checked({**TRIAGE, "samples": [{"name": "one", "variables": {"ticket": "My printer burns"}}]})
    (told,) = proved(content)
    assert told == {
        "name": "one",
        "digest": Compiled(content, content["variables"]).render({"ticket": "My printer burns"}).digest,
    }
    promising = checked({**content, "samples": [{**content["samples"][0], "digest": told["digest"]}]})
    assert proved(promising)[0]["digest"] == told["digest"]
    with pytest.raises(InvalidRequest, match="otherwise than it promises"):
        proved({**promising, "task": "Other words."})
    with pytest.raises(InvalidRequest) as refused:
        proved(checked({**TRIAGE, "samples": [{"variables": {}}]}))
    assert refused.value.param == "samples[0].variables.ticket"


def test_a_ceiling_holds_for_every_sample():
    samples = [{"variables": {"ticket": "short"}}, {"name": "long", "variables": {"ticket": "word " * 500}}]
    with pytest.raises(InvalidRequest, match=r"long takes .* more than the 200 allowed") as refused:
        proved(checked({**TRIAGE, "token_ceiling": 200, "samples": samples}))
    assert refused.value.param == "token_ceiling"
    told = proved(checked({**TRIAGE, "token_ceiling": 2_000, "samples": samples}))
    assert [one["tokens"]["o200k_base"] > 500 for one in told] == [False, True]


def test_a_draft_keeps_what_is_not_right_yet():
    assert drafted({"task": "{{ half"})["task"] == "{{ half"
    assert drafted({}) == {**EMPTY, "variables": None}
    for wrong in ("x", {"task": 5}, {"samples": {}}, {"other": 1}, {"variables": [float("nan")]}):
        with pytest.raises(InvalidRequest):
            drafted(wrong)


def test_parameters_by_address():
    given = checked_parameters(
        {
            "temperature": 0.2,
            "max_output_tokens": 50,
            "seed": 1,
            "reasoning_effort": "low",
            "verbosity": "low",
            "stop": "END",
        }
    )
    assert for_chat(given) == {
        "temperature": 0.2, "max_completion_tokens": 50, "seed": 1, "reasoning_effort": "low", "verbosity": "low", "stop": ["END"],
    }  # fmt: skip
    assert for_responses(given) == (
        {"temperature": 0.2, "max_output_tokens": 50},
        {"effort": "low"},
        {"verbosity": "low"},
    )


def test_differences_in_words_and_side_by_side():
    before = checked(TRIAGE)
    after = checked(
        {
            **TRIAGE,
            "task": "Classify the angry ticket now.",
            "user": "{{ ticket }} {{ lang }}",
            "route": "fast",
            "parameters": {"temperature": 0},
        }
    )
    assert differences(before, after) == [
        "task: 2 words added",
        "user data: 5 words added",
        "variable lang: text, required added",
        "route: chat → fast",
        "temperature: none → 0",
    ]
    assert differences(before, before) == []
    task = next(one for one in compare(before, after) if one.name == "task")
    assert [piece.text for piece in task.after if piece.kind == "new"] == ["angry ", " now"]
    assert "".join(piece.text for piece in task.before) == before["task"]
    assert "".join(piece.text for piece in task.after) == after["task"]
    assert [one.name for one in compare(before, after) if not one.changed] == ["system", "output_schema"]
