"""What no page and no resource has to think of."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse

from console.api import bad_address


class NoNulMiddleware:
    """Refuse addresses that hold NUL: no name does, and PostgreSQL answers a query for one with an error."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
            if request.path_info.startswith("/api/"):
                return bad_address(request)
            raise BadRequest("The address holds a NUL character.")
        return self.get_response(request)
