"""Middleware of the control plane."""

from __future__ import annotations

from csp.middleware import CSPMiddleware

from llmops.core.ids import uuid7

ContentSecurityPolicyMiddleware = CSPMiddleware


class RequestIdMiddleware:
    """Give every request an id, taken from ``x-request-id`` when it is plain, and answer with it."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        given = request.headers.get("x-request-id", "")
        request.request_id = (
            given if 0 < len(given) <= 64 and given.replace("-", "").isalnum() else f"req_{uuid7().hex}"
        )
        response = self.get_response(request)
        response["x-request-id"] = request.request_id
        return response
