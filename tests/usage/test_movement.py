"""Parts of a change add up to it, exactly, whatever the figures; and each names what it is called after."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmops.usage.movement import PARTS, Movement, Volume, movement, total

amounts = st.integers(0, 10**18)
counts = st.integers(0, 10**9)
mixes = st.dictionaries(st.sampled_from("abcd"), st.tuples(counts, amounts), max_size=4)


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    models = draw(mixes)
    return Volume(
        calls=draw(counts),
        tokens=sum(tokens for tokens, _ in models.values()),
        cost_nano=sum(cost for _, cost in models.values()),
        models=models or None,
    )


def added(one: Movement) -> int:
    return sum(getattr(one, name) for name in PARTS)


@given(volumes(), volumes())
def test_parts_add_up_to_the_change(before: Volume, now: Volume) -> None:
    found = movement(before, now)
    assert added(found) == found.change == now.cost_nano - before.cost_nano


@given(st.lists(st.tuples(volumes(), volumes()), max_size=5))
def test_sums_of_several_add_up_too(pairs: list[tuple[Volume, Volume]]) -> None:
    found = total([movement(before, now) for before, now in pairs])
    assert added(found) == found.change == sum(now.cost_nano - before.cost_nano for before, now in pairs)


BEFORE = Volume(100, 200_000, 8_000, {"small": (150_000, 3_000), "large": (50_000, 5_000)})


def times(volume: Volume, calls: int = 1, tokens: int = 1, price: int = 1) -> Volume:
    models = {
        name: (n * calls * tokens, cost * calls * tokens * price)
        for name, (n, cost) in (volume.models or {}).items()
    }
    factor = calls * tokens
    return Volume(volume.calls * calls, volume.tokens * factor, volume.cost_nano * factor * price, models)


def test_each_cause_alone_is_the_whole_change() -> None:
    for name, now in (
        ("calls", times(BEFORE, calls=3)),
        ("tokens", times(BEFORE, tokens=2)),
        ("price", times(BEFORE, price=5)),
        ("mix", Volume(100, 200_000, 20_000, {"large": (200_000, 20_000)})),
    ):
        found = movement(BEFORE, now)
        assert getattr(found, name) == found.change != 0, (name, found)
        assert found.reason == name
    assert movement(BEFORE, BEFORE).reason == ""


def test_what_is_new_or_gone_counts_as_calls() -> None:
    new, gone = movement(Volume(), BEFORE), movement(BEFORE, Volume())
    assert (new.calls, new.new) == (8_000, True)
    assert (gone.calls, gone.new, gone.reason) == (-8_000, False, "calls")


def test_calls_without_tokens_have_a_price_each() -> None:
    found = movement(Volume(10, 0, 1_000), Volume(20, 0, 5_000))
    assert (found.calls, found.price) == (1_000, 3_000)
