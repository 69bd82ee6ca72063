"""What workers do on a schedule: orphaned journals, leases that ran out, calls past their retention."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from django.utils.module_loading import import_string

from llmops.budgets import services as budgets
from llmops.budgets.models import Lease, Window
from llmops.usage import journal, tasks
from llmops.usage.ingest.loop import Ingester, only_ingester
from llmops.usage.models import Call, Journal
from llmops.usage.services import open_journal
from tests.cast import COMMAND, one_event
from tests.usage.journals import Scribe, origin


@pytest.fixture
def directory(tmp_path: Path, settings: Any) -> Path:
    settings.JOURNAL_DIR = tmp_path / "journal"
    settings.JOURNAL_DIR.mkdir()
    return settings.JOURNAL_DIR


@pytest.fixture
def window(db: None) -> int:
    budget = budgets.create_budget(COMMAND, slug="all", scope_kind="organisation", limit_nano=10_000)
    return budgets.open_window(budget_id=budget.pk, at=timezone.now()).window_id


def expired(window: int, journal_id: UUID, amount: int = 1000) -> None:
    budgets.lease(window_id=window, journal_id=journal_id, need=0, want=amount, lease_seconds=60)
    Lease.objects.filter(journal_id=journal_id).update(expires_at=timezone.now() - timedelta(seconds=1))


def stands(window: int, **wanted: int) -> None:
    row = Window.objects.get(pk=window)
    found = {name: getattr(row, f"{name}_nano") for name in ("settled", "leased", "unattributed")}
    assert found == {"settled": 0, "leased": 0, "unattributed": 0} | wanted


def test_the_schedule_names_tasks_that_are_there() -> None:
    app = import_string(django_settings.TASK_APP)
    app.loader.import_default_modules()
    app.finalize()
    scheduled = {entry["task"] for entry in django_settings.CELERY_BEAT_SCHEDULE.values()}
    assert scheduled | {"usage.run_job"} <= set(app.tasks)


def test_an_expired_lease_of_a_dead_process_is_booked_not_charged_whole(directory: Path, window: int) -> None:
    scribe = Scribe.at(directory)
    expired(window, scribe.writer.journal_id)
    scribe.call(windows={window: (100, 30)}, cost=30)
    scribe.hold(origin(), windows={window: 70})
    scribe.writer.close()
    assert tasks.reap_leases() == 0
    stands(window, settled=100)
    assert Call.objects.count() == 2 and Journal.objects.get().state == Journal.CLOSED


def test_an_expired_lease_of_a_living_process_is_spared_while_its_journal_can_be_read(
    directory: Path, window: int
) -> None:
    scribe = Scribe.at(directory)
    expired(window, scribe.writer.journal_id)
    scribe.call(windows={window: (100, 30)}, cost=30)
    assert tasks.reap_leases() == 0
    stands(window, settled=30, leased=970)


def test_a_lost_journal_is_charged_whole_and_made_good_when_it_turns_up(directory: Path, window: int) -> None:
    elsewhere = directory.parent / "elsewhere"
    scribe = Scribe.at(elsewhere)
    identifier = scribe.writer.journal_id
    open_journal(journal_id=identifier, host="gone", path=str(elsewhere))
    expired(window, identifier)
    scribe.call(windows={window: (100, 30)}, cost=30)
    scribe.writer.close()
    with one_event("budget.lease_charged_whole"):
        assert tasks.reap_leases() == 1
    assert tasks.reap_leases() == 0
    stands(window, settled=1000, unattributed=1000)
    assert Journal.objects.get().state == Journal.LOST
    for path in elsewhere.iterdir():
        path.rename(directory / path.name)
    assert tasks.ingest_orphans() > 0
    stands(window, settled=30)
    assert Journal.objects.get().state == Journal.CLOSED


def test_a_damaged_journal_can_not_spare_its_lease(directory: Path, window: int) -> None:
    scribe = Scribe.at(directory)
    expired(window, scribe.writer.journal_id)
    scribe.call(windows={window: (100, 30)}, cost=30)
    with journal.segment_path(directory, scribe.writer.journal_id, 0).open("ab") as file:
        file.write(b"damage\n")
    assert tasks.reap_leases() == 1
    stands(window, settled=1000, unattributed=970)
    row = Journal.objects.get()
    assert row.state == Journal.LOST and "damage" not in row.state and row.problem


def test_a_lease_without_a_journal_at_all_is_charged_whole(directory: Path, window: int) -> None:
    expired(window, uuid4(), 10)
    assert tasks.reap_leases() == 1
    stands(window, settled=10, unattributed=10)


def test_orphans_are_booked_only_when_no_ingester_runs(directory: Path, db: None) -> None:
    scribe = Scribe.at(directory)
    scribe.call()
    with only_ingester(directory) as ours:
        assert ours
        assert tasks.ingest_orphans() == 0 and Call.objects.count() == 0
    assert tasks.ingest_orphans() == 3
    assert Call.objects.count() == 1


def test_retention_follows_the_setting(directory: Path, db: None, settings: Any) -> None:
    scribe = Scribe.at(directory)
    scribe.call(started=int((timezone.now() - timedelta(days=9)).timestamp() * 1e9))
    scribe.call()
    Ingester(directory).run_once()
    settings.CALL_RETENTION_DAYS = 30
    assert tasks.apply_retention() == 0
    settings.CALL_RETENTION_DAYS = 7
    assert tasks.apply_retention() == 1
    assert Call.objects.count() == 1


def test_the_ingester_refuses_a_database_of_another_version(directory: Path, db: None) -> None:
    MigrationRecorder.Migration.objects.filter(app="usage").delete()
    with pytest.raises(CommandError, match="manage migrate"):
        call_command("ingest", "--once")
