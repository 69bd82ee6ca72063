"""What whoever opens the first page of a new process would wait for, done beside its start."""

from __future__ import annotations

import logging
import threading

from django.db import connection

from llmops.serving.selectors import pending_note

log = logging.getLogger(__name__)


def begin() -> threading.Thread:
    """Compile what is configured once: reading thousands of versions of prompts takes about a second, and each look after it a
    fraction, since a process keeps what did not change (``serving.pieces``)."""
    thread = threading.Thread(target=_compile, name="warm-configuration", daemon=True)
    thread.start()
    return thread


def _compile() -> None:
    try:
        pending_note()
    except Exception as failed:
        # Whoever looks next is told what is wrong, in words.
        log.info("what is configured could not be compiled beforehand: %s", type(failed).__name__)
    finally:
        connection.close()
