"""An ingester gathers what comes while it keeps up, and does not pause while it is behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from django.db import connection

from llmops.usage.ingest.loop import Ingester
from llmops.usage.models import Call, Journal
from tests.usage.journals import Scribe


class Pauses(threading.Event):
    """Asks to stop at the third pause; knows what was booked at each, and lets more come in the meantime."""

    def __init__(self, scribe: Scribe) -> None:
        super().__init__()
        self._scribe = scribe
        self.booked: list[int] = []
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.seconds.append(timeout)
        self.booked.append(Journal.objects.get(pk=self._scribe.writer.journal_id).sequence)
        if len(self.booked) == 3:
            self.set()
        for _ in range(4):
            self._scribe.call()
        return self.is_set()


@pytest.mark.parametrize("poll", [0.2, 30.0])
def test_what_came_during_a_pause_is_booked_in_one_transaction(tmp_path: Path, db: None, poll: float) -> None:
    scribe = Scribe.at(tmp_path)
    for _ in range(35):
        scribe.call()
    behind, each = scribe.writer.sequence, 2
    stop = Pauses(scribe)
    transactions: list[str] = []

    def noted(execute, sql, params, many, context):  # type: ignore[no-untyped-def]
        if sql.startswith('UPDATE "usage_journal"') and '"sequence"' in sql:
            transactions.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(noted):
        Ingester(tmp_path, batch=20).run(stop, poll=poll)
    # 71 records in batches of 20 without a pause, then what came in each pause at once.
    assert stop.booked == [behind, behind + 4 * each, behind + 8 * each]
    assert len(transactions) == -(-behind // 20) + 2
    assert all(0 < seconds <= poll for seconds in stop.seconds)
    assert Call.objects.count() == 35 + 8
