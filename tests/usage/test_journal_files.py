"""The journal's files: whole records or none, whatever happens to the writer, the disk and the reader."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.core.errors import ConfigurationRefused, ServiceUnavailable
from llmops.usage import journal
from llmops.usage.journal import JournalDamaged, JournalReader, JournalWriter, Position
from llmops.usage.records import Ended, Held, Opened, Record, decode, encode
from tests.installation import ROOT
from tests.trying import tries
from tests.usage.journals import origin, outcome


def _held(**known: object) -> Held:
    return Held(n=0, at=1, attempt=1, origin=origin(**known), model="m", model_version=1, provider="p")


def _ended() -> Ended:
    return Ended(n=0, at=1, attempt=0, origin=origin(), outcome=outcome())


def _read_all(directory: Path, journal_id: UUID, batch: int = 7) -> list[Record]:
    reader, records = JournalReader(directory, journal_id), []
    while entries := reader.read(batch):
        records += [entry.record for entry in entries]
    reader.close()
    return records


def test_records_come_back_in_order_over_segments(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=2000)
    for number in range(60):
        writer.append(_held(feature=f"f{number} \n \0 ü"))
    records = _read_all(tmp_path, writer.journal_id)
    assert len(journal.found(tmp_path)[writer.journal_id]) > 5
    assert [record.n for record in records] == list(range(1, len(records) + 1))
    held = [record for record in records if isinstance(record, Held)]
    assert [record.origin.feature for record in held] == [f"f{number} \n \0 ü" for number in range(60)]
    opened = [record for record in records if isinstance(record, Opened)]
    assert [record.segment for record in opened] == journal.found(tmp_path)[writer.journal_id]


@tries(40, at_least=20)
@given(cut=st.integers(0, 10_000), count=st.integers(1, 12), batch=st.integers(1, 5))
def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(
    tmp_path_factory: pytest.TempPathFactory, cut: int, count: int, batch: int
) -> None:
    directory = tmp_path_factory.mktemp("cut")
    writer = JournalWriter(directory)
    for number in range(count):
        writer.append(_held(feature="x" * (number * 37 % 90)))
    writer.close()
    path = journal.segment_path(directory, writer.journal_id, 0)
    whole = path.read_bytes()
    cut = cut % (len(whole) + 1)
    os.truncate(path, cut)
    records = _read_all(directory, writer.journal_id, batch)
    assert [encode(record) for record in records] == whole[:cut].splitlines(keepends=True)[: len(records)]
    assert len(records) == whole[:cut].count(b"\n")


def test_a_reader_goes_on_where_it_stood_and_sees_what_comes_later(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=1500)
    writer.append(_held())
    reader = JournalReader(tmp_path, writer.journal_id)
    assert len(reader.read(10)) == 2
    assert reader.read(10) == []
    for _ in range(20):
        writer.append(_held())
    again = JournalReader(tmp_path, writer.journal_id, reader.position)
    later = [entry.record for entry in reader.read(100)]
    assert later == [entry.record for entry in again.read(100)]
    assert reader.position == again.position
    assert sum(isinstance(record, Held) for record in later) == 20


def test_a_reader_beside_a_writer_loses_nothing_at_rotations(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=3000)
    count, done = 3000, threading.Event()

    def write() -> None:
        for _ in range(count):
            writer.append(_held())
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    reader, held = JournalReader(tmp_path, writer.journal_id), 0
    deadline = time.monotonic() + 60
    while held < count and time.monotonic() < deadline:
        held += sum(isinstance(entry.record, Held) for entry in reader.read(50))
    thread.join()
    assert held == count and done.is_set()
    assert len(journal.found(tmp_path)[writer.journal_id]) > 100


def _damage_gap(lines: list[bytes]) -> None:
    del lines[3]


def _damage_order(lines: list[bytes]) -> None:
    lines[3], lines[4] = lines[4], lines[3]


def _damage_twice(lines: list[bytes]) -> None:
    lines.insert(3, lines[2])


def _damage_garbage(lines: list[bytes]) -> None:
    lines[3] = b'{"t":"hold","n":4,"at":"noon"}\n'


def _damage_kind(lines: list[bytes]) -> None:
    lines[3] = b'{"t":"promise","n":4,"at":1}\n'


def _damage_binary(lines: list[bytes]) -> None:
    lines[3] = b"\xff\xfe\x00\n"


def _damage_opened(lines: list[bytes]) -> None:
    opened = decode(lines[0])
    opened.n = 4
    lines[3] = encode(opened)


@pytest.mark.parametrize(
    "damage",
    [
        _damage_gap,
        _damage_order,
        _damage_twice,
        _damage_garbage,
        _damage_kind,
        _damage_binary,
        _damage_opened,
    ],
)
def test_damage_stops_the_reader_behind_the_last_good_record(tmp_path: Path, damage: object) -> None:
    writer = JournalWriter(tmp_path)
    for _ in range(6):
        writer.append(_held())
    writer.close()
    path = journal.segment_path(tmp_path, writer.journal_id, 0)
    lines = path.read_bytes().splitlines(keepends=True)
    damage(lines)  # type: ignore[operator]
    path.write_bytes(b"".join(lines))
    reader = JournalReader(tmp_path, writer.journal_id)
    assert len(reader.read(100)) == 3
    for _ in range(2):
        with pytest.raises(JournalDamaged, match=rf"{path.name} .* at byte {reader.position.offset}"):
            reader.read(100)
    assert reader.position.sequence == 3


def test_lost_shortened_and_foreign_segments_are_refused(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=700)
    for _ in range(12):
        writer.append(_held())
    writer.close()
    numbers = journal.found(tmp_path)[writer.journal_id]
    assert len(numbers) >= 4
    first, second, third = (
        journal.segment_path(tmp_path, writer.journal_id, number) for number in numbers[:3]
    )
    with pytest.raises(JournalDamaged, match="shorter"):
        JournalReader(tmp_path, writer.journal_id, Position(0, first.stat().st_size + 1, 5)).read(5)
    shutil.copy(third, second)
    reader = JournalReader(tmp_path, writer.journal_id)
    reader.read(100)
    with pytest.raises(JournalDamaged, match=r"goes from record|says that it is segment 2"):
        reader.read(100)
    second.unlink()
    reader = JournalReader(tmp_path, writer.journal_id)
    with pytest.raises(JournalDamaged, match=rf"{writer.journal_id}.1.jsonl is missing"):
        while reader.read(3):
            pass
        reader.check_later()
    os.truncate(first, first.stat().st_size - 3)
    shutil.copy(third, second)
    reader = JournalReader(tmp_path, writer.journal_id)
    with pytest.raises(JournalDamaged, match="middle of a record"):
        while reader.read(3):
            pass


def _delete(path: Path) -> None:
    path.unlink()


def _move_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _put_another_in_its_place(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"not this one\n")
    other.rename(path)


def _delete_the_directory(path: Path) -> None:
    shutil.rmtree(path.parent)


REMOVALS = [_delete, _move_away, _put_another_in_its_place, _delete_the_directory]


@pytest.mark.parametrize("remove", REMOVALS)
def test_a_segment_that_vanishes_is_written_again_with_every_record(tmp_path: Path, remove: object) -> None:
    directory = tmp_path / "journal"
    writer = JournalWriter(directory)
    for _ in range(5):
        writer.append(_held())
    path = journal.segment_path(directory, writer.journal_id, 0)
    before = path.read_bytes()
    reader = JournalReader(directory, writer.journal_id)
    assert len(reader.read(3)) == 3
    remove(path)  # type: ignore[operator]
    assert not writer.healthy
    writer.append(_ended())
    assert path.name in writer.tend()
    assert writer.healthy and writer.tend() == ""
    assert path.read_bytes().startswith(before)
    writer.append(_held())
    assert [entry.record.n for entry in reader.read(100)] == [4, 5, 6, 7, 8]
    assert [record.n for record in _read_all(directory, writer.journal_id)] == list(range(1, 9))
    assert journal.claim(directory, writer.journal_id) is None


@pytest.mark.parametrize("remove", [_delete, _move_away])
def test_a_segment_that_vanishes_just_before_it_is_full_is_written_again(
    tmp_path: Path, remove: object
) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=1500)
    reader = JournalReader(tmp_path, writer.journal_id)
    removed = 0
    for _ in range(100):
        path = journal.segment_path(
            tmp_path, writer.journal_id, journal.found(tmp_path)[writer.journal_id][-1]
        )
        if path.stat().st_size >= 1500:
            remove(path)  # type: ignore[operator]
            removed += 1
        writer.append(_ended())
    assert removed > 5
    records = []
    while entries := reader.read(100):
        records += [entry.record for entry in entries]
    assert [record.n for record in records] == list(range(1, len(records) + 1))
    assert sum(isinstance(record, Ended) for record in records) == 100


def test_nothing_begins_in_a_deleted_segment(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    writer.append(_held())
    path = journal.segment_path(tmp_path, writer.journal_id, 0)
    path.unlink()
    writer.append(_held())
    assert writer.healthy and not writer.problem
    assert path.read_bytes().count(b"\n") == 3, "the record is in the file that an ingester will read"


def test_what_cannot_be_put_back_takes_no_calls_until_it_can(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    writer = JournalWriter(directory)
    writer.append(_held())
    shutil.rmtree(directory)
    directory.write_text("a file is in the way")
    for _ in range(2):
        assert writer.tend() == "" and not writer.healthy
        with pytest.raises(ServiceUnavailable):
            writer.append(_held())
    directory.unlink()
    assert writer.tend() and writer.healthy
    writer.append(_held())
    assert [record.n for record in _read_all(directory, writer.journal_id)] == [1, 2, 3]


def test_without_its_lock_file_a_living_journal_is_not_claimed(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=1500)
    lock = journal.lock_path(tmp_path, writer.journal_id)
    for _ in range(30):
        writer.append(_held())
        lock.unlink(missing_ok=True)
        assert journal.claim(tmp_path, writer.journal_id) is None
    # Only an old segment is left, and the lock is gone: its writer lives all the same.
    last = journal.found(tmp_path)[writer.journal_id][-1]
    assert last > 2
    for number in range(1, last + 1):
        journal.segment_path(tmp_path, writer.journal_id, number).unlink()
    lock.unlink()
    assert journal.claim(tmp_path, writer.journal_id) is None
    journal.segment_path(tmp_path, writer.journal_id, 0).unlink()
    assert journal.claim(tmp_path, writer.journal_id) is None, "no segment, no conclusion"
    writer.tend()
    assert lock.exists()
    writer.close()
    held = journal.claim(tmp_path, writer.journal_id)
    assert held is not None
    held.release()


def test_locks_of_segments_that_an_ingester_deleted_are_let_go(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, segment_bytes=1500)
    for _ in range(60):
        writer.append(_held())
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    journal.remove_segments(tmp_path, writer.journal_id, below=journal.found(tmp_path)[writer.journal_id][-1])
    assert writer.tend() == ""
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors - 10


def test_vanishing_files_beside_a_reader_lose_nothing(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    present = journal.segment_path(tmp_path, writer.journal_id, 0)
    count, done, removed = 6000, threading.Event(), 0

    def write() -> None:
        for number in range(count):
            writer.append(_held())
            if number % 50 == 0:
                writer.tend()
        writer.tend()
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    reader, numbers = JournalReader(tmp_path, writer.journal_id), []
    deadline = time.monotonic() + 60
    while len(numbers) <= count and time.monotonic() < deadline:
        if not done.is_set():
            REMOVALS[removed % 2](present) if present.exists() else None
            removed += 1
            assert journal.claim(tmp_path, writer.journal_id) is None
        try:
            numbers += [entry.record.n for entry in reader.read(500)]
        except JournalDamaged:
            # An ingester that looks while the file is away comes again later.
            reader = JournalReader(tmp_path, writer.journal_id, reader.position)
    thread.join()
    assert removed > 10
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > count


def test_a_directory_that_cannot_hold_a_journal_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationRefused, match="CONSOLE_JOURNAL_DIR"):
        JournalWriter(tmp_path / "file" / "journal")
    first = JournalWriter(tmp_path / "journal")
    with pytest.raises(ConfigurationRefused):
        JournalWriter(tmp_path / "journal", journal_id=first.journal_id)
    first.append(_held())
    assert len(_read_all(tmp_path / "journal", first.journal_id)) == 2


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from llmops.core.errors import ServiceUnavailable
from llmops.usage.journal import JournalWriter
from tests.usage.test_journal_files import _held, _ended

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
writer = JournalWriter(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, unlimited[1]))
written = refused = 0
for _ in range(20):
    try:
        writer.append(_held())
        written += 1
    except ServiceUnavailable as error:
        refused += 1
        assert error.status == 503 and "CONSOLE_JOURNAL_DIR" in writer.problem, writer.problem
assert written and refused and written + refused == 20
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
writer.append(_ended())
assert writer.healthy and not writer.problem
print(writer.journal_id, written)
"""


