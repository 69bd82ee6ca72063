"""Where the texts of a request stand."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.endpoints.base import read_members
from llmops.gateway.policing.texts import answer_places, asked_places
from tests.trying import tries

names = st.sampled_from(
    ["role", "type", "content", "text", "name", "arguments", "variables", "input", "url", "parts"]
)
values: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.text("ab", max_size=3), st.sampled_from(["tool", "system"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(st.one_of(st.text("ab", max_size=3), st.dictionaries(names, values, max_size=5)), max_size=4))
@tries(400)
def test_messages_are_looked_at_like_whatever_has_such_members(messages: list[Any]) -> None:
    members = read_members(msgspec.json.encode({"messages": messages}))
    found, many = asked_places(members)
    assert many == len(messages)
    # A message that is a bare string is text, in whatever it stands.
    wanted = {"messages": [{} if isinstance(one, str) else one for one in messages]}
    strings = [(("messages", place), one) for place, one in enumerate(messages) if isinstance(one, str)]
    general = [(place.path, place.text.text) for place in answer_places(wanted)]
    assert sorted(((place.path, place.text.text) for place in found), key=repr) == sorted(
        [*general, *strings], key=repr
    )
    for place, (path, text) in zip([one for one in found if len(one.path) > 2], general, strict=True):
        assert (place.path, place.text.text) == (path, text)
        assert place.text.where.startswith(f"messages[{path[1]}].{path[2]}")


def test_a_speaker_is_known_by_role_and_by_kind() -> None:
    items = [
        {"role": "function", "content": "a"}, {"role": ["user"], "type": "reasoning", "text": "b"},
        {"type": "shell_call_output", "output": "c"}, {"type": "function_call", "arguments": "d"}, {"role": {}, "content": "e"},
    ]  # fmt: skip
    found, _ = asked_places(read_members(msgspec.json.encode({"input": items})))
    assert [place.text.role for place in found] == ["tool", "assistant", "tool", "assistant", "user"]
