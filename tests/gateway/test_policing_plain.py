"""Requests and answers of the usual shape are decided at once, and as if every text had been looked for everywhere."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.policing.plain import plain_answers, plain_asked
from llmops.gateway.policing.texts import answer_places, answers_of, asked_places
from llmops.policies.checks.base import Asked, Text
from llmops.policies.decisions import Placeholders
from llmops.policies.engine import joined, prepare
from llmops.serving.snapshot import CheckEntry, PolicyEntry
from tests.policies.test_sieve import AFTER, BEFORE, chosen, guards
from tests.policies.test_sieve import texts as some_texts
from tests.trying import tries

texts = some_texts.map(lambda text: text.encode("utf-8", "replace").decode())
contents = st.one_of(
    texts,
    texts,
    texts,
    st.none(),
    st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": texts}), max_size=2),
    st.integers(),
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "system", "tool", "assistant"]), "content": contents},
    optional={
        "name": st.just("ada@example.com"),
        "tool_call_id": st.just("call_1"),
        "refusal": st.sampled_from([None, "No"]),
        "reasoning_content": st.sampled_from([None, "Well"]),
        "tool_calls": st.sampled_from([None, [], [{"function": {"arguments": "x", "name": "n"}}]]),
        "annotations": st.sampled_from([None, [], [{"text": "x"}]]),
        "audio": st.sampled_from([None, {"transcript": "x"}]),
        "strange": st.just({"text": "x"}),
    },
)
requests = st.fixed_dictionaries(
    {"messages": st.lists(messages, max_size=3)},
    optional={
        "instructions": texts,
        "prompt": texts,
        "model": st.just("m"),
        "metadata": st.just({"text": "x"}),
    },
)
answers = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {"message": messages},
                optional={
                    "index": st.integers(0, 3),
                    "finish_reason": st.sampled_from([None, "stop", "length"]),
                    "logprobs": st.sampled_from([None, {"content": [{"text": "x"}]}]),
                    "text": st.just("x"),
                },
            ),
            max_size=2,
        )
    },
    optional={
        "output": st.just([{"text": "x"}]),
        "text": st.just("x"),
        "id": st.just("x"),
        "usage": st.just({"a": 1}),
    },
)


@given(requests)
@tries(300)
def test_all_texts_of_a_plain_request_are_seen(asked: dict[str, Any]) -> None:
    members = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in asked.items()}
    plain = plain_asked(members)
    places, count = asked_places(members)
    if plain is not None:
        assert plain == ("\n".join(place.text.text for place in places), count)
    usual = all(set(one) <= {"role", "content", "name"} for one in asked["messages"])
    if usual and all(isinstance(one["content"], str) for one in asked["messages"]):
        assert (plain is None) == bool(asked.keys() & {"instructions", "prompt"})


@given(answers)
@tries(300)
def test_all_texts_of_a_plain_answer_are_seen(answer: dict[str, Any]) -> None:
    body = msgspec.json.encode(answer)
    plain = plain_answers(body, {"type": "object"})
    if plain is None:
        return
    assert plain == answers_of(answer, {"type": "object"})
    places = answer_places({name: answer[name] for name in ("choices", "output", "text") if name in answer})
    assert [one.text for one in plain if one.text] == [place.text.text for place in places]


@given(checks=chosen, said=st.lists(st.tuples(st.sampled_from(["user", "tool"]), texts), max_size=3))
@tries(400)
def test_where_nothing_is_found_at_once_nothing_is_found(checks: Any, said: list[tuple[str, str]]) -> None:
    lines = "\n".join(text for _, text in said)
    before, _ = guards(BEFORE, checks)
    asked = Asked(
        [Text(role, text, f"messages[{place}]") for place, (role, text) in enumerate(said)], len(said)
    )
    at_once, slowly = Placeholders(), Placeholders()
    if before.finds_nothing(lines, len(said), at_once):
        decision = before.check_before(asked, slowly)
        assert not decision.verdicts and not decision.texts
        assert at_once._taken == slowly._taken
    after, _ = guards(AFTER, checks)
    if after.changes_nothing(lines, Placeholders()):
        decision = after.check_texts(asked.texts, Placeholders())
        assert not decision.verdicts and not decision.texts


def test_what_is_prepared_is_what_calls_meet() -> None:
    """Nothing is left to compile when a request comes."""
    checks = (
        CheckEntry("secrets", "after", "redact", {}),
        CheckEntry("personal_data", "before", "block", {}),
    )
    policies = [
        PolicyEntry("all", 1, checks, everywhere=True),
        PolicyEntry(
            "some", 2, (CheckEntry("deny", "before", "block", {"rules": [{"name": "x", "words": ["no"]}]}),)
        ),
    ]
    prepare(policies, [(), ("some",), ("missing",)])
    from llmops.policies import engine, sieve

    caches = (engine._compiled, engine._guard, sieve.sieve_of, sieve._opening_of)
    misses = [cache.cache_info().misses for cache in caches]
    by_slug = {one.slug: one for one in policies}
    for named in ((), ("some",)):
        guard = engine.guard_of(joined(by_slug, named))
        assert guard is not None
        assert guard is engine.guard_of(joined(by_slug, named))
    assert [cache.cache_info().misses for cache in caches] == misses
