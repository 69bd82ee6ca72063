"""Logs: one line an event on standard error, for people or (``CONSOLE_LOG_FORMAT=json``) for machines."""

from __future__ import annotations

import os

from django.core.exceptions import ImproperlyConfigured

from llmops.core.logs import without_traceback

LOG_FORMATS = ("line", "json")
LOG_FORMAT = os.environ.get("CONSOLE_LOG_FORMAT", "line")
if LOG_FORMAT not in LOG_FORMATS:
    raise ImproperlyConfigured(
        f"CONSOLE_LOG_FORMAT is {LOG_FORMAT!r}. Set it to {' or '.join(LOG_FORMATS)}, or unset it."
    )

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "llmops.core.logs.LineFormatter",
            "format": "{asctime} {levelname} {name} {message}",
            "style": "{",
        },
        "json": {"()": "llmops.core.logs.JsonFormatter"},
    },
    "filters": {"refused": {"()": "django.utils.log.CallbackFilter", "callback": without_traceback}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "loggers": {
        # Scanners send host names of all kinds; each would leave a traceback.
        "django.security.DisallowedHost": {"handlers": [], "propagate": False},
        "django.request": {"filters": ["refused"]},
        # A broker of files has no host name, which each process that sends would be warned of.
        "kombu.connection": {"level": "ERROR"},
        # Four lines a sign-in that went well, which the audit trail tells of.
        "axes": {"level": "WARNING"},
        # One line for every task of the schedule would bury the rest.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
