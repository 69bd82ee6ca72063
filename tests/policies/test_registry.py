"""What every kind of check promises, whoever adds it."""

from __future__ import annotations

import re
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from llmops.core.errors import InvalidRequest
from llmops.core.verdicts import ACTIONS, STAGES
from llmops.policies.checks import CHECKS, check_class, compiled, describe, validate
from llmops.policies.checks.base import (
    Answer,
    AnswerCheck,
    Asked,
    AskedCheck,
    Check,
    Remote,
    Text,
    TextCheck,
)

RULES = {"rules": [{"name": "project names", "words": ["blue heron"], "expressions": ["PX-[0-9]{4,6}"]}]}
#: Settings with which a kind can run, where the defaults alone are not enough.
SETTINGS: dict[str, dict[str, Any]] = {
    "length": {"max_characters": 1_000},
    "deny": RULES,
    "allow": RULES,
    "risk": RULES,
    "moderation": {"model": "omni-moderation"},
    "schema": {"schema": {"type": "object", "required": ["label"]}},
}
SIZE = 200_000
HOSTILE = {
    "one letter": "a" * SIZE,
    "digits": "4" * SIZE,
    "digits and spaces": "4 1" * (SIZE // 3),
    "groups of four": "4111 " * (SIZE // 5),
    "at signs": "a@a." * (SIZE // 4),
    "dots": "1.2." * (SIZE // 4),
    "colons": "ab:" * (SIZE // 3),
    "plus": "+1" * (SIZE // 2),
    "dashes": "-----BEGIN " * (SIZE // 11),
    "keys": "sk-" * (SIZE // 3),
    "tokens": "eyJ" * (SIZE // 3),
    "passwords": "password=" * (SIZE // 9),
    "ignore": "ignore all previous " * (SIZE // 20),
    "brackets": "<|" * (SIZE // 2),
    "base64": "QUJD" * (SIZE // 4),
    "images": "![a](https://" * (SIZE // 13),
    "lists": "[" * SIZE,
    "iban": "DE89 " * (SIZE // 5),
    "wide": "\U0001f600" * (SIZE // 4),
    "white": " \t\n" * (SIZE // 3),
}


def ready(kind: str, stage: str, action: str) -> Check:
    settings = SETTINGS.get(kind, {})
    validate(kind, stage, action, settings)
    return compiled(kind, stage, action, settings)


def run(check: Check, text: str) -> list[Any]:
    """Everything that a check has to say about a text."""
    found: list[Any] = []
    if isinstance(check, TextCheck):
        data = text.encode()
        found += check.spans(data)
        found.append(check.open_at(data))
    if isinstance(check, AskedCheck):
        found += check.judge_asked(Asked([Text("user", text, "messages[0].content")]))
    if isinstance(check, AnswerCheck):
        found += check.judge_answer(Answer(text))
    return found


@pytest.mark.parametrize("kind", CHECKS)
def test_it_is_described(kind: str) -> None:
    said = describe(kind)
    assert check_class(kind).kind == kind
    assert said.title and len(said.summary) > 30 and said.summary.endswith(".")
    assert said.actions and set(said.actions) <= set(STAGES)
    for actions in said.actions.values():
        assert actions and list(actions) == [one for one in ACTIONS if one in actions]
    for name, setting in said.settings.get("properties", {}).items():
        inner = setting.get("items", {})
        assert setting.get("description") or "$ref" in inner, f"{kind}.{name} says nothing about itself"


@pytest.mark.parametrize("kind", CHECKS)
def test_it_has_a_file_of_its_own_and_a_line_in_the_documentation(kind: str) -> None:
    module = check_class(kind).__module__
    assert module == f"llmops.policies.checks.{kind}"
    rooms = Path(__file__).parents[2] / "llmops" / "policies" / "README.md"
    assert re.search(rf"^\| `{kind}` \|", rooms.read_text(), re.MULTILINE)


@pytest.mark.parametrize("kind", CHECKS)
def test_it_says_which_setting_is_wrong(kind: str) -> None:
    stage = next(iter(check_class(kind).actions))
    action = check_class(kind).actions[stage][0]
    with pytest.raises(InvalidRequest) as refused:
        validate(kind, stage, action, {"colour": "red"} | SETTINGS.get(kind, {}), path="checks[3]")
    assert refused.value.param == "checks[3].settings.colour"
    with pytest.raises(InvalidRequest) as refused:
        validate(kind, "during", action, SETTINGS.get(kind, {}), path="checks[3]")
    assert refused.value.param == "checks[3].stage"
    with pytest.raises(InvalidRequest) as refused:
        validate(kind, stage, "explode", SETTINGS.get(kind, {}), path="checks[3]")
    assert refused.value.param == "checks[3].action"


@pytest.mark.parametrize("kind", CHECKS)
def test_it_has_one_shape_at_least(kind: str) -> None:
    assert issubclass(check_class(kind), TextCheck | AskedCheck | AnswerCheck | Remote)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("kind", CHECKS)
def test_a_hostile_text_costs_bounded_time_and_gives_the_same_twice(kind: str, text: str) -> None:
    for stage, actions in check_class(kind).actions.items():
        check = ready(kind, stage, actions[-1])
        began = process_time()
        first = run(check, text)
        # A bound against quadratic time, which would be many minutes.
        assert process_time() - began < 30
        assert len(first) < SIZE
    assert run(check, text[:50_000]) == run(check, text[:50_000])
