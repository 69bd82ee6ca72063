"""Advisory locks for things that have no row to lock.

On PostgreSQL ``pg_advisory_xact_lock``; SQLite has one writer at a time and every transaction here starts IMMEDIATE,
so the transaction itself is the lock.
"""

from __future__ import annotations

import hashlib

from django.db import connection, transaction


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def lock(name: str, *, shared: bool = False) -> None:
    """Take the lock ``name`` until the current transaction ends; waits. ``shared`` holders admit each other."""
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError(f"lock({name!r}) needs a transaction: wrap the caller in transaction.atomic()")
    if connection.vendor == "postgresql":
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s)", [_number(name)])


def try_lock(name: str) -> bool:
    """Take the exclusive lock ``name`` if it is free, without waiting; False means that somebody else has it."""
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError(f"try_lock({name!r}) needs a transaction: wrap the caller in transaction.atomic()")
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_number(name)])
        return bool(cursor.fetchone()[0])
