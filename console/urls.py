"""Every address of the control plane."""

from __future__ import annotations

import sys
from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import include, path
from django.views import defaults

from console import api
from llmops.base.refusals import took_too_long
from llmops.tools.mcp.view import endpoint

urlpatterns: list[Any] = [
    path("admin/", admin.site.urls),
    path("api/v1/", include(api.urlpatterns())),
    path("api/", api.no_such_address),
    path("api/<path:rest>", api.no_such_address),
    # Clients are given the address by hand; one that ends otherwise is the same.
    path("mcp/", endpoint, name="mcp"),
    path("mcp", endpoint),
    path("account/", include("llmops.access.urls")),
    path("alerts/", include("llmops.alerts.urls")),
    path("datasets/", include("llmops.evals.urls")),
    path("playground/", include("llmops.playground.urls")),
    path("", include("llmops.dashboards.urls")),
]


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if request.path_info.startswith("/api/"):
        return api.no_such_address(request)
    return defaults.page_not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if request.path_info.startswith("/api/"):
        return api.failed(request)
    if took_too_long(sys.exception()):
        return render(request, "503.html", status=503)
    return defaults.server_error(request)


handler404 = "console.urls.not_found"
handler500 = "console.urls.server_error"
