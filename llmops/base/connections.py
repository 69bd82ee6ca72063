"""Starting over after the database was away."""

from __future__ import annotations

from contextlib import suppress

from django.db import connection


def forget() -> None:
    """Drop this thread's connection and the process's pool, so that the next query connects anew at once.

    A pool that lost its server tries again at growing intervals, up to a minute apart; a new one tries immediately.
    For processes in which one thread uses the database.
    """
    with suppress(Exception):
        connection.close()
    close_pool = getattr(connection, "close_pool", None)
    if close_pool is not None:
        with suppress(Exception):
            close_pool()
