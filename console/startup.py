"""Nothing starts half: what every serving process checks before it takes its first request."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import django
from django.core.exceptions import ImproperlyConfigured

from console.process import EXIT_REFUSED, collect_seldom, open_as_many_files_as_may_be


def set_up(*, data_plane: bool) -> None:
    """Set Django up and check the installation, or end the process with a sentence on standard error and status 3."""
    collect_seldom()
    if data_plane:
        open_as_many_files_as_may_be()
    try:
        django.setup()
        reason = _reason_to_refuse(data_plane=data_plane)
    except ImproperlyConfigured as error:
        reason = str(error)
    if reason:
        sys.stderr.write(f"Refused to start: {reason}\n")
        sys.stderr.flush()
        sys.exit(EXIT_REFUSED)


def _reason_to_refuse(*, data_plane: bool) -> str:
    """Why this process must not start, as a sentence that says what to do; empty when it may."""
    from django.db import DatabaseError, InterfaceError, connection

    from llmops.core.errors import ConfigurationRefused

    if reason := failed_checks():
        return reason
    try:
        if reason := _pending_migrations():
            return reason
        from llmops.base.master_keys import verify_master_keys

        verify_master_keys()
        if data_plane:
            from django.conf import settings

            return (
                _unusable_directory("journal", "CONSOLE_JOURNAL_DIR", settings.JOURNAL_DIR)
                or _unusable_directory("spool", "CONSOLE_SPOOL_DIR", settings.SPOOL_DIR)
                or (
                    ""
                    if settings.REDIS_URL
                    else _unusable_directory(
                        "idempotency", "CONSOLE_IDEMPOTENCY_DIR", settings.IDEMPOTENCY_DIR
                    )
                )
            )
    except ConfigurationRefused as refusal:
        return refusal.message
    except (DatabaseError, InterfaceError) as error:
        said = " ".join(str(error).split())
        return f"the database cannot be used ({said}). Check DATABASE_URL, and that the server runs and lets this account in."
    finally:
        connection.close()
    return ""


def failed_checks() -> str:
    """What the system checks found that nothing may start with, in sentences; empty when all is well."""
    from django.core.checks import ERROR, run_checks

    found = [message for message in run_checks() if message.level >= ERROR and not message.is_silenced()]
    return " ".join(f"{one.msg}{f' {one.hint}' if one.hint else ''}" for one in found)


def _pending_migrations() -> str:
    from llmops.base.pending_migrations import pending_migrations

    pending = pending_migrations()
    if not pending:
        return ""
    return f"{len(pending)} database migrations are pending (the first is {'.'.join(pending[0])}). Run: ./dev manage migrate"


def _unusable_directory(what: str, variable: str, directory: Path) -> str:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(b"x" * 4096)
    except OSError as error:
        return (
            f"the {what} directory {directory} cannot be written ({error.strerror}). Set {variable} to a "
            "directory on a local disk with free space that this process may write to."
        )
    return ""
