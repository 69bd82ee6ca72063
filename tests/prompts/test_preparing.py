"""Many prompts that are published at once do not keep anything else waiting: the usual label is ready first, the rest follows."""

from __future__ import annotations

import pytest

from llmops.prompts import published
from llmops.serving.snapshot import PromptEntry, PromptVersionEntry

pytestmark = pytest.mark.any_engine


def prompts(count):
    versions = tuple(
        PromptVersionEntry(
            number, f"digest-{number}", {"task": f"Say {number} to {{{{ name }}}}."}, VARIABLES
        )
        for number in (1, 2, 3)
    )
    return [PromptEntry(f"p{one}", "", versions, {"production": 1, "staging": 2}) for one in range(count)]


VARIABLES = ({"name": "name", "type": "text"},)


@pytest.fixture(autouse=True)
def nothing_served():
    published.prepare([])
    yield
    published.prepare([])


def test_what_is_not_compiled_in_time_waits_the_usual_label_first():
    entries = prompts(3)
    published.prepare(entries, seconds=0)
    assert [(slug, version.number) for _, slug, version in published._waiting] == [
        ("p0", 1), ("p1", 1), ("p2", 1), ("p0", 2), ("p1", 2), ("p2", 2),
    ]  # fmt: skip
    # What is asked for meanwhile is compiled then, whether a label means it or not.
    assert published.served(entries[2], "staging").number == 2
    assert published.served(entries[0], 3).number == 3
    assert published.prepare_more(60) == 0
    assert len(published._served) == 7


def test_a_later_publish_forgets_what_still_waited():
    published.prepare(prompts(3), seconds=0)
    published.prepare(prompts(1), seconds=60)
    assert not published._waiting
    assert {slug for _, slug, _ in published._served} == {"p0"}
    published.prepare([])
    assert not published._served
