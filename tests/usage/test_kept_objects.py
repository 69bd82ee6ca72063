"""Objects that providers keep: booked with the calls, whose they are for ever, and what they cost once."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from django.db import OperationalError

from llmops.budgets.models import Budget, Window
from llmops.gateway.kept.shelf import find
from llmops.usage.ingest import follower
from llmops.usage.ingest.loop import Ingester
from llmops.usage.ingest.rows import KEPT_COLUMNS
from llmops.usage.journal import JournalWriter
from llmops.usage.models import Call, Journal, KeptItem, KeptObject, Rollup
from llmops.usage.records import Ended, Gone, Holds, Kept, Metered, Tokens
from llmops.usage.services import forget_objects
from tests.cast import in_threads
from tests.usage.journals import origin, outcome

AT = 1_795_000_000_000_000_000
MINE, OTHERS, KEY = str(uuid4()), str(uuid4()), str(uuid4())

pytestmark = pytest.mark.django_db(transaction=True)


def kept(object_id: str = "file-1", **changes: object) -> Kept:
    given: dict[str, object] = {
        "n": 0,
        "at": AT,
        "object": object_id,
        "kind": "file",
        "project": MINE,
        "key": KEY,
        "provider": "up",
    }
    return Kept(**(given | changes))  # type: ignore[arg-type]


def gone(object_id: str = "file-1", project: str = MINE) -> Gone:
    return Gone(n=0, at=AT + 10**9, object=object_id, provider="up", project=project)


def metered(object_id: str = "batch-1", cost: int = 700, soft: list[str] | None = None) -> Metered:
    end = Ended(
        n=0,
        at=AT,
        attempt=0,
        origin=origin(project=MINE, key=KEY, endpoint="batches.usage", started=AT),
        cost=cost,
        soft=soft or [],
        outcome=outcome(attempts=[], cost=cost, tokens=Tokens(input=5, output=7)),
    )
    return Metered(n=0, at=AT, object=object_id, provider="up", end=end)


def write(directory: Path, *records: Kept | Holds | Gone | Metered) -> JournalWriter:
    writer = JournalWriter(directory)
    for record in records:
        writer.append(record)
    return writer


def test_every_column_that_a_creation_fills_is_written() -> None:
    looked_after = {"id", "claimed_by", "claimed_until", "looks", "metered_at"}
    assert set(KEPT_COLUMNS) == {field.column for field in KeptObject._meta.concrete_fields} - looked_after


def test_an_object_is_stored_as_it_was_told(tmp_path: Path) -> None:
    credential = str(uuid4())
    write(
        tmp_path,
        kept(
            "batch-1",
            kind="batch",
            credential=credential,
            model="chat",
            details={"a": ["\0b"]},
            due=AT + 10**9,
        ),
    )
    Ingester(tmp_path).run_once()
    row = KeptObject.objects.get()
    assert (row.object_id, row.provider, row.kind, row.model) == ("batch-1", "up", "batch", "chat")
    assert (str(row.project_id), str(row.key_id), row.credential) == (MINE, KEY, credential)
    assert row.details == {"a": ["\N{REPLACEMENT CHARACTER}b"]}
    assert row.due_at and row.due_at - row.made_at == timedelta(seconds=1)
    assert (row.gone_at, row.metered_at, row.claimed_by, row.looks) == (None, None, "", 0)
    (owner,) = find(["batch-1", "batch-2"])
    assert (owner.id, owner.project, owner.credential, owner.gone) == ("batch-1", MINE, credential, False)


def test_an_object_stays_whose_it_is(tmp_path: Path) -> None:
    """Whoever comes later with the same id at the same provider, in the same batch of records or another one."""
    write(tmp_path, kept(), kept(project=OTHERS))
    Ingester(tmp_path).run_once()
    write(tmp_path, kept(project=OTHERS))
    Ingester(tmp_path).run_once()
    assert str(KeptObject.objects.get().project_id) == MINE
    write(tmp_path, kept(provider="elsewhere", project=OTHERS))
    Ingester(tmp_path).run_once()
    assert KeptObject.objects.count() == 2


@pytest.mark.parametrize("apart", [False, True])
def test_a_deleted_object_is_gone_and_its_id_is_free(tmp_path: Path, apart: bool) -> None:
    """The steps of a life, booked one by one or all at once."""
    steps = [kept(), gone(project=OTHERS), gone(), kept(project=OTHERS, at=AT + 2 * 10**9)]
    expected = [(MINE, False), (MINE, False), (MINE, True), (OTHERS, False)]
    for step, (project, is_gone) in zip(steps, expected, strict=True):
        if apart:
            write(tmp_path, step)
            Ingester(tmp_path).run_once()
            row = KeptObject.objects.get()
            assert (str(row.project_id), row.gone_at is not None) == (project, is_gone)
    if not apart:
        write(tmp_path, *(step for step in steps if step != steps[1]))
        Ingester(tmp_path).run_once()
        row = KeptObject.objects.get()
        assert (str(row.project_id), row.gone_at) == (OTHERS, None)


def test_reading_a_journal_twice_changes_nothing(tmp_path: Path) -> None:
    writer = write(tmp_path, kept(), kept("batch-1", kind="batch"), metered())
    ingester = Ingester(tmp_path)
    ingester.run_once()
    Journal.objects.update(floor_segment=0, floor_offset=0, floor_sequence=0)
    writer.append(gone())
    Ingester(tmp_path).run_once()
    assert KeptObject.objects.filter(gone_at__isnull=False).count() == 1
    assert Call.objects.count() == 1


def test_what_an_object_cost_is_booked_once_however_often_it_is_told(tmp_path: Path) -> None:
    budget = Budget.objects.create(slug="soft", scope_kind="organisation", limit_nano=10_000, hard=False)
    told = metered(soft=[str(budget.pk)])
    write(tmp_path, kept("batch-1", kind="batch", due=AT), told, metered(soft=[str(budget.pk)]))
    # Another process that thought it was the one, on another host.
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere, metered(soft=[str(budget.pk)]))
    Ingester(tmp_path).run_once()
    Ingester(elsewhere).run_once()
    call = Call.objects.get()
    assert (call.endpoint, call.cost_nano, call.input_tokens, call.output_tokens) == (
        "batches.usage",
        700,
        5,
        7,
    )
    assert Window.objects.get().settled_nano == 700
    assert {row.cost_nano for row in Rollup.objects.all()} == {700}
    row = KeptObject.objects.get()
    assert row.metered_at is not None
    assert row.due_at is None


def test_two_ingesters_at_once_book_one_cost(tmp_path: Path) -> None:
    write(tmp_path / "first", kept("batch-1", kind="batch"))
    Ingester(tmp_path / "first").run_once()
    places = [tmp_path / str(number) for number in range(4)]
    for place in places:
        write(place, metered())
    assert not [
        one for one in in_threads(*(Ingester(place).run_once for place in places)) if not isinstance(one, int)
    ]
    assert Call.objects.count() == 1
    assert set(Journal.objects.values_list("problem", flat=True)) == {""}


def test_a_crash_of_the_ingester_in_the_middle_books_it_all_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, kept("batch-1", kind="batch"), metered())

    def dies(**_: object) -> None:
        raise OperationalError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(follower, "book", dies)
        with pytest.raises(OperationalError):
            Ingester(tmp_path).run_once()
    assert not KeptObject.objects.exists()
    assert not Call.objects.exists()
    Ingester(tmp_path).run_once()
    assert Call.objects.count() == 1


def test_the_cost_of_an_object_that_nobody_keeps_is_not_booked(tmp_path: Path) -> None:
    write(tmp_path, metered("batch-9"))
    Ingester(tmp_path).run_once()
    assert not Call.objects.exists()


def test_a_record_with_ids_that_are_none_stops_its_journal(tmp_path: Path) -> None:
    write(tmp_path, kept(project="nobody"))
    Ingester(tmp_path).run_once()
    assert "project" in Journal.objects.get().problem
    assert not KeptObject.objects.exists()
    shutil.rmtree(tmp_path)


def test_what_providers_keep_no_longer_is_forgotten(tmp_path: Path) -> None:
    day = 86_400 * 10**9
    old = AT - 40 * day
    write(
        tmp_path,
        kept("resp-old", kind="response", at=old),
        kept("chat-old", kind="chat.completion", at=old),
        kept("file-old", at=old),
        kept("batch-old", kind="batch", at=old),
        kept("resp-new", kind="response"),
        kept("file-gone", at=old),
        Gone(n=0, at=AT - 8 * day, object="file-gone", provider="up", project=MINE),
        kept("file-left", at=old),
        Gone(n=0, at=AT - 6 * day, object="file-left", provider="up", project=MINE),
    )
    Ingester(tmp_path).run_once()
    now = datetime.fromtimestamp(AT / 1e9, tz=UTC)
    assert forget_objects(days=0, now=now) == 1
    assert forget_objects(days=35, now=now, batch=1) == 2
    left = set(KeptObject.objects.values_list("object_id", flat=True))
    assert left == {"file-old", "batch-old", "resp-new", "file-left"}


# What objects hold -------------------------------------------------------------------------------------------------------


def holds(*items: str, object_id: str = "resp-1", project: str = MINE, provider: str = "up") -> Holds:
    return Holds(n=0, at=AT, object=object_id, provider=provider, project=project, items=list(items))


def owners(*items: str) -> set[tuple[str, str, str]]:
    return {(one.id, one.kind, one.project) for one in find(list(items))}


def test_what_a_response_holds_is_found_by_its_id(tmp_path: Path) -> None:
    credential = str(uuid4())
    write(
        tmp_path,
        kept("resp-1", kind="response", credential=credential, model="chat", items=["msg-1", "rs-1"]),
        holds("msg-1", "msg-2"),
        kept("resp-2", kind="response", project=OTHERS, items=["msg-3"]),
    )
    Ingester(tmp_path).run_once()
    assert KeptItem.objects.count() == 4
    assert owners("msg-1", "msg-2", "msg-3", "msg-4") == {
        ("msg-1", "item", MINE),
        ("msg-2", "item", MINE),
        ("msg-3", "item", OTHERS),
    }
    (owner,) = find(["rs-1"])
    assert (owner.provider, owner.credential, owner.model, owner.gone) == ("up", credential, "chat", False)


def test_only_who_has_an_object_says_what_it_holds(tmp_path: Path) -> None:
    write(
        tmp_path,
        kept("resp-1", kind="response"),
        # Another project with the id of the first one's response: at the same provider it has none of that name.
        kept("resp-1", kind="response", project=OTHERS, items=["msg-9"]),
        holds("msg-8", project=OTHERS),
        holds("msg-7", object_id="resp-9"),
        holds("msg-6", provider="elsewhere"),
    )
    Ingester(tmp_path).run_once()
    assert owners("msg-6", "msg-7", "msg-8", "msg-9") == set()


def test_what_is_told_later_or_twice_is_noted_once(tmp_path: Path) -> None:
    writer = write(tmp_path, kept("resp-1", kind="response", items=["msg-1"]))
    Ingester(tmp_path).run_once()
    for _ in range(2):
        writer.append(holds("msg-1", "msg-2"))
        Ingester(tmp_path).run_once()
    assert KeptItem.objects.count() == 2
    places = [tmp_path / str(number) for number in range(4)]
    for place in places:
        write(place, holds("msg-1", "msg-3"))
    in_threads(*(Ingester(place).run_once for place in places))
    assert set(Journal.objects.values_list("problem", flat=True)) == {""}
    assert KeptItem.objects.count() == 3


def test_what_an_object_holds_goes_with_it(tmp_path: Path) -> None:
    days = 40 * 86_400 * 10**9
    write(
        tmp_path,
        kept("resp-1", kind="response", at=AT - days, items=["msg-1", "msg-2"]),
        kept("resp-2", kind="response", items=["msg-3"]),
        kept("file-1"),
    )
    Ingester(tmp_path).run_once()
    now = datetime.fromtimestamp(AT / 1e9, tz=UTC)
    assert forget_objects(days=30, now=now) == 1
    assert owners("msg-1", "msg-2", "msg-3") == {("msg-3", "item", MINE)}
    assert KeptItem.objects.count() == 1
