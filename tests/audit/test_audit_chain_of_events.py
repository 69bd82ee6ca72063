"""The chain is kept under concurrent writers, the database refuses changes, and whoever forces one is found out."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction

from llmops.audit import chain, checking, export
from llmops.audit.models import ChainHead, Event
from llmops.audit.services import as_exported, record
from llmops.core.actors import Actor
from tests.audit.trail import without_triggers
from tests.cast import COMMAND, in_threads

BOB = Actor(kind="user", identifier="7", name="bob", ip="192.0.2.7", request_id="req_1")


def write(number=1, actor=BOB, **fields):
    with transaction.atomic():
        for index in range(number):
            record(
                actor,
                **{
                    "action": "thing.changed",
                    "object_type": "test.thing",
                    "object_id": index,
                    "object_name": f"thing {index}",
                    "before": {"size": index},
                    "after": {"size": index + 1, "names": ["a", "ü", "\u2028"]},
                    **fields,
                },
            )


def problems():
    return " / ".join(checking.check_database().problems)


@pytest.mark.django_db
def test_an_untouched_trail_is_intact():
    write(5)
    verdict = checking.check_database()
    assert verdict.intact
    assert verdict.count == verdict.sequence == ChainHead.objects.get().sequence == Event.objects.count() == 5


@pytest.mark.django_db
def test_an_empty_trail_is_intact():
    assert checking.check_database().intact
    out = StringIO()
    call_command("audit", "verify", stdout=out)
    assert "0 events" in out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_concurrent_writers_make_one_chain():
    def writer():
        for _ in range(25):
            write()

    assert in_threads(writer, writer, writer, writer) == [None] * 4
    assert list(Event.objects.order_by("sequence").values_list("sequence", flat=True)) == list(range(1, 101))
    assert checking.check_database().intact


@pytest.mark.django_db(transaction=True)
def test_a_change_that_fails_leaves_no_event_and_no_gap():
    write()
    with pytest.raises(RuntimeError, match="after the event"), transaction.atomic():
        record(BOB, action="x", object_type="t", object_id=1, object_name="n")
        raise RuntimeError("after the event")
    write()
    assert list(Event.objects.order_by("sequence").values_list("sequence", flat=True)) == [1, 2]
    assert checking.check_database().intact


@pytest.mark.django_db(transaction=True)
def test_an_event_outside_a_transaction_is_refused():
    with pytest.raises(RuntimeError, match="transaction"):
        record(BOB, action="x", object_type="t", object_id=1, object_name="n")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor_name = 'mallory' WHERE sequence = 2",
        "UPDATE audit_event SET reason = reason",
        "DELETE FROM audit_event WHERE sequence = 3",
        "DELETE FROM audit_event",
        "TRUNCATE audit_event",
    ],
)
def test_the_database_refuses_to_change_or_remove(statement):
    if statement.startswith("TRUNCATE") and connection.vendor == "sqlite":
        statement = "DELETE FROM audit_event WHERE 1 = 1"
    write(3)
    with pytest.raises(DatabaseError, match="append-only"), connection.cursor() as cursor:
        cursor.execute(statement)
    with pytest.raises(DatabaseError, match="append-only"):
        Event.objects.filter(sequence=2).update(actor_name="mallory")
    with pytest.raises(DatabaseError, match="append-only"):
        Event.objects.get(sequence=2).delete()
    assert checking.check_database().count == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("actor_name", "'mallory'"),
        ("reason", "'because'"),
        ("before", "'{\"size\": 9}'"),
        ("at", "'2020-01-01 00:00:00+00:00'"),
        ("project_id", "'00000000000000000000000000000001'"),
        ("ip", "''"),
        ("prev_hash", f"'{'1' * 64}'"),
        ("hash", f"'{'2' * 64}'"),
    ],
)
def test_an_altered_row_is_found(column, value):
    write(4)
    with without_triggers() as cursor:
        cursor.execute(f"UPDATE audit_event SET {column} = {value} WHERE sequence = 2")
    assert "event 2 was altered" in problems()


@pytest.mark.django_db(transaction=True)
def test_a_row_altered_with_its_own_hash_recomputed_is_found():
    write(4)
    event = Event.objects.get(sequence=2)
    event.actor_name = "mallory"
    with without_triggers() as cursor:
        cursor.execute(
            "UPDATE audit_event SET actor_name = 'mallory', hash = %s WHERE sequence = 2",
            [chain.event_hash(as_exported(event))],
        )
    assert "event 3 does not follow" in problems()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("gone", "said"), [("= 2", "event 2 is missing"), ("< 3", "events 1 to 2 are missing")]
)
def test_a_removed_row_is_found(gone, said):
    write(4)
    with without_triggers() as cursor:
        cursor.execute(f"DELETE FROM audit_event WHERE sequence {gone}")
    assert said in problems()


@pytest.mark.django_db(transaction=True)
def test_a_removed_end_is_found_by_the_head():
    write(4)
    with without_triggers() as cursor:
        cursor.execute("DELETE FROM audit_event WHERE sequence > 2")
    assert "chain head speaks of event 4, the last one present is 2" in problems()


@pytest.mark.django_db(transaction=True)
def test_everything_removed_is_found():
    write(4)
    with without_triggers() as cursor:
        cursor.execute("DELETE FROM audit_event")
    assert "chain head speaks of event 4" in problems()


@pytest.mark.django_db(transaction=True)
def test_an_inserted_row_is_found():
    write(3)
    last = Event.objects.get(sequence=3)
    forged = Event(
        **{
            field.attname: getattr(last, field.attname)
            for field in Event._meta.fields
            if field.attname not in ("sequence", "prev_hash", "hash")
        },
        sequence=4,
        prev_hash=last.hash,
    )
    forged.hash = chain.event_hash(as_exported(forged))
    forged.save(force_insert=True)
    assert "chain head speaks of event 3, the last one present is 4" in problems()


@pytest.mark.django_db(transaction=True)
def test_reordered_rows_are_found():
    write(4)
    with without_triggers() as cursor:
        for old, new in ((2, 99), (3, 2), (99, 3)):
            cursor.execute("UPDATE audit_event SET sequence = %s WHERE sequence = %s", [new, old])
    assert "event 2" in problems()
    assert "event 3" in problems()


def rewrite_from(cursor, sequence):
    """Recompute the chain after a forgery, as somebody with the code and the database could."""
    previous = (
        Event.objects.filter(sequence=sequence - 1).values_list("hash", flat=True).first() or chain.GENESIS
    )
    for event in Event.objects.filter(sequence__gte=sequence).order_by("sequence"):
        event.prev_hash = previous
        previous = chain.event_hash(as_exported(event))
        cursor.execute(
            "UPDATE audit_event SET prev_hash = %s, hash = %s WHERE sequence = %s",
            [event.prev_hash, previous, event.sequence],
        )
    cursor.execute("UPDATE audit_chain_head SET hash = %s, sequence = %s", [previous, Event.objects.count()])


@pytest.mark.django_db(transaction=True)
def test_a_history_rewritten_whole_is_found_by_an_earlier_export(tmp_path):
    write(5)
    kept = tmp_path / "kept.jsonl"
    call_command("audit", "export", "-o", str(kept))
    with without_triggers() as cursor:
        cursor.execute("UPDATE audit_event SET actor_name = 'mallory' WHERE sequence = 2")
        rewrite_from(cursor, 2)
    assert checking.check_database().intact
    out = StringIO()
    with pytest.raises(CommandError, match="NOT intact"):
        call_command("audit", "verify", "--file", str(kept), stdout=out)
    assert "another history" in out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_a_tail_cut_off_with_its_head_is_found_by_an_earlier_export(tmp_path):
    write(5)
    kept = tmp_path / "kept.jsonl"
    call_command("audit", "export", "-o", str(kept))
    with without_triggers() as cursor:
        cursor.execute("DELETE FROM audit_event WHERE sequence > 3")
        cursor.execute(
            "UPDATE audit_chain_head SET sequence = 3, hash = (SELECT hash FROM audit_event WHERE sequence = 3)"
        )
    assert checking.check_database().intact
    out = StringIO()
    with pytest.raises(CommandError):
        call_command("audit", "verify", "--file", str(kept), stdout=out)
    assert "event 5, which it attests, is not in the database" in out.getvalue()


@pytest.mark.django_db
def test_an_export_verifies_by_itself_and_without_django(tmp_path):
    write(7, reason='quoted "text"\nand lines')
    file = tmp_path / "trail.jsonl"
    call_command("audit", "export", "-o", str(file))
    lines = file.read_text().splitlines()
    assert len(lines) == 8
    assert json.loads(lines[-1])["checkpoint"]["sequence"] == 7
    assert chain.verify_export(lines).intact
    run = subprocess.run(
        [sys.executable, "-m", "llmops.audit.chain", str(file)],
        capture_output=True,
        text=True,
        env={},
        check=False,
    )
    assert (run.returncode, run.stdout) == (
        0,
        f"7 events, intact up to event 7, hash {Event.objects.get(sequence=7).hash}\n",
    )


@pytest.mark.django_db
def test_a_part_is_exported_and_verifies(tmp_path):
    write(9)
    file = tmp_path / "part.jsonl"
    call_command("audit", "export", "--from", "3", "--to", "6", "-o", str(file))
    verdict = chain.verify_export(file.read_text().splitlines())
    assert (verdict.intact, verdict.count, verdict.sequence) == (True, 4, 6)
    out = StringIO()
    call_command("audit", "verify", "--file", str(file), stdout=out)
    # Nine, and that it was exported.
    assert "intact: 10 events" in out.getvalue()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: lines[:2] + lines[3:], "missing"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "missing"),
        (lambda lines: lines[:4] + lines[5:], "checkpoint speaks of"),
        (lambda lines: [lines[0].replace("bob", "eve"), *lines[1:]], "altered"),
        (lambda lines: [lines[0], "not json", *lines[1:]], "neither an event"),
        (lambda lines: [lines[0], '{"sequence": 2}', *lines[1:]], "neither an event"),
        (lambda lines: [lines[0].replace('"ip"', '"extra":1,"ip"'), *lines[1:]], "neither an event"),
        (lambda lines: [*lines, lines[0]], "after the checkpoint"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "stands where"),
        (lambda lines: [lines[1], lines[-1]], "checkpoint speaks of"),
        (lambda lines: [], "cut off"),
        (lambda lines: ["[]"], "neither an event"),
        (lambda lines: ["null"], "neither an event"),
    ],
)
def test_a_damaged_export_is_found(damage, said):
    write(5)
    lines = list(export.lines())
    verdict = chain.verify_export(damage(lines))
    assert not verdict.intact
    assert said in " / ".join(verdict.problems)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "arguments", [["--from", "0"], ["--from", "4", "--to", "2"], ["--to", "99"], ["--from", "99"]]
)
def test_a_range_that_does_not_exist_is_refused(arguments):
    write(5)
    with pytest.raises(CommandError, match=r"newest event is 5|numbered from 1"):
        call_command("audit", "export", *arguments, stdout=StringIO())


@pytest.mark.django_db
def test_an_export_never_overwrites(tmp_path):
    write()
    file = tmp_path / "trail.jsonl"
    file.write_text("evidence")
    with pytest.raises(CommandError, match="exists"):
        call_command("audit", "export", "-o", str(file))
    assert file.read_text() == "evidence"
    with pytest.raises(CommandError, match="No such file"):
        call_command("audit", "verify", "--file", str(tmp_path / "none.jsonl"))


@pytest.mark.django_db(transaction=True)
def test_an_export_holds_one_moment_while_others_write(tmp_path):
    write(40)

    def exports():
        return [chain.verify_export(export.lines()) for _ in range(5)]

    def writes():
        for _ in range(20):
            write()

    found, _ = in_threads(exports, writes)
    assert all(verdict.intact and verdict.count >= 40 for verdict in found)
    assert checking.check_database().count == 60


@pytest.mark.django_db
def test_what_no_database_can_hold_is_replaced_and_still_verifies():
    write(
        actor=Actor(kind="user", identifier="1", name="nul\0 and \ud800", ip="x" * 90, request_id="\0"),
        reason="half \udfff",
        after={"nul\0": "a\0b", "float": 0.1, "big": 2**70, "nested": [{"\ud800": None}], "none": None},
        object_name="\0" * 300,
    )
    event = Event.objects.get()
    assert "\0" not in str(as_exported(event))
    assert event.after["float"] == "0.1"
    assert event.after["big"] == 2**70
    assert checking.check_database().intact


@pytest.mark.django_db
def test_secrets_are_masked_whatever_the_caller_passed():
    secret = "sk-proj-" + "a1B2" * 12
    write(
        before={"api_key": "anything", "note": f"was {secret}"},
        after={"headers": [{"authorization": "Bearer abcdefghijklmnop"}]},
        reason=f"leaked {secret}",
        object_name=f"key {secret}",
    )
    stored = json.dumps(as_exported(Event.objects.get()))
    assert secret not in stored
    assert "anything" not in stored
    assert "abcdefghijklmnop" not in stored


@pytest.mark.django_db
def test_times_survive_the_database_to_the_microsecond():
    for _ in range(30):
        write(actor=COMMAND)
    assert checking.check_database().intact
