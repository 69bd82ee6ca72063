"""What takes a process long to check against a JSON Schema is refused before it is checked: objects against many that may be chosen, and
letters against patterns of long repetitions. What is checked every day is checked as ever."""

from __future__ import annotations

import re
import time
from typing import Any

import msgspec
import pytest

from llmops.core.errors import InvalidRequest
from llmops.core.verdicts import AFTER, RETRY
from llmops.policies.checks import compiled
from llmops.policies.checks.base import Answer
from llmops.policies.checks.schema import validator
from llmops.policies.checks.schema_effort import MOST_PATTERNS, Effort
from llmops.runs.rules import output_of
from llmops.tools.rules import checked_arguments, read_definition

#: Far beyond what a check takes that is allowed, on a machine with others on it, and far below what these took.
SOON_S = 2.0
WORDS = [f"w{n:05d}" for n in range(7_000)]
OBJECTS = [{"k": n} for n in range(6_000)]
#: Small when it is written: each letter may be in three thousand places of it at once.
NESTED = r"(?:[a-z]{0,20} ?){20}z"


def effort(schema: Any) -> Effort:
    return Effort(schema, msgspec.json.encode(schema))


def lists(items: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": {"type": "array", "items": items}}}


def one(schema: Any, **defs: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, **({"$defs": defs} if defs else {})}


#: Each took from one and a half seconds to minutes.
LARGE: dict[str, tuple[dict[str, Any], Any]] = {
    "objects to choose from": (lists({"enum": OBJECTS}), [OBJECTS[-1]] * 1_000),
    "lists to choose from": (lists({"enum": [[n] for n in range(8_000)]}), [[7_999]] * 5_000),
    "by reference": (one({"items": {"$ref": "#/$defs/x"}}, x={"enum": OBJECTS}), [OBJECTS[-1]] * 1_000),
    "of members": (one({"additionalProperties": {"enum": OBJECTS}}), {str(n): OBJECTS[-1] for n in range(9_000)}),
    "one by one": (lists({"anyOf": [{"const": word} for word in WORDS[:3_000]]}), [WORDS[2_999]] * 300_000),
    "a pattern": (one({"pattern": NESTED}), "ab" * 1_000_000),
    "a pattern by reference": (one({"$ref": "#/$defs/x"}, x={"pattern": NESTED}), "ab" * 1_000_000),
    "many patterns": (one({"allOf": [{"pattern": f"{NESTED}{n}"} for n in range(MOST_PATTERNS)]}), "ab" * 20_000),
    "patterns of names": (
        one({"patternProperties": {f"{NESTED}{n}": {} for n in range(100)}}), {f"{'ab' * 20}{n}": 1 for n in range(5_000)},
    ),
    "a pattern of names": (one({"propertyNames": {"pattern": NESTED}}), {f"{'ab' * 20}{n}": 1 for n in range(20_000)}),
    "more patterns than are compiled": (one({"allOf": [{"pattern": f"a{n}"} for n in range(MOST_PATTERNS + 1)]}), "a"),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_what_takes_long_is_refused_at_once(name: str) -> None:
    schema, value = LARGE[name]
    text = msgspec.json.encode({"a": value}).decode()
    began = time.perf_counter()
    found, problem = output_of(schema, text)
    assert (found, "too many parts" in problem) == (None, True), problem
    assert time.perf_counter() - began < SOON_S


@pytest.mark.parametrize("name", ["objects to choose from", "a pattern"])
def test_a_policy_finds_it_too_much_and_a_callers_own_schema_is_left_alone(name: str) -> None:
    schema, value = LARGE[name]
    text = msgspec.json.encode({"a": value}).decode()
    began = time.perf_counter()
    policy: Any = compiled("schema", AFTER, RETRY, {"schema": schema})
    assert [found.name for found in policy.judge_answer(Answer(text))] == ["too much to check"]
    own: Any = compiled("schema", AFTER, RETRY, {})
    assert own.judge_answer(Answer(text, schema=schema)) == []
    assert time.perf_counter() - began < SOON_S


def test_arguments_of_a_tool_are_checked_within_bounds_or_refused() -> None:
    """With the most that a tool takes: 64 KB of arguments, 100 KB of schema."""
    told = {"description": "x", "risk": "read", "execution": "service"}
    chosen = read_definition({**told, "parameters": lists({"enum": OBJECTS})})
    began = time.perf_counter()
    with pytest.raises(InvalidRequest, match="choices") as refused:
        checked_arguments(chosen, {"a": [OBJECTS[-1]] * 4_000})
    assert refused.value.param == "arguments"
    assert checked_arguments(chosen, {"a": OBJECTS[:20]})
    words = read_definition({**told, "parameters": lists({"enum": WORDS})})
    assert checked_arguments(words, {"a": WORDS[:6_000]})
    patterned = read_definition(
        {**told, "parameters": one({"allOf": [{"pattern": f"{NESTED}|{n}"} for n in range(90)]})}
    )
    with pytest.raises(InvalidRequest, match="patterns"):
        checked_arguments(patterned, {"a": "ab" * 30_000})
    assert time.perf_counter() - began < SOON_S


#: A schema, what follows it, and what does not.
USUAL: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "words to choose from": (lists({"enum": WORDS}), [WORDS[-1]] * 200_000, [WORDS[-1]] * 200_000 + ["no"]),
    "numbers to choose from": (lists({"enum": list(range(8_000))}), [7_999] * 200_000, [8_000]),
    "some objects to choose from": (lists({"enum": OBJECTS[:50]}), OBJECTS[:50] * 100, OBJECTS[:51]),
    "a large answer": (
        lists({"type": "object", "properties": {"n": {"type": "integer"}, "t": {"pattern": "^[a-z -]{1,200}$"}}, "required": ["n"]}),
        [{"n": n, "t": "word " * 10} for n in range(1_000)],
        [{"n": 1, "t": "WORD"}],
    ),
    "many objects": (lists({"properties": {"n": {"type": "integer"}}}), [{"n": n} for n in range(50_000)], [{"n": "no"}]),
    "an embedding": (lists({"type": "number"}), [0.125] * 300_000, [0.125] * 300_000 + ["no"]),
    "names of members": (lists({"properties": {word: {"type": "null"} for word in WORDS[:2_000]}}), [{}] * 2_000, [{WORDS[3]: 1}]),
    "names of people": (
        lists({"$ref": "#/$defs/x"}) | {"$defs": {"x": {"pattern": r"^\w[\w .-]*$"}}}, ["Ada Lovelace"] * 3_000, ["Ada", "!"],
    ),
    "a slug of any length": (one({"pattern": "^[a-z0-9-]{1,255}$"}), "a-b" * 80, "A-b" * 80),
}  # fmt: skip


@pytest.mark.parametrize("name", USUAL)
def test_what_is_usual_is_checked(name: str) -> None:
    schema, right, wrong = USUAL[name]
    began = time.perf_counter()
    assert output_of(schema, msgspec.json.encode({"a": right}).decode()) == ({"a": right}, "")
    found, problem = output_of(schema, msgspec.json.encode({"a": wrong}).decode())
    assert found is None and re.match(r"a(\.|:)", problem), problem
    assert time.perf_counter() - began < SOON_S


def test_a_pattern_that_is_too_large_when_it_is_compiled_is_no_schema() -> None:
    """A letter of it would take two hundred millionths of a second."""
    with pytest.raises(ValueError, match="repeats what repeats, repeat less"):
        validator(one({"pattern": r"(?:\w{0,60}\s?){60}z"}))


def test_what_refers_to_itself_is_followed_as_far_as_it_goes() -> None:
    tree = {"type": "object", "properties": {"parts": {"type": "array", "items": {"$ref": "#"}}}}
    value: dict[str, Any] = {"parts": [{"parts": [{}] * 50}] * 50}
    assert effort(tree).allows(value, 10_000)
    twice: dict[str, Any] = {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}] * 2}, "b": {"anyOf": [{"$ref": "#/$defs/c"}] * 400}, "c": {"anyOf": [{}] * 400}}, "$ref": "#/$defs/a"}  # fmt: skip
    assert not effort(twice).allows({}, 2)
