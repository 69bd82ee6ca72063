"""Handing work to a Celery worker, from any app and any process."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

log = logging.getLogger(__name__)


def send(task: str, *arguments: Any) -> None:
    """Send the task of this name once the present transaction is committed.

    The broker may be away: then this is logged, and whoever looks after the work's state (a schedule) hands it out
    again. Celery is imported here and not before, because processes that send nothing need not load it.
    """

    def deliver() -> None:
        try:
            import_string(settings.TASK_APP).send_task(task, args=list(arguments), retry=False)
        except Exception:
            log.exception("The task %s could not be handed to a worker; it will be tried again", task)

    transaction.on_commit(deliver)
