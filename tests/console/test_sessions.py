"""No session of PostgreSQL keeps its locks, or a query, for ever; who waited for a page is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection
from django.test import AsyncClient, Client
from django.urls import path

from console import urls
from console.sessions import session_options
from llmops.base.refusals import as_console_error, took_too_long
from llmops.core.errors import ServiceUnavailable

handler500 = "console.urls.server_error"


def _slow(request: Any) -> Any:
    if connection.vendor != "postgresql":
        raise OperationalError("canceling statement due to statement timeout") from _Cancelled()
    with session(statement_s=0.05) as other, other.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(30)")
    raise AssertionError("it was not given up")


def _broken(request: Any) -> Any:
    raise OperationalError("the connection is closed")


urlpatterns = [path("slow/", _slow), path("broken/", _broken), *urls.urlpatterns]


class _Cancelled(Exception):
    sqlstate = "57014"


@contextmanager
def session(*, idle_s: float = 0, statement_s: float = 0) -> Iterator[Any]:
    """A connection of its own to the database of the tests, bounded so."""
    other = connection.copy()
    options = session_options("", idle_s=idle_s, statement_s=statement_s)
    kept = {name: value for name, value in connection.settings_dict["OPTIONS"].items() if name != "pool"}
    other.settings_dict = {**connection.settings_dict, "OPTIONS": {**kept, "options": options}}
    try:
        yield other
    finally:
        other.close()


@pytest.mark.parametrize(
    ("given", "idle_s", "statement_s", "options"),
    [
        ("", 60.0, 0.0, "-c idle_in_transaction_session_timeout=60000"),
        (
            "",
            0.5,
            30.0,
            "-c idle_in_transaction_session_timeout=500 -c statement_timeout=30000",
        ),
        ("", 0.0, 0.0, ""),
        ("-c work_mem=8MB", 0.0, -1.0, "-c work_mem=8MB"),
        # The last one counts.
        ("-c statement_timeout=1", 0.0, 60.0, "-c statement_timeout=60000 -c statement_timeout=1"),
    ],
)
def test_what_a_session_is_opened_with(given: str, idle_s: float, statement_s: float, options: str) -> None:
    assert session_options(given, idle_s=idle_s, statement_s=statement_s) == options


@pytest.mark.django_db
def test_every_process_has_the_bound_and_those_of_pages_the_other_one() -> None:
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('statement_timeout')"
        )
        assert cursor.fetchone() == ("1min", "0")


@pytest.mark.django_db
def test_a_worker_that_was_stopped_within_a_transaction_does_not_keep_its_locks() -> None:
    if connection.vendor != "postgresql":
        return
    with session(idle_s=0.2) as stopped, session(statement_s=20) as other:
        stopped.set_autocommit(False)
        with stopped.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(4711), pg_advisory_xact_lock(4712)")
        with other.cursor() as cursor:
            began = time.monotonic()
            cursor.execute("SELECT pg_advisory_lock(4711), pg_advisory_xact_lock(4712)")
            assert time.monotonic() - began < 15
        with pytest.raises(DatabaseError, match="idle-in-transaction"), stopped.cursor() as cursor:
            cursor.execute("SELECT 1")


@pytest.mark.django_db
def test_a_query_that_takes_too_long_is_given_up_and_whoever_asked_is_told() -> None:
    with pytest.raises(OperationalError) as raised:
        _slow(None)
    error = as_console_error(raised.value)
    assert isinstance(error, ServiceUnavailable) and error.code == "took_too_long"
    assert "shorter time" in error.message
    assert not took_too_long(OperationalError("away")) and as_console_error(OperationalError("away")) is None


@pytest.mark.urls(__name__)
@pytest.mark.django_db
async def test_the_page_says_so() -> None:
    client = AsyncClient(raise_request_exception=False)
    slow, broken = await client.get("/slow/"), await client.get("/broken/")
    assert slow.status_code == 503 and "This took too long" in slow.content.decode()
    assert broken.status_code == 500 and "failed to answer" in broken.content.decode()


@pytest.mark.urls(__name__)
@pytest.mark.django_db
def test_the_page_says_so_without_a_loop_too() -> None:
    assert Client(raise_request_exception=False).get("/slow/").status_code == 503
