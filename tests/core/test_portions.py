"""Bytes that keys and projects share: never more than there are, always something for who comes next, all given back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmops.core.portions import Portion, SharedBytes
from tests.trying import tries

LIMIT = 1_200


def fill(shared: SharedBytes, key: str, project: str) -> Portion:
    """As much as it gets."""
    portion = shared.portion(key, project)
    while portion.keep(portion.size + 1):
        pass
    return portion


def test_each_finds_room_after_those_before_it_took_all_they_could() -> None:
    shared = SharedBytes(LIMIT)
    assert fill(shared, "a", "p").size == LIMIT // 2
    assert fill(shared, "b", "p").size == LIMIT // 8
    assert fill(shared, "c", "q").size == (LIMIT - LIMIT // 2 - LIMIT // 8) // 2
    for number in range(40):
        fill(shared, f"p{number}", "p")
    assert shared.of_project("p") < LIMIT * 2 // 3
    assert fill(shared, "d", "r").size > 0 or shared.used > LIMIT * 9 // 10


def test_the_keys_of_one_project_leave_a_third() -> None:
    shared = SharedBytes(LIMIT)
    for number in range(100):
        fill(shared, f"key {number}", "p")
    assert shared.used <= LIMIT * 2 // 3
    assert fill(shared, "other", "q").size >= LIMIT // 6 - 1


_steps = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("pqr"), st.integers(0, LIMIT), st.booleans()),
    max_size=30,
)


@tries(100)
@given(_steps)
def test_what_is_kept_is_counted_and_given_back(steps: list[tuple[str, str, int, bool]]) -> None:
    shared, portions = SharedBytes(LIMIT), list[Portion]()
    for key, project, size, closes in steps:
        portion = shared.portion(key, project)
        portions.append(portion)
        before = shared.used
        if not portion.keep(size):
            assert (portion.size, shared.used) == (0, before)
        if closes:
            portion.close()
            portion.close()
        assert shared.used == sum(one.size for one in portions) <= LIMIT
    for portion in portions:
        portion.close()
    assert (shared.used, shared._of_keys, shared._of_projects) == (0, {}, {})
