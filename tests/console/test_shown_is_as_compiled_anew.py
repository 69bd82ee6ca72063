"""What a process keeps of prompts never shows: after any change, what would be published is what one that keeps nothing finds."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from llmops.core.digests import sha256_hex
from llmops.prompts import services as prompts
from llmops.prompts.models import Label, Prompt
from llmops.prompts.selectors import live_of
from llmops.serving import pieces
from llmops.serving import services as serving
from llmops.serving.differences import describe
from llmops.serving.selectors import Pending, document_of, live_prompts, live_revision, pending
from llmops.serving.snapshot import EMPTY_DOCUMENT, PromptEntry, decode_document, encode_document
from tests import configuring
from tests.cast import COMMAND
from tests.console.changes.api import API
from tests.console.changes.change import call_api
from tests.console.world import undone
from tests.trying import tries

pytestmark = pytest.mark.django_db
#: Beginnings of the names of events after which what would be published may differ.
_RELEVANT = (
    "project.", "provider.", "credential.", "rotation.", "model.", "price.", "route.", "policy.", "prompt.", "budget.",
    "revision.", "publishing.", "switch.",
)  # fmt: skip


def forget() -> None:
    pieces._kept = {}
    pieces._read = ((0, ""), EMPTY_DOCUMENT)


def shown(found: Pending) -> tuple[object, ...]:
    return found.live, found.digest, found.changes, found.problems, found.before, found.after


def must_be_as_anew() -> None:
    """With what is kept, and then without: the same, and the same bytes as of a document that is encoded whole."""
    found = pending()
    whole = encode_document(found.after)
    assert found.digest == sha256_hex(whole)
    live = live_revision()
    assert found.before == document_of(live)
    assert found.changes == describe(document_of(live), decode_document(whole))
    kept = pieces._kept, pieces._read
    forget()
    assert shown(pending()) == shown(found)
    # What comes next begins with what was kept, as in a process that lives long.
    pieces._kept, pieces._read = kept


@pytest.fixture(scope="module")
def untouched(world, django_db_blocker):
    """What one that keeps nothing finds where nothing was changed."""
    with django_db_blocker.unblock():
        forget()
        must_be_as_anew()
        return shown(pending())


# The admin's pages call the same services; what both engines make of it is seen below, in any order.
@pytest.mark.any_engine
@pytest.mark.parametrize("key", [key for key, change in API.items() if change.action.startswith(_RELEVANT)])
def test_after_every_change_of_the_api(world, untouched, key):
    pending()
    with undone():
        assert call_api(world.clients["root"], key, API[key], world).status_code < 300
        must_be_as_anew()
    # It is taken back, and nothing of it is kept.
    assert shown(pending()) == untouched


# What happens to prompts, in any order --------------------------------------------------------------------------------


def _content(said: int) -> dict[str, object]:
    return {"system": f"Say {said}.", "task": "Do it.", **({"token_ceiling": 9_000} if said % 2 else {})}


def _step(what: str, which: int, said: int) -> None:
    rows = list(Prompt.objects.filter(slug__startswith="any-").order_by("slug"))
    if what == "create" or not rows:
        prompts.create_prompt(COMMAND, slug=f"any-{len(rows)}", content=_content(said))
        return
    prompt = rows[which % len(rows)]
    label = Label.objects.filter(prompt=prompt).first()
    archived = prompt.archived_at is not None
    if what == "archive":
        (prompts.unarchive_prompt if archived else prompts.archive_prompt)(COMMAND, prompt=prompt)
    elif what == "publish" or archived:
        if pending().publishable:
            serving.publish(COMMAND, reason="x")
    elif what == "version":
        content = _content(1_000 * said + prompt.versions.count())
        prompts.add_version(COMMAND, prompt=prompt, content=content)
    elif what == "label":
        number = 1 + said % prompt.versions.count()
        pointed = prompt.labels.filter(name="production").values_list("version__number", flat=True).first()
        if pointed != number:
            prompts.move_label(COMMAND, prompt=prompt, name="production", number=number, reason="x")
    elif what == "unlabel" and label is not None:
        prompts.remove_label(COMMAND, prompt=prompt, name=label.name, reason="x")
    elif what == "restore" and (live := live_revision()) and live.number > 1:
        before = type(live).objects.get(number=live.number - 1)
        if before.digest != live.digest:
            serving.restore(COMMAND, number=before.number, reason="x")


_STEPS = st.tuples(
    st.sampled_from(
        ["create", "version", "version", "label", "label", "unlabel", "archive", "publish", "restore"]
    ),
    st.integers(0, 3),
    st.integers(0, 5),
    #: whether the step is tried and taken back first, with something else said
    st.booleans(),
)


@pytest.fixture
def small_numbers(monkeypatch):
    """So few of the newest versions are served that labels of long ago matter; and so little is kept that some is not."""
    monkeypatch.setattr("llmops.prompts.serving.NEWEST", 2)
    monkeypatch.setattr(pieces, "KEPT_BYTES", 1_200)


@tries(30, at_least=3, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(_STEPS, min_size=6, max_size=10))
def test_after_anything_that_happens_to_prompts(world, small_numbers, steps):
    with undone():
        for what, which, said, tried in steps:
            if tried:
                with undone():
                    _step(what, which, said + 7)
                    must_be_as_anew()
            _step(what, which, said)
            must_be_as_anew()


def test_a_label_that_came_back_while_nobody_looked(world, small_numbers, monkeypatch):
    monkeypatch.setattr(pieces, "KEPT_BYTES", 64_000_000)
    with undone():
        made = prompts.create_prompt(COMMAND, slug="any-0", content=_content(1))
        for number in range(2, 7):
            prompts.add_version(COMMAND, prompt=made, content=_content(number))
        prompts.move_label(COMMAND, prompt=made, name="production", number=1, reason="x")
        assert _numbers(pending()) == [1, 5, 6]
        for number in (3, 1):
            prompts.move_label(COMMAND, prompt=made, name="production", number=number, reason="x")
        assert _numbers(pending()) == [1, 3, 5, 6]
        must_be_as_anew()


def _numbers(found: Pending) -> list[int]:
    return [version.number for version in _entry(found, "any-0").versions]


def test_a_revision_that_was_taken_back_is_not_taken_for_the_next_of_its_number(world):
    with undone():
        made = prompts.create_prompt(COMMAND, slug="any-0", content=_content(1))
        taken_back = None
        for said in (2, 3):
            with undone():
                prompts.add_version(COMMAND, prompt=made, content=_content(said))
                kept = pieces._read
                number = serving.publish(COMMAND, reason="x").number
                # It was another process that published.
                pieces._read = kept
                prompts.archive_prompt(COMMAND, prompt=made)
                must_be_as_anew()
            assert taken_back in (None, number)
            taken_back = number


# How little is read ---------------------------------------------------------------------------------------------------


def test_only_the_prompts_that_changed_are_read_again(world):
    with undone():
        first, second = (
            prompts.create_prompt(COMMAND, slug=slug, content=_content(1)) for slug in ("one", "two")
        )
        pending()
        with CaptureQueriesContext(connection) as nothing:
            found = pending()
        assert not [query for query in nothing if "renderings" in query["sql"]]
        prompts.add_version(COMMAND, prompt=second, content=_content(2))
        with CaptureQueriesContext(connection) as one:
            later = pending()
        (read,) = [query["sql"] for query in one if "renderings" in query["sql"]]
        ids = {str(pk).replace("-", "") for pk in (first.pk, second.pk)}
        assert {pk for pk in ids if pk in read.replace("-", "")} == {str(second.pk).replace("-", "")}
        assert _entry(found, "one") is _entry(later, "one")
        assert _entry(found, "two") != _entry(later, "two")


def _entry(found: Pending, slug: str) -> PromptEntry:
    return next(entry for entry in found.after.prompts if entry.slug == slug)


def test_what_is_live_shares_its_prompts_with_what_is_kept(world):
    with undone():
        prompts.create_prompt(COMMAND, slug="shared-entry", content=_content(1))
        serving.publish(COMMAND, reason="x")
        configuring.model("one-more", world.provider, prices={"input": "1", "output": "1"})
        found = pending()
        assert found.changes
        assert all(was is now for was, now in zip(found.before.prompts, found.after.prompts, strict=True))


def test_the_list_of_prompts_asks_once_what_is_live(world):
    with undone():
        for number in range(5):
            prompts.create_prompt(COMMAND, slug=f"listed-{number}", content=_content(number))
            prompts.move_label(
                COMMAND,
                prompt=Prompt.objects.get(slug=f"listed-{number}"),
                name="production",
                number=1,
                reason="x",
            )
        with CaptureQueriesContext(connection) as queries:
            page = world.clients["root"].get("/admin/prompts/prompt/?q=listed")
        assert page.content.decode().count("listed-") >= 5
        assert len([query for query in queries if "serving_live_pointer" in query["sql"]]) == 1
        # Another row of the same prompt says what is live by then.
        prompt = Prompt.objects.get(slug="listed-1")
        assert live_of(prompt) is None
        serving.publish(COMMAND, reason="x")
        assert live_of(prompt) == live_prompts()["", "listed-1"]


def test_the_search_of_prompts_finds_notes_descriptions_and_every_word(world):
    with undone():
        made = prompts.create_prompt(
            COMMAND, slug="sought-1", content=_content(1), description="Greets people"
        )
        prompts.add_version(COMMAND, prompt=made, content=_content(2), note="warmer tone")
        prompts.add_version(COMMAND, prompt=made, content=_content(3), note="warmer tone still")
        prompts.create_prompt(COMMAND, slug="sought-2", content=_content(1), description="Greets nobody")

        def found(text: str) -> list[str]:
            page = world.clients["root"].get("/admin/prompts/prompt/", {"q": text})
            return [prompt.slug for prompt in page.context["cl"].result_list]

        assert found("greets") == ["sought-1", "sought-2"]
        assert found("warmer") == ["sought-1"]
        assert found("greets WARMER") == ["sought-1"]
        assert found('"warmer tone" nobody') == []
        assert found('"Greets nobody"') == ["sought-2"]
