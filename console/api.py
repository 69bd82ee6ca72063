"""``/api/v1``: one router, to which every app adds its resources.

``<app>/api.py`` offers ``register(router)``; an app is one line in ``APPS``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

from django.http import HttpRequest, JsonResponse
from django.urls import URLPattern, URLResolver, path, re_path
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.routers import SimpleRouter

from llmops.access.permissions import DeniesUnlessDeclared
from llmops.base.drf import error_body
from llmops.core.errors import ConsoleError, InvalidRequest, NotFound

APPS = (
    "llmops.access",
    "llmops.approvals",
    "llmops.audit",
    "llmops.providers",
    "llmops.policies",
    "llmops.prompts",
    "llmops.tools",
    "llmops.budgets",
    "llmops.usage",
    "llmops.serving",
    "llmops.alerts",
    "llmops.runs",
    "llmops.evals",
    "llmops.playground",
    "llmops.dashboards",
)


class _MadeOnce(SchemaGenerator):
    """The schema is that of the code and the same for everybody who may read it: made once a process, which takes a second."""

    made: ClassVar[Any] = None
    text: ClassVar[bytes | None] = None

    def get_schema(self, request: Any = None, public: bool = False) -> Any:
        if _MadeOnce.made is None:
            # Not as the first to ask would have it called (``?version=``).
            self.api_version = None
            _MadeOnce.made = super().get_schema(request, public)
        return _MadeOnce.made


class _RenderedOnce:
    def render(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        # A refusal is rendered here as well.
        if data is not _MadeOnce.made:
            return super().render(data, *args, **kwargs)  # type: ignore[misc]
        if _MadeOnce.text is None:
            _MadeOnce.text = super().render(data, *args, **kwargs)  # type: ignore[misc]
        return _MadeOnce.text


class _Json(_RenderedOnce, OpenApiJsonRenderer):
    pass


class _Json2(_RenderedOnce, OpenApiJsonRenderer2):
    pass


# drf-spectacular opens its views to everybody unless told otherwise.
class Schema(SpectacularAPIView):
    generator_class = _MadeOnce
    permission_classes = (DeniesUnlessDeclared,)
    renderer_classes = [_Json, _Json2]
    permission_map = {"get": "project.view"}


class Docs(SpectacularSwaggerView):
    permission_classes = (DeniesUnlessDeclared,)
    permission_map = {"get": "project.view"}


# It changes nothing, and a caller with a key has no form whose token could be missing.
@csrf_exempt
def no_such_address(request: HttpRequest, **_: object) -> JsonResponse:
    """404 below ``/api/`` in the API's own words, whatever the method."""
    hint = "" if request.path_info.endswith("/") else " Its addresses end with a slash."
    return JsonResponse(
        error_body(NotFound(f"There is no such address in this API.{hint} Those there are: /api/v1/schema/")),
        status=404,
    )


def bad_address(request: HttpRequest) -> JsonResponse:
    """400 below ``/api/`` for an address that cannot name anything."""
    return JsonResponse(error_body(InvalidRequest("The address holds a NUL character.")), status=400)


def failed(request: HttpRequest) -> JsonResponse:
    """500 below ``/api/``: nothing of the fault is told, the request id leads to it in the log."""
    request_id = getattr(request, "request_id", "")
    return JsonResponse(
        error_body(ConsoleError(f"The console failed to answer. The log has this request as {request_id}.")),
        status=500,
    )


def build_router() -> SimpleRouter:
    router = SimpleRouter()
    for app in APPS:
        if find_spec(f"{app}.api") is not None:
            import_module(f"{app}.api").register(router)
    return router


def urlpatterns() -> list[URLPattern | URLResolver]:
    return [
        path("schema/", Schema.as_view(), name="api-schema"),
        path("docs/", Docs.as_view(url_name="api-schema"), name="api-docs"),
        *build_router().urls,
        re_path(r"", no_such_address),
    ]
