"""Whose an object is: known at once where it was made, elsewhere when its journal is booked, and to nobody else ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

import pytest

from llmops.core.errors import ConsoleError, NotFound, ServiceUnavailable
from llmops.gateway.kept import objects
from llmops.gateway.kept.objects import Objects
from llmops.gateway.kept.owners import Owner, ShelfAway
from llmops.usage.records import Gone, Kept, Record
from tests.gateway.rig import a_key


class FakeShelf:
    """What is booked; ``away`` raises, ``stuck`` never answers."""

    def __init__(self) -> None:
        self.rows: list[Owner] = []
        self.away = self.stuck = False
        self.asked: list[set[str]] = []

    async def find(self, ids: Collection[str]) -> list[Owner]:
        self.asked.append(set(ids))
        if self.stuck:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.away:
            raise ShelfAway
        return [row for row in self.rows if row.id in ids]

    async def close(self) -> None:
        return None


MINE, OTHERS = a_key(), a_key(project="sales")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PATIENCE_S", 0.3)
    monkeypatch.setattr(objects, "_MOST_PATIENCE_S", 30.0)
    monkeypatch.setattr(objects, "_LOOK_EVERY_S", 0.02)


def registry() -> tuple[Objects, FakeShelf, list[Record]]:
    written: list[Record] = []
    shelf = FakeShelf()
    return Objects(written.append, shelf), shelf, written


def a_row(object_id: str = "file-1", **changes: Any) -> Owner:
    given = {"kind": "file", "id": object_id, "project": MINE.project_id, "key": MINE.id, "provider": "up"}
    return Owner(**(given | changes))  # type: ignore[arg-type]


def make(one: Objects, object_id: str = "file-1", **changes: Any) -> None:
    given: dict[str, Any] = {"key": MINE, "provider": "up", "credential": "c"}
    one.made("file", object_id, **(given | changes))


async def refused(
    one: Objects, object_id: str = "file-1", key: Any = MINE, kind: str = "file"
) -> ConsoleError:
    with pytest.raises(ConsoleError) as caught:
        await one.owner(kind, object_id, key.project_id)
    return caught.value


async def test_its_maker_knows_it_at_once_and_it_is_written_down() -> None:
    one, shelf, written = registry()
    shelf.away = True
    make(one, model="chat", details={"a": 1}, due_in=5)
    found = await one.owner("file", "file-1", MINE.project_id)
    assert (found.provider, found.credential, found.model, found.details) == ("up", "c", "chat", {"a": 1})
    (kept,) = written
    assert isinstance(kept, Kept)
    assert (kept.object, kept.kind, kept.project, kept.key) == ("file-1", "file", MINE.project_id, MINE.id)
    assert 4.9e9 < kept.due - kept.at < 5.1e9
    assert not shelf.asked


async def test_making_the_same_object_again_is_written_once() -> None:
    one, _, written = registry()
    make(one)
    make(one)
    assert len(written) == 1


async def test_an_object_of_another_process_is_waited_for_until_it_is_booked() -> None:
    one, shelf, _ = registry()
    asking = asyncio.ensure_future(one.owner("file", "file-1", MINE.project_id))
    await asyncio.sleep(0.1)
    assert not asking.done()
    shelf.rows.append(a_row())
    assert (await asking).provider == "up"
    asked = len(shelf.asked)
    await one.owner("file", "file-1", MINE.project_id)
    assert len(shelf.asked) == asked, "it is remembered"


async def test_what_is_unknown_and_what_is_anothers_cannot_be_told_apart() -> None:
    one, shelf, _ = registry()
    shelf.rows = [a_row("file-2", project=OTHERS.project_id)]
    make(one, "file-3", key=OTHERS)
    began = time.monotonic()
    errors = await asyncio.gather(*(refused(one, name) for name in ("file-1", "file-2", "file-3")))
    assert time.monotonic() - began >= 0.25, "each was waited for"
    shown = {
        (type(error), error.code, error.param, error.message.replace(name, "file"))
        for error, name in zip(errors, ("file-1", "file-2", "file-3"), strict=True)
    }
    assert len(shown) == 1
    assert isinstance(errors[0], NotFound)


async def test_an_object_of_another_kind_is_not_there() -> None:
    one, _, _ = registry()
    make(one)
    assert isinstance(await refused(one, kind="batch"), NotFound)
    assert (await one.owner(None, "file-1", MINE.project_id)).kind == "file"


async def test_without_a_database_only_the_own_objects_are_known() -> None:
    one, shelf, _ = registry()
    shelf.away = True
    make(one)
    assert await one.owner("file", "file-1", MINE.project_id)
    error = await refused(one, "file-2")
    assert isinstance(error, ServiceUnavailable)
    assert error.retry_after


async def test_a_database_that_does_not_answer_is_not_waited_for_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "_MOST_PATIENCE_S", 0.8)
    one, shelf, _ = registry()
    shelf.stuck = True
    assert isinstance(await refused(one), ServiceUnavailable)
    with pytest.raises(ServiceUnavailable):
        await one.owned("file", ["file-1"], provider="up", project_id=MINE.project_id)
    await one.close()


async def test_many_who_wait_are_one_question() -> None:
    one, shelf, _ = registry()
    await asyncio.gather(*(refused(one, f"file-{number}") for number in range(50)))
    assert len(shelf.asked) < 40
    assert len(shelf.asked[0]) == 50


async def test_too_many_who_wait_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_WAITING", 3)
    one, _, _ = registry()
    errors = await asyncio.gather(*(refused(one, f"file-{number}") for number in range(5)))
    assert sorted(error.status for error in errors) == [404, 404, 404, 429, 429]


async def test_one_projects_made_up_ids_do_not_stand_in_anothers_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_WAITING", 8)
    one, shelf, _ = registry()
    flood = [asyncio.ensure_future(refused(one, f"made-up-{number}")) for number in range(20)]
    await asyncio.sleep(0.05)
    others = [
        asyncio.ensure_future(one.owner("file", f"file-{number}", OTHERS.project_id)) for number in range(4)
    ]
    await asyncio.sleep(0.05)
    assert not any(asking.done() for asking in others), (
        "each got a place, and waits for its object to be booked"
    )
    shelf.rows = [a_row(f"file-{number}", project=OTHERS.project_id) for number in range(4)]
    assert [found.id for found in await asyncio.gather(*others)] == [f"file-{number}" for number in range(4)]
    statuses = sorted(error.status for error in await asyncio.gather(*flood))
    assert statuses == [404] * 4 + [429] * 16, "who has the most gave its places up"


async def test_places_are_shared_by_all_who_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_WAITING", 9)
    one, _, _ = registry()
    crowds = [a_key(project=f"p{number}") for number in range(3)]
    asked = [
        (key, asyncio.ensure_future(refused(one, f"x-{number}", key)))
        for number in range(30)
        for key in crowds
    ]
    await asyncio.gather(*(asking for _, asking in asked))
    for key in crowds:
        waited = [asking.result().status for mine, asking in asked if mine is key].count(404)
        assert waited == 3


async def test_what_was_not_there_is_told_at_once_when_it_is_asked_for_again() -> None:
    one, shelf, _ = registry()
    await refused(one)
    for _ in range(3):
        asked, began = len(shelf.asked), time.monotonic()
        assert isinstance(await refused(one), NotFound)
        assert len(shelf.asked) == asked + 1, "one look"
        assert time.monotonic() - began < 0.25
    shelf.rows.append(a_row())
    assert (await one.owner("file", "file-1", MINE.project_id)).provider == "up", (
        "and it is found when it is there"
    )


async def test_that_something_is_not_there_is_one_projects_own_knowledge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(objects, "ABSENT_REMEMBERED", 2)
    one, shelf, _ = registry()
    await refused(one)
    asking = asyncio.ensure_future(one.owner("file", "file-1", OTHERS.project_id))
    await asyncio.sleep(0.1)
    assert not asking.done(), "for whom it is new it is waited for"
    shelf.rows.append(a_row(project=OTHERS.project_id))
    await asking
    await asyncio.gather(*(refused(one, f"file-{number}") for number in range(2, 9)))
    assert len(one._absent) == 2


async def test_a_deleted_object_is_gone() -> None:
    one, shelf, written = registry()
    make(one)
    one.gone(await one.owner("file", "file-1", MINE.project_id))
    assert isinstance(await refused(one), NotFound)
    assert isinstance(written[-1], Gone)
    shelf.rows = [a_row("file-2", gone=True)]
    began = time.monotonic()
    assert isinstance(await refused(one, "file-2"), NotFound)
    assert time.monotonic() - began < 0.3, "that is known without waiting"


async def test_of_one_id_at_two_providers_the_last_that_lives_is_meant() -> None:
    one, shelf, _ = registry()
    shelf.rows = [
        a_row(provider="a", made_at=1.0),
        a_row(provider="b", made_at=2.0),
        a_row(provider="c", made_at=3.0, gone=True),
    ]
    assert (await one.owner("file", "file-1", MINE.project_id)).provider == "b"


async def test_a_list_shows_what_is_the_projects_own() -> None:
    one, shelf, _ = registry()
    make(one, "file-1")
    make(one, "file-2", key=OTHERS)
    shelf.rows = [
        a_row("file-3"),
        a_row("file-4", project=OTHERS.project_id),
        a_row("file-5", gone=True),
        a_row("file-6", kind="batch"),
        a_row("file-7", provider="elsewhere"),
    ]
    ids = [f"file-{number}" for number in range(1, 9)]
    assert await one.owned("file", ids, provider="up", project_id=MINE.project_id) == {"file-1", "file-3"}
    assert await one.foreign(ids, provider="up", project_id=MINE.project_id) == {"file-2", "file-4"}


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "REMEMBERED", 10)
    one, shelf, _ = registry()
    shelf.away = True
    for number in range(11):
        make(one, f"file-{number}")
    assert isinstance(await refused(one, "file-0"), ServiceUnavailable)
    assert await one.owner("file", "file-10", MINE.project_id)


@pytest.mark.parametrize("object_id", ["", "x" * 201, "file-1\0"])
async def test_an_id_that_cannot_be_one_is_not_asked_for(object_id: str) -> None:
    one, shelf, written = registry()
    assert isinstance(await refused(one, object_id), NotFound)
    assert await one.foreign([object_id], project_id=MINE.project_id) == set()
    assert await one.owned("file", [object_id], provider="up", project_id=MINE.project_id) == set()
    make(one, object_id)
    assert not shelf.asked
    assert not written


async def test_who_hangs_up_is_not_waited_for() -> None:
    one, shelf, _ = registry()
    asking = asyncio.ensure_future(one.owner("file", "file-1", MINE.project_id))
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.05)
    asked = len(shelf.asked)
    await asyncio.sleep(0.1)
    assert len(shelf.asked) == asked
