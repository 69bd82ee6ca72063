"""Members that are given twice are found, whatever else stands in the JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.once import texts_told_once, told_once

TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | TEXTS
    | st.sampled_from(['"', "\\", '\\"', '\\\\"', "\n"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_json_that_tells_each_member_once(value: Any, ascii_only: bool, indent: int | None) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert told_once(raw, msgspec.json.decode(raw))


@given(VALUES, VALUES, TEXTS, VALUES, st.booleans())
def test_json_that_tells_one_twice(first: Any, last: Any, name: str, beside: Any, ascii_only: bool) -> None:
    def shown(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    twice = f"{{{shown(name)}: {shown(first)}, {shown(name)}: {shown(last)}}}"
    raw = f"[{shown(beside)}, {twice}]".encode()
    assert not told_once(raw, msgspec.json.decode(raw))


@pytest.mark.parametrize("raw", [b'{"a": 1, "\\u0061": 2}', b'{"a\\"": "\\\\", "a\\"": "x"}'])
def test_however_they_are_written(raw: bytes) -> None:
    assert not told_once(raw, msgspec.json.decode(raw))


@given(
    st.lists(st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=3), min_size=1, max_size=4),
    TEXTS,
    st.booleans(),
)
def test_texts_alone(value: list[dict[str, str]], other: str, compact: bool) -> None:
    raw = msgspec.json.encode(value) if compact else json.dumps(value).encode()
    assert texts_told_once(raw, value)
    name, text = next(iter(value[0].items()))
    twice = raw.replace(b"{", b"{" + msgspec.json.encode({name: other})[1:-1] + b",", 1)
    if text != other and b"{" not in name.encode():
        assert not texts_told_once(twice, msgspec.json.decode(twice))
