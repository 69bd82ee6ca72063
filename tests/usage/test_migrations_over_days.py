"""Migrations of calls over days that hold some, backwards and forwards: nothing is lost, and nobody waits while calls are read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call
from tests.usage.journals import Scribe
from tests.usage.reckoning import assert_calls

_INDICES = ("signals", "provider_request")


def rows(query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_calls_of_many_days_are_migrated_without_being_read_under_a_lock(
    tmp_path: Path, transactional_db: None
) -> None:
    if connection.vendor != "postgresql":
        return
    scribe = Scribe.at(tmp_path)
    now = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    for days in (40, 3, 2, 1):
        scribe.call(started=int((now - timedelta(days=days)).timestamp()) * 10**9, cost=7)
    Ingester(tmp_path).run_once()
    before = list(Call.objects.order_by("pk").values())
    told: list[tuple[str, bool]] = []
    forwards = False

    def note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        told.append((sql, connection.in_atomic_block))
        return execute(sql, params, many, context)

    try:
        call_command("migrate", "usage", "0021", verbosity=0)
        assert Call.objects.count() == len(before)
        assert not rows(
            "SELECT 1 FROM pg_attribute WHERE attrelid = 'usage_call'::regclass AND attname = 'signals'"
        )
        with connection.execute_wrapper(note):
            call_command("migrate", verbosity=0)
        forwards = True
        assert list(Call.objects.order_by("pk").values()) == before
        assert_calls(scribe.written)
        parts = {
            name
            for (name,) in rows(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_call'::regclass"
            )
        }
        assert len(parts) > 4
        # A new column is a matter of the catalogue, its check is held against what is there where others go on.
        (adding,) = [sql for sql, _ in told if "ADD COLUMN signals" in sql]
        assert "NOT VALID" in adding
        assert [locked for sql, locked in told if "VALIDATE CONSTRAINT usage_call_signals_check" in sql] == [
            False
        ]
        assert rows(
            "SELECT DISTINCT convalidated FROM pg_constraint WHERE conname = 'usage_call_signals_check'"
        ) == [(True,)]
        # Indices of days are built beside what is booked, and the one of the table takes them in instead of building others.
        for name in _INDICES:
            built = [
                (sql, locked)
                for sql, locked in told
                if sql.startswith("CREATE INDEX CONCURRENTLY") and f"_{name} ON" in sql
            ]
            assert {sql.split()[5] for sql, _ in built} == parts
            assert not any(locked for _, locked in built)
            taken = rows(
                "SELECT c.relname, i.indisvalid FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid "
                f"JOIN pg_index i ON i.indexrelid = c.oid WHERE h.inhparent = 'usage_call_{name}'::regclass"
            )
            assert sorted(taken) == sorted((f"{part}_{name}", True) for part in parts)
        assert rows("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == [(0,)]
    finally:
        Call.objects.all().delete()
        if not forwards:
            call_command("migrate", verbosity=0)
