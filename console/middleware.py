"""Middleware of the control plane."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from csp.constants import HEADER
from csp.middleware import CSPMiddleware
from csp.utils import build_policy
from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch, get_script_prefix, reverse

from llmops.core.ids import uuid7
from llmops.core.logs import request_id as logged_request


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """The strict policy everywhere but in the admin and the API reference (see ``console.settings_look``).

    A response may bring the directives of another one as ``_csp_config``. Nothing of a policy is about a single request, so
    each is written out once.
    """

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        directives = getattr(response, "_csp_config", None) or _directives(request.path_info)
        response.headers.setdefault(HEADER, _written(tuple((name, *directives[name]) for name in directives)))
        return response


def _directives(path: str) -> dict[str, list[str]]:
    admin, api_docs = _places(settings.ROOT_URLCONF, get_script_prefix())
    if path.startswith(admin):
        return settings.ADMIN_CONTENT_SECURITY_POLICY
    if path in api_docs:
        return settings.API_DOCS_CONTENT_SECURITY_POLICY
    found: dict[str, list[str]] = settings.CONTENT_SECURITY_POLICY["DIRECTIVES"]
    return found


@cache
def _written(directives: tuple[tuple[str, ...], ...]) -> str:
    return build_policy({name: values for name, *values in directives})


@cache
def _places(urlconf: str, prefix: str) -> tuple[str, frozenset[str]]:
    """Where the admin is, and each page of the API reference."""
    docs = set()
    for name in settings.API_DOCS_URL_NAMES:
        try:
            docs.add(reverse(name))
        except NoReverseMatch:
            continue
    return reverse("admin:index"), frozenset(docs)


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
