"""The Celery application: ``celery -A console worker``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
from celery.beat import EmbeddedService, PersistentScheduler
from celery.signals import setup_logging
from click import Option

from console import file_broker
from console.process import collect_seldom

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

collect_seldom()
file_broker.use()
app = Celery("console")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@setup_logging.connect
def _logs_as_everywhere(**_: object) -> None:
    """Django has set up logging already; without this receiver Celery would do it again in its own form."""


def _make_broker_directories() -> None:
    """The broker made of files (no ``REDIS_URL``) expects its directories to be there."""
    options = app.conf.broker_transport_options or {}
    for name, path in options.items():
        if name.endswith(("_in", "_out", "_folder")):
            Path(path).mkdir(parents=True, exist_ok=True, mode=0o700)


_make_broker_directories()


class Schedule(PersistentScheduler):
    """Celery's compares all of the schedule with what it was, each time beat wakes up; ours stands in the settings."""

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        return old_schedules is not None


class BeatInThread(bootsteps.StartStopStep):
    """``worker --with-beat``: the scheduler as a thread of the one worker; Celery's own ``-B`` forks a process of 90 MB."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, with_beat: bool = False, **options: Any) -> None:
        self.enabled = with_beat
        super().__init__(parent, **options)

    def include_if(self, parent: Any) -> bool:
        return self.enabled

    def create(self, parent: Any) -> Any:
        thread: Any = EmbeddedService(parent.app, thread=True, scheduler_cls=Schedule)
        # It sleeps so long at a time, also when it is asked to stop.
        thread.service.max_interval = file_broker.LOOK_S
        return thread


class Actions(bootsteps.StartStopStep):
    """What is approved begins at once in every worker, whatever its threads work on and however far behind the broker is."""

    requires = ("celery.worker.components:Pool",)

    def create(self, parent: Any) -> Any:
        # Django is set up by now, which it is not when this module is loaded.
        from llmops.tools.lane import Lane

        return Lane()


app.user_options["worker"].add(
    Option(["--with-beat"], is_flag=True, help="Run beat in a thread of this worker; exactly one worker may.")
)
app.steps["worker"].add(BeatInThread)
app.steps["worker"].add(Actions)
