"""Master keys, rotated online: everything is sealed anew under the active key, beside all other work; then the old one may go.

Which values are done is read from the values themselves (each names its key), so a run that was killed goes on where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from llmops.audit.services import record
from llmops.base.clock import database_now
from llmops.base.live import LIVE_STATE, touch
from llmops.base.master_keys import master_keys, usable_for_sealing
from llmops.base.models import MasterKeyVerifier, Resealing
from llmops.base.sealed import SealedColumn, sealed_columns, values_by_key
from llmops.base.tasks import send
from llmops.base.transitions import compare_and_set
from llmops.core.actors import Actor
from llmops.core.errors import ConfigurationRefused, Conflict

log = logging.getLogger(__name__)

KIND = "base.masterkeyverifier"
BATCH = 200
#: A run whose worker has been silent for so long is gone on with by another.
SILENT_AFTER = timedelta(seconds=60)


@transaction.atomic
def start_resealing(actor: Actor, *, background: bool = True) -> Resealing:
    """Begin to seal everything anew under the active key. ``background``: a worker does it."""
    keys = usable_for_sealing()
    if Resealing.objects.select_for_update().filter(state=Resealing.RUNNING).exists():
        raise Conflict("Everything is being sealed anew already.")
    left = {key_id: number for key_id, number in values_by_key().items() if key_id != keys.active_id}
    # What was sealed under a key that is lost is given up.
    retired = MasterKeyVerifier.objects.exclude(retired_at=None).values_list("key_id", flat=True)
    if missing := sorted(set(left) - keys.ids - set(retired)):
        raise Conflict(
            f"{_named(missing)} needed to read {sum(left[one] for one in missing)} stored values and not in "
            "CONSOLE_MASTER_KEYS of this process. Add it back behind the active one, then begin again."
        )
    now = database_now()
    run = Resealing.objects.create(
        to_key=keys.active_id,
        total=sum(left.values()),
        started_by=actor.name[:200],
        started_at=now,
        heartbeat_at=now,
    )
    record(
        actor,
        action="master_key.resealing_started",
        object_type=KIND,
        object_id=keys.active_id,
        object_name=keys.active_id,
        before=left,
        after={"sealed_under": keys.active_id, "values": run.total},
    )
    if background:
        send("access.reseal", str(run.pk))
    return run


def resume_resealings() -> int:
    """Hand out runs whose worker has died; how many."""
    silent = Resealing.objects.filter(state=Resealing.RUNNING, heartbeat_at__lt=database_now() - SILENT_AFTER)
    for run in silent:
        send("access.reseal", str(run.pk))
    return len(silent)


def reseal(actor: Actor, *, run_id: Any, after_each: Callable[[], None] = lambda: None) -> Resealing:
    """Seal anew what is left of a run, row by row, and verify it. Any number of workers may do this at once.

    A value that does not open is left and told of by its key; the run then has failed, and may be begun again.
    """
    run = Resealing.objects.get(pk=run_id)
    if run.state != Resealing.RUNNING:
        return run
    keys = master_keys()
    if keys.active_id != run.to_key:
        raise ConfigurationRefused(
            f"This process seals under {keys.active_id!r}, the run is for {run.to_key!r}. Give every process the same "
            "CONSOLE_MASTER_KEYS and restart it; the run then goes on."
        )
    problems: list[str] = []
    for column in sealed_columns():
        last: Any = None
        while batch := list(_following(column, run.to_key, last)[:BATCH]):
            for row in batch:
                last = row.pk
                if problem := _reseal_row(column, row):
                    problems.append(problem)
                else:
                    run.done += 1
                after_each()
            Resealing.objects.filter(pk=run.pk).update(done=run.done, heartbeat_at=database_now())
    if not problems:
        problems = unreadable_values()
    return _end(actor, run, problems)


def unreadable_values() -> list[str]:
    """Every value is opened: why those that are not under the active key, or do not open, are not. The proof of a run."""
    keys = master_keys()
    found = []
    for column in sealed_columns():
        for row in column.rows.order_by("pk").iterator(chunk_size=500):
            sealed = getattr(row, column.field)
            try:
                keys.open(sealed, identity=column.identity(row))
            except ConfigurationRefused as refused:
                found.append(f"{row._meta.verbose_name} {row.pk}: {refused.message}")
                continue
            if not sealed.startswith(f"v1.{keys.active_id}."):
                found.append(f"{row._meta.verbose_name} {row.pk} is sealed under another key.")
    return found


@transaction.atomic
def retire_master_key(
    actor: Actor, *, key_id: str, reason: str = "", lost: bool = False
) -> MasterKeyVerifier:
    """Declare that a master key is needed no longer: processes start without it from then on.

    ``lost``: although values are sealed under it, which nobody can read any more. They stay as they are, and open again should the
    key be found.
    """
    stored = MasterKeyVerifier.objects.select_for_update().filter(key_id=key_id).first()
    if stored is None:
        raise Conflict(f"There is no master key {key_id!r}.")
    if stored.retired_at is not None:
        raise Conflict(f"The master key {key_id!r} is retired already.")
    if key_id == master_keys().active_id:
        raise Conflict(
            f"{key_id!r} is the key that seals now. Put another one before it in CONSOLE_MASTER_KEYS first."
        )
    left = values_by_key().get(key_id, 0)
    if lost and _opens(stored):
        raise Conflict(
            f"The master key {key_id!r} is not lost: it is in CONSOLE_MASTER_KEYS, and opens what it sealed."
        )
    if left and not lost:
        raise Conflict(
            f"{left} stored {'value is' if left == 1 else 'values are'} sealed under {key_id!r} still. Seal everything anew first."
        )
    stored.retired_at = timezone.now()
    stored.save(update_fields=["retired_at"])
    record(
        actor,
        action="master_key.retired",
        object_type=KIND,
        object_id=key_id,
        object_name=key_id,
        before={"retired": False},
        after={"retired": True, **({"lost_values": left} if lost else {})},
        reason=reason,
    )
    return stored


def _opens(stored: MasterKeyVerifier) -> bool:
    try:
        master_keys().open(stored.sealed, identity=f"base.master_key:{stored.key_id}")
    except ConfigurationRefused:
        return False
    return True


def _following(column: SealedColumn, key_id: str, last: Any) -> Any:
    rows = column.not_under(key_id)
    return rows if last is None else rows.filter(pk__gt=last)


def _reseal_row(column: SealedColumn, row: Any) -> str:
    keys, identity, before = master_keys(), column.identity(row), getattr(row, column.field)
    try:
        after = keys.seal(keys.open(before, identity=identity), identity=identity)
    except ConfigurationRefused as refused:
        return f"{row._meta.verbose_name} {row.pk}: {refused.message}"
    # Somebody may have put another value there meanwhile, or wiped it: then there is nothing to do.
    compare_and_set(row, expect={column.field: before}, change={column.field: after})
    return ""


@transaction.atomic
def _end(actor: Actor, run: Resealing, problems: list[str]) -> Resealing:
    state = Resealing.FAILED if problems else Resealing.DONE
    message = (
        f"{len(problems)} {'value was' if len(problems) == 1 else 'values were'} left. {problems[0]}"
        if problems
        else f"Every stored value opens with {run.to_key!r} alone."
    )
    ended = compare_and_set(
        run,
        expect={"state": Resealing.RUNNING},
        change={
            "state": state,
            "message": message[:500],
            "done": run.done,
            "finished_at": database_now(),
        },
    )
    if not ended:
        run.refresh_from_db()
        return run
    # Data planes read the values as they are now, so that nobody finds out at the next restart.
    touch(LIVE_STATE)
    record(
        actor,
        action="master_key.resealing_ended",
        object_type=KIND,
        object_id=run.to_key,
        object_name=run.to_key,
        after={"state": state, "values": run.done, "message": message},
    )
    return run


def _named(ids: list[str]) -> str:
    names = ", ".join(repr(one) for one in ids)
    return f"The master key {names} is" if len(ids) == 1 else f"The master keys {names} are"