def test_a_write_that_fits_only_in_part_leaves_no_torn_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, tmp_path], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    journal_id, written = done.stdout.split()
    records = _read_all(tmp_path, UUID(journal_id))
    assert [type(record) for record in records] == [Opened, *[Held] * int(written), Ended]
    assert journal.segment_path(tmp_path, UUID(journal_id), 0).read_bytes().count(b"\n") == len(records)


def test_on_a_full_disk_ends_still_have_the_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = JournalWriter(tmp_path)
    reserve = tmp_path / f"{writer.journal_id}.reserve"
    assert reserve.stat().st_size == journal.RESERVE_BYTES
    real = os.write

    def full(fd: int, data: bytes) -> int:
        if reserve.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    writer.append(_held())
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ServiceUnavailable):
        writer.append(_held())
    writer.append(_ended())
    monkeypatch.setattr(os, "write", real)
    assert reserve.exists(), "the reserve is made anew once there is space"
    assert [record.n for record in _read_all(tmp_path, writer.journal_id)] == [1, 2, 3]


def test_the_lock_tells_a_living_writer_from_a_dead_one(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path)
    assert journal.claim(tmp_path, writer.journal_id) is None
    writer.close()
    held = journal.claim(tmp_path, writer.journal_id)
    assert held is not None
    assert journal.claim(tmp_path, writer.journal_id) is None, "one claimant at a time"
    held.release()
    with journal.claim(tmp_path, writer.journal_id) or pytest.fail("the claim was given back"):
        journal.remove(tmp_path, writer.journal_id)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_writers_that_never_began_are_removed(tmp_path: Path) -> None:
    living = JournalWriter(tmp_path)
    dead, young = uuid4(), uuid4()
    for journal_id in (dead, young):
        journal.lock_path(tmp_path, journal_id).touch()
        (tmp_path / f"{journal_id}.reserve").touch()
    os.utime(journal.lock_path(tmp_path, dead), (1, 1))
    os.utime(journal.lock_path(tmp_path, living.journal_id), (1, 1))
    (tmp_path / "notes.lock").touch()
    os.utime(tmp_path / "notes.lock", (1, 1))
    journal.remove_leftovers(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert not any(name.startswith(str(dead)) for name in left)
    assert {f"{young}.lock", f"{young}.reserve", f"{living.journal_id}.lock", "notes.lock"} <= left
    assert journal.claim(tmp_path, living.journal_id) is None


_WRITER = """
import sys
from pathlib import Path
from llmops.usage.journal import JournalWriter
from tests.usage.test_journal_files import _held
writer = JournalWriter(Path(sys.argv[1]), segment_bytes=20_000)
print(writer.journal_id, flush=True)
while True:
    writer.append(_held(feature="y" * 90))
"""


@pytest.mark.parametrize("records", [1, 50, 700])
def test_kill_9_of_a_writer_leaves_whole_records_and_a_free_lock(tmp_path: Path, records: int) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert writer.stdout is not None
        journal_id = UUID(writer.stdout.readline().strip())
        reader = JournalReader(tmp_path, journal_id)
        while reader.position.sequence < records:
            assert writer.poll() is None
            reader.read(100)
        assert journal.claim(tmp_path, journal_id) is None
    finally:
        writer.kill()
        writer.wait()
    while reader.read(1000):
        pass
    everything = _read_all(tmp_path, journal_id, 500)
    assert [record.n for record in everything] == list(range(1, reader.position.sequence + 1))
    held = journal.claim(tmp_path, journal_id)
    assert held is not None
    held.release()
