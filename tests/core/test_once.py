"""Members that are given twice leave their quotation marks behind, however the JSON is written."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from llmops.core.once import quotes, texts_told_once, told_once

texts = st.text(st.sampled_from('ab"\\/\n\u2028é😀{}:,'), max_size=8)
objects = st.lists(st.lists(st.tuples(texts, texts), max_size=4), max_size=4)


@given(objects, st.booleans(), st.booleans())
def test_texts_told_once(given_objects: list[list[tuple[str, str]]], ascii_only: bool, spaces: bool) -> None:
    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    colon, comma = (" : ", " , ") if spaces else (":", ",")
    written = [
        "{" + comma.join(f"{text(name)}{colon}{text(value)}" for name, value in one) + "}"
        for one in given_objects
    ]
    raw = ("[" + comma.join(written) + "]").encode()
    value = json.loads(raw)
    once = all(len(dict(one)) == len(one) for one in given_objects)
    assert quotes(raw) == 4 * sum(map(len, given_objects))
    assert texts_told_once(raw, sum(map(len, value))) == once
    assert told_once(raw, value) == once


def test_escapes_of_quotation_marks_and_of_backslashes_before_them() -> None:
    for raw in (rb'{"a":"\""}', rb'{"a":"\\"}', rb'{"a":"\\\""}', rb'{"a":"\u0022"}', rb'{"a":"\u005c"}'):
        assert quotes(raw) == 4, raw
        assert texts_told_once(raw, 1)
    assert not texts_told_once(rb'{"a":"x","\u0061":"y"}', 1)
