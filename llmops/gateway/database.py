"""A database connection of its own for each of the data plane's threads."""

from __future__ import annotations

from contextlib import suppress

from django.db import connection

#: A connection whose other side is gone without a word is given up after this long (PostgreSQL).
_SILENCE_MS = 10_000


def use_own_connection() -> None:
    """Take this thread's connection out of the process's pool.

    A pool that lost its server tries again at growing intervals; a thread that must notice at once when the database is
    back connects by itself.
    """
    settings = connection.settings_dict
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    if connection.vendor == "postgresql":
        options.setdefault("tcp_user_timeout", _SILENCE_MS)
    connection.settings_dict = {**settings, "OPTIONS": options}


def drop_connection() -> None:
    """Close this thread's connection; the next query makes a new one."""
    with suppress(Exception):
        connection.close()
