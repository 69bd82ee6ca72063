"""Middleware of the control plane."""

from __future__ import annotations

import re
from collections.abc import Callable

from csp.middleware import CSPMiddleware, PolicyParts
from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, reverse

from llmops.core.ids import uuid7
from llmops.core.logs import request_id as logged_request


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """The strict policy everywhere but in the admin and the API reference (see ``console.settings_look``)."""

    def get_policy_parts(
        self, request: HttpRequest, response: HttpResponseBase, report_only: bool = False
    ) -> PolicyParts:
        parts = super().get_policy_parts(request, response, report_only)
        if parts.config is None and not report_only:
            if request.path_info.startswith(reverse("admin:index")):
                parts.config = settings.ADMIN_CONTENT_SECURITY_POLICY
            elif request.path_info in _api_docs():
                parts.config = settings.API_DOCS_CONTENT_SECURITY_POLICY
        return parts


def _api_docs() -> set[str]:
    found = set()
    for name in settings.API_DOCS_URL_NAMES:
        try:
            found.add(reverse(name))
        except NoReverseMatch:
            continue
    return found


class RequestIdMiddleware:
    """Give every request an id, taken from ``x-request-id`` when it is plain, and answer with it."""

    _plain = re.compile(r"[A-Za-z0-9_.:-]{1,64}")

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.headers.get("x-request-id", "")
        request_id = given if self._plain.fullmatch(given) else f"req_{uuid7().hex}"
        request.request_id = request_id  # type: ignore[attr-defined]
        token = logged_request.set(request_id)
        try:
            response = self.get_response(request)
        finally:
            logged_request.reset(token)
        response["x-request-id"] = request_id
        return response


class HandBackConnectionMiddleware:
    """An answer that is still being sent holds no database connection.

    Otherwise each stream that is open keeps one of the pool's for as long as it lasts, and ten onlookers are enough for nobody else
    to get one. What a stream asks the database while it lasts, it asks on a connection that it then takes. Stands outside of
    all that may ask something after the view.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if response.streaming and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        return response
