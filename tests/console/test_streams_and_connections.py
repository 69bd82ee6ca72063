"""What an open stream keeps of the database: nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import RequestFactory

from console.middleware import HandBackConnectionMiddleware


def holds_after(make: Callable[[], HttpResponseBase]) -> bool:
    """Whether the thread of a request that asked the database has a connection once its answer begins."""

    def view(request: HttpRequest) -> HttpResponseBase:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return make()

    def handled() -> bool:
        try:
            HandBackConnectionMiddleware(view)(RequestFactory().get("/"))
            return connection.connection is not None
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(handled).result()


@pytest.mark.django_db
def test_a_stream_that_is_open_holds_no_connection() -> None:
    # SQLite's has nothing that others wait for, and one in memory is never closed.
    assert not holds_after(lambda: StreamingHttpResponse([b"one"])) or connection.vendor == "sqlite"
    assert holds_after(lambda: HttpResponse(b"one")), "others close theirs when they are sent"


@pytest.mark.django_db
def test_a_transaction_that_is_open_keeps_its_connection() -> None:
    HandBackConnectionMiddleware(lambda request: StreamingHttpResponse([b"one"]))(RequestFactory().get("/"))
    assert connection.in_atomic_block and connection.connection is not None
