"""Conditions that raise the class of a call: a small language, bounded, that never lets through what it cannot tell."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import InvalidRequest
from llmops.tools import rules
from llmops.tools.expressions import ConditionRefused, parse
from tests.tools.making import REFUND
from tests.trying import tries


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("amount > 1000", {"amount": 1000.01}, True),
        ("amount > 1000", {"amount": 1000}, False),
        ("amount > 1000", {"amount": "5000"}, None),
        ("amount > 1000", {"amount": True}, None),
        ("amount > 1000", {}, None),
        ("amount >= 0.1", {"amount": 0.1}, True),
        ("environment = production", {"environment": " Production "}, True),
        ("environment = production", {"environment": "ｐｒｏｄｕｃｔｉｏｎ"}, True),
        ("environment != staging", {"environment": "Staging"}, True),
        ("environment != staging", {"environment": "staging"}, False),
        ("not environment = production", {"environment": "test"}, True),
        ("not environment = production", {}, None),
        ("present(ticket) and ticket = x", {}, False),
        ("present(ticket)", {"ticket": None}, False),
        ("amount > 5 or environment = production", {"environment": "production"}, True),
        ("amount > 5 and environment = production", {"environment": "test"}, False),
        ("items.price > 10", {"items": [{"price": 1}, {"price": 11}]}, True),
        ("items.price > 10", {"items": []}, False),
        ("items.price > 10", {"items": [{"price": 1}, {}]}, None),
        ("to contains '@evil.example'", {"to": ["a@x", "b@EVIL.example"]}, True),
        ("region in [eu, 'us east']", {"region": "US East"}, True),
        ("length(body) > 3", {"body": "four"}, True),
        ("force = true", {"force": True}, True),
        ("force = true", {"force": 1}, None),
        ("owner = null", {"owner": None}, True),
        ('a = "or" or (b = 1)', {"a": "or"}, True),
    ],
)
def test_conditions(text: str, arguments: dict[str, Any], expected: bool | None) -> None:
    assert parse(text)(arguments) is expected


@pytest.mark.parametrize(
    "text",
    ["", "amount", "amount >", "amount > big", "> 5", "amount > 5 5", "(amount > 5", "a = 1 and", "not", "and = 1",
     "__import__('os')", "a.b()", "a = 1; b = 2", "a = [1]", "a in []", "amount > 1_000", "(" * 30 + "a = 1" + ")" * 30,
     "a = 1 or " * 60 + "a = 1", "a = 'open", "a ** 2 > 1", "lambda: 1", "a == = 1"],
)  # fmt: skip
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ConditionRefused):
        parse(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@tries(300)
@given(
    st.text(alphabet="ab.()[]=<>!,'\" 10notrdinpe", max_size=40),
    st.dictionaries(st.sampled_from("abc"), JSON, max_size=3),
)
def test_any_text_is_a_condition_or_refused_and_any_argument_is_judged(text: str, arguments: Any) -> None:
    try:
        condition = parse(text)
    except ConditionRefused:
        return
    assert condition(arguments) in (True, False, None)


@tries(200)
@given(JSON)
def test_what_is_not_surely_small_is_never_taken_for_small(amount: Any) -> None:
    """A call passes below a bound only with a number that is below it."""
    definition = rules.read_definition({**REFUND, "rules": [{"when": "amount > 100", "risk": "destructive"}]})
    risk = rules.classify(definition, {"amount": amount}).risk
    numbers = amount if isinstance(amount, list) else [amount]
    small = all(isinstance(one, int | float) and not isinstance(one, bool) and one <= 100 for one in numbers)
    if risk == "write":
        flat = str(amount)
        assert small or isinstance(amount, list), flat
    elif small:
        pytest.fail(f"{amount!r} was raised")


def test_the_highest_class_that_holds_counts_and_says_why() -> None:
    definition = rules.read_definition(REFUND)
    found = {amount: rules.classify(definition, {"amount": amount}) for amount in (50, 500, 5000, "x")}
    assert [found[one].risk for one in found] == ["write", "destructive", "irreversible", "irreversible"]
    assert found[50].words == "the tool's own class" and found[5000].words == "amount > 1000"
    assert "could not be told" in found["x"].words


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"risk": "harmless"}, "definition.risk"),
        ({"surprise": 1}, "definition"),
        ({"rules": [{"when": "amount >", "risk": "destructive"}]}, "definition.rules[0].when"),
        ({"rules": [{"when": "amount > 1", "risk": "read"}]}, "definition.rules[0].risk"),
        ({"approvals": {"destructive": 0}}, "definition.approvals.destructive"),
        ({"parameters": {"type": "array"}}, "definition.parameters"),
        (
            {"parameters": {"type": "object", "properties": {"a": {"type": "nothing"}}}},
            "definition.parameters",
        ),
        ({"parameters": {"type": "object", "$ref": "https://evil.example/x.json"}}, "definition.parameters"),
        ({"timeout_s": 0}, "definition.timeout_s"),
        ({"says": "two\nlines"}, "definition.says"),
    ],
)
def test_definitions_that_are_refused_name_what_is_wrong(changed: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        rules.read_definition({**REFUND, **changed})
    assert refused.value.param == param


def test_words_are_never_read_as_holes_again() -> None:
    definition = rules.read_definition(REFUND)
    told = rules.in_words(
        definition, "refund", {"amount": 5, "customer": "{amount} {0.__class__}\n" + "x" * 500}
    )
    assert (
        told.startswith("Refund 5 USD to {amount} {0.__class__} xxx")
        and told.endswith("…")
        and len(told) < 130
    )


def test_the_digest_knows_every_part() -> None:
    base: dict[str, Any] = {
        "version": "v:1", "arguments": {"a": 1, "b": [1, 2]}, "run": "r", "requester": {"kind": "user", "id": "1"},
    }  # fmt: skip
    known = rules.action_digest(**base)
    assert known == rules.action_digest(**{**base, "arguments": {"b": [1, 2], "a": 1}})
    others = [
        {"version": "v:2"}, {"arguments": {"a": 2, "b": [1, 2]}}, {"arguments": {"a": "1", "b": [1, 2]}},
        {"arguments": {"a": 1, "b": [2, 1]}}, {"run": ""}, {"requester": {"kind": "user", "id": "2"}},
    ]  # fmt: skip
    assert len({known, *(rules.action_digest(**{**base, **other}) for other in others)}) == 7
