"""Handing work to a Celery worker, from any app and any process."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

log = logging.getLogger(__name__)

#: With no more messages than this before it, one that was sent so long ago and not acted upon is taken for lost.
_FEW, _LOST_AFTER = 50, timedelta(seconds=10)
#: With more before it, it may well be among them. Sent again and again it would only make them more.
_LOST_AFTER_ALL = timedelta(minutes=2)


#: As Redis and the broker made of files order them: 0 is taken first.
_BEHIND = 6


def send(task: str, *arguments: Any, behind: bool = False) -> None:
    """Send the task of this name once the present transaction is committed. ``behind``: after all that is sent without it.

    The broker may be away: then this is logged, and whoever looks after the work's state (a schedule) hands it out
    again. Celery is imported here and not before, because processes that send nothing need not load it.
    """

    def deliver() -> None:
        try:
            more = {"priority": _BEHIND} if behind else {}
            import_string(settings.TASK_APP).send_task(task, args=list(arguments), retry=False, **more)
        except Exception:
            log.exception("The task %s could not be handed to a worker; it will be tried again", task)

    transaction.on_commit(deliver)


def lost_after() -> timedelta:
    """How long after a message was sent those who look after its work take it for lost, as the broker stands now."""
    waiting = waiting_messages()
    return _LOST_AFTER_ALL if waiting is not None and waiting > _FEW else _LOST_AFTER


def waiting_messages() -> int | None:
    """Messages that no worker has fetched; None where the broker cannot be asked."""
    app = import_string(settings.TASK_APP)
    try:
        with app.connection_or_acquire() as connection, connection.channel() as channel:
            try:
                declared = channel.queue_declare(queue=app.conf.task_default_queue, passive=True)
            except connection.channel_errors:
                # Redis knows no queue that is empty.
                return 0
            return int(declared.message_count)
    except Exception:
        log.warning("The broker could not be asked how many messages wait", exc_info=True)
        return None
