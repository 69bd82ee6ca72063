"""Cutting a conversation: the oldest goes, calls stay with their results, instructions and the last word of the user stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.gateway.attempts.turns import _closes, _opens, drop_oldest, transcript


def said(role: str, text: str = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text} | more


SYSTEM, USER, ANSWER = said("system"), said("user"), said("assistant")


def calls(*ids: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": one, "type": "function", "function": {"name": "f", "arguments": "{}"}} for one in ids
        ],
    }


def result(call: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": "r"}


def item_call(call: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call, "name": "f", "arguments": "{}"}


def item_result(call: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call, "output": "r"}


THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}


@pytest.mark.parametrize(
    ("items", "excess", "dropped"),
    [
        ([SYSTEM, USER, ANSWER, USER], 1, [1, 2]),
        ([SYSTEM, USER, ANSWER, USER, ANSWER, USER], 3, [1, 2, 3, 4]),
        ([USER, ANSWER, SYSTEM, USER, ANSWER, USER], 3, [0, 1, 3, 4]),
        ([ANSWER, USER, ANSWER, USER], 1, [0]),
        ([USER], 1, None),
        ([SYSTEM, USER], 1, None),
        ([SYSTEM, SYSTEM], 1, None),
        ([], 1, None),
        ([USER, ANSWER, USER], 3, None),
        ([USER, USER, USER], 2, [0, 1]),
        # calls stay with their results
        ([USER, calls("1"), result("1"), ANSWER, USER], 1, [0, 1, 2, 3]),
        # one turn only: its oldest steps go, never the last one
        ([USER, calls("1"), result("1"), calls("2"), result("2")], 1, [1, 2]),
        ([USER, calls("1"), result("1"), calls("2"), result("2")], 3, None),
        ([USER, calls("1", "2"), result("2"), result("1"), calls("3"), result("3")], 2, [1, 2, 3]),
        ([USER, ANSWER, USER, calls("1"), result("1"), ANSWER], 3, [0, 1, 3, 4]),
        # a call without its result: nothing behind it can be parted
        ([USER, calls("1"), ANSWER, ANSWER], 1, None),
        ([USER, calls("1"), USER, ANSWER], 1, [0]),
        # responses
        ([USER, item_call("1"), item_result("1"), USER], 1, [0, 1, 2]),
        ([USER, THOUGHT, item_call("1"), item_result("1"), THOUGHT, ANSWER], 1, [1, 2, 3]),
        ([USER, item_call("1"), item_call("2"), item_result("1"), item_result("2"), ANSWER], 1, [1, 2, 3, 4]),
        ([said("developer"), USER, ANSWER, USER], 1, [1, 2]),
    ],
)
def test_what_goes_first(items: list[Any], excess: int, dropped: list[int] | None) -> None:
    cut = drop_oldest(items, [1] * len(items), excess)
    assert (None if cut is None else list(cut.dropped)) == dropped
    if cut is not None:
        assert cut.tokens == len(cut.dropped) >= excess


@st.composite
def conversations(draw: Any) -> list[dict[str, Any]]:
    """Conversations as clients send them, and some that no client should."""
    items: list[dict[str, Any]] = []
    number = 0
    for kind in draw(st.lists(st.sampled_from("suaticrRxo"), max_size=25)):
        if kind == "s":
            items.append(said(draw(st.sampled_from(["system", "developer"]))))
        elif kind == "u":
            items.append(USER)
        elif kind == "a":
            items.append(ANSWER)
        elif kind in "tc":
            ids = [f"c{number + one}" for one in range(draw(st.integers(1, 3)))]
            number += 3
            items += [calls(*ids)] if kind == "t" else [item_call(one) for one in ids]
            done = draw(st.permutations(ids))
            items += [result(one) if kind == "t" else item_result(one) for one in done]
        elif kind == "i":
            items += [THOUGHT]
        elif kind == "r":
            items.append(calls(f"lost{number}"))
            number += 1
        elif kind == "R":
            items.append(result("nobody"))
        elif kind == "x":
            items.append({"type": "item_reference", "id": "x"})
        else:
            items.append({"odd": True})
    return items


@given(conversations(), st.data())
def test_what_always_holds(items: list[dict[str, Any]], data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 50), min_size=len(items), max_size=len(items)))
    excess = data.draw(st.integers(1, 200))
    cut = drop_oldest(items, sizes, excess)
    if cut is None:
        return
    dropped = set(cut.dropped)
    assert list(cut.dropped) == sorted(dropped)
    assert cut.tokens == sum(sizes[one] for one in dropped) >= excess
    kept = [item for index, item in enumerate(items) if index not in dropped]
    gone = [items[index] for index in cut.dropped]
    assert kept
    assert not any(item.get("role") in ("system", "developer") for item in gone)
    users = [index for index, item in enumerate(items) if item.get("role") == "user"]
    if users:
        assert users[-1] not in dropped
    last = max(index for index, item in enumerate(items) if item.get("role") not in ("system", "developer"))
    assert last not in dropped
    for part, rest in ((kept, gone), (gone, kept)):
        opened = {one for item in part for one in _opens(item)}
        closed_elsewhere = {one for item in rest for one in _closes(item)}
        assert not opened & closed_elsewhere, "a call was parted from its result"
    for index in dropped:
        if items[index].get("type") == "reasoning":
            following = [
                one
                for one in range(index + 1, len(items))
                if items[one].get("role") not in ("system", "developer")
            ]
            assert following[0] in dropped, "a thought was parted from what it led to"
    assert transcript(gone) is not None


def test_a_transcript_says_who_said_what() -> None:
    items = [
        said("user", "What is the weather?"),
        calls("1"),
        result("1"),
        said("assistant", [{"type": "text", "text": "Sunny."}, {"type": "image_url", "image_url": {}}]),
        item_call("2"),
        item_result("2"),
    ]
    assert transcript(items) == (
        "user: What is the weather?\n\nassistant: [calls f({})]\n\ntool: r\n\nassistant: Sunny. [image_url]\n\n"
        "assistant: [calls f({})]\n\ntool: r"
    )
