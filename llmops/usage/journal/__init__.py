"""A data-plane process's journal: append-only segment files, written by one process and read by an ingester. Pure.

``<id>.<number>.jsonl`` are the segments (see ``records.py``). The writer holds an exclusive flock on ``<id>.lock`` and on
every segment for as long as it lives, so whoever gets the lock and a segment's knows that the writer is gone; a deleted lock
file alone says nothing. A segment is complete once the next one exists. A plain write survives the death of the process,
kill -9 included, but not the loss of power of the machine. A segment in use that somebody deletes or moves away is written
again from the open file, byte for byte: nothing is lost as long as the writer lives.
"""

from llmops.usage.journal.claims import Claim, claim, remove, remove_leftovers, remove_segments
from llmops.usage.journal.files import found, lock_path, segment_path
from llmops.usage.journal.reader import Entry, JournalDamaged, JournalReader, Position
from llmops.usage.journal.writer import RESERVE_BYTES, SEGMENT_BYTES, JournalWriter

__all__ = [
    "RESERVE_BYTES",
    "SEGMENT_BYTES",
    "Claim",
    "Entry",
    "JournalDamaged",
    "JournalReader",
    "JournalWriter",
    "Position",
    "claim",
    "found",
    "lock_path",
    "remove",
    "remove_leftovers",
    "remove_segments",
    "segment_path",
]
