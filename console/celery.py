"""The Celery application: ``celery -A console worker``."""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from celery.signals import setup_logging

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

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
