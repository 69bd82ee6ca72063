"""What changed as a table: by object, before and after, and only what changes of long texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.serving.comparison import compare
from llmops.serving.differences import describe
from llmops.serving.snapshot import (
    EMPTY_DOCUMENT,
    FORMAT,
    PromptEntry,
    PromptVersionEntry,
    RevisionDocument,
    RouteEntry,
    TargetEntry,
)

pytestmark = pytest.mark.any_engine
LONG = "Be exact and polite. " * 60


def document(**parts):
    return RevisionDocument(format=FORMAT, providers=(), models=(), **{"routes": (), **parts})


def shown(pieces):
    return "".join({"gone": "-", "new": "+"}.get(one.kind, "") + one.text for one in pieces)


def prompt(label, *texts):
    versions = tuple(
        PromptVersionEntry(number, str(number), {"system": text}) for number, text in enumerate(texts, 1)
    )
    return PromptEntry("triage", "support", versions, {"production": label})


def test_a_route_is_compared_member_by_member():
    before = document(routes=(RouteEntry("chat", (TargetEntry("gpt-4o", 100),)),))
    after = document(
        routes=(RouteEntry("chat", (TargetEntry("gpt-4o", 90), TargetEntry("mini", 10)), ("mini",)),)
    )
    [one] = compare(before, after)
    assert (one.kind, one.name, one.state) == ("route", "chat", "changed")
    assert "Target gpt-4o weight 100 → weight 90" in one.words
    rows = {row.label: (shown(row.before), shown(row.after)) for row in one.rows}
    assert rows["Targets"] == ("gpt-4o: weight -100", "gpt-4o: weight +90\nmini: weight 10")
    assert rows["Fallbacks"] == ("", "+mini")


def test_a_label_that_moves_shows_what_is_said_otherwise_and_not_all_the_rest():
    before = document(prompts=(prompt(1, LONG + "Say A.", LONG + "Say B."),))
    after = document(prompts=(prompt(2, LONG + "Say A.", LONG + "Say B."),))
    [one] = compare(before, after)
    assert one.words == ("production version 1 → version 2",)
    rows = {row.label: (shown(row.before), shown(row.after)) for row in one.rows}
    assert rows["Label production"] == ("version -1", "version +2")
    said, says = rows["production: System policy"]
    assert said.endswith("Say -A.")
    assert says.endswith("Say +B.")
    assert len(said) < 200


def test_what_comes_and_goes_is_told_with_what_it_was():
    chat = document(routes=(RouteEntry("chat", (TargetEntry("small"),)),))
    [added], [removed] = compare(EMPTY_DOCUMENT, chat), compare(chat, EMPTY_DOCUMENT)
    assert (added.state, removed.state) == ("added", "removed")
    assert all(not row.before for row in added.rows)
    assert all(not row.after for row in removed.rows)


ROUTES = st.lists(
    st.builds(
        RouteEntry,
        st.sampled_from(["a", "b", "c"]),
        st.tuples(st.builds(TargetEntry, st.sampled_from(["m", "n"]), st.integers(0, 100))),
        attempts=st.integers(1, 5),
    ),
    max_size=3,
    unique_by=lambda route: route.slug,
).map(tuple)


@given(ROUTES, ROUTES)
def test_it_tells_of_exactly_what_the_words_tell(old, new):
    before, after = document(routes=old), document(routes=new)
    compared = compare(before, after)
    assert sum(len(one.words) for one in compared) == len(describe(before, after))
    assert bool(compared) == (sorted(old, key=str) != sorted(new, key=str))
    assert all(one.rows for one in compared)
