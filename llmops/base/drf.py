"""The ground of every API: one error body, one way to page."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied as DjangoPermissionDenied
from django.db.models import QuerySet
from django.http import Http404
from rest_framework import exceptions, serializers, viewsets
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response

from llmops.base.authority import authority
from llmops.base.refusals import as_console_error
from llmops.base.requests import actor_of
from llmops.core.actors import Actor
from llmops.core.errors import AuthenticationFailed, ConsoleError, InvalidRequest, NotFound, PermissionDenied
from llmops.core.redaction import redact_text


class NewestFirst(CursorPagination):
    """Keyset pages: cost is bounded by the page, not by how deep one goes."""

    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500
    ordering: str | tuple[str, ...] = "-id"


def error_body(error: ConsoleError) -> dict[str, Any]:
    return {
        "error": {
            "code": error.code,
            "message": redact_text(error.message),
            "param": error.param,
            "retryable": error.retryable,
            **({"data": error.data} if error.data else {}),
        }
    }


def render_error(raised: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: every error leaves with the body of ``error_body`` and its own status."""
    error = _as_console_error(raised)
    if error is None:
        return None
    response = Response(error_body(error), status=error.status)
    if error.retry_after is not None:
        response["Retry-After"] = str(max(1, round(error.retry_after)))
    if error.status == 401:
        response["WWW-Authenticate"] = 'Bearer realm="llmops"'
    return response


def _as_console_error(raised: Exception) -> ConsoleError | None:
    if isinstance(raised, Http404 | exceptions.NotFound):
        return NotFound("There is no such object here, or it is not yours to see.")
    if isinstance(raised, DjangoPermissionDenied):
        return PermissionDenied("You may not do this here.")
    if isinstance(raised, exceptions.ValidationError):
        return _invalid(raised.detail if isinstance(raised.detail, dict) else {"": raised.detail})
    if isinstance(raised, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        return AuthenticationFailed('Send an API key as "Authorization: Bearer ...", or sign in.')
    if isinstance(raised, exceptions.APIException):
        error = ConsoleError(str(raised.detail), code=str(raised.default_code))
        error.status = raised.status_code  # type: ignore[misc]
        return error
    return as_console_error(raised)


def _invalid(detail: dict[str, Any]) -> InvalidRequest:
    problems = {
        "request" if field in ("", "non_field_errors") else field: _first_text(value)
        for field, value in detail.items()
    }
    field, message = next(iter(problems.items()))
    return InvalidRequest(
        f"{field}: {message}", param=None if field == "request" else field, data={"problems": problems}
    )


def _first_text(value: Any) -> str:
    while isinstance(value, list | tuple | dict) and value:
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return str(value)


class ConsoleViewSet(viewsets.GenericViewSet[Any]):
    """The ground of every resource: rows that whoever asks may see; anything else is a 404.

    A view declares ``permission_map`` (action -> permission; what is not declared is refused) and ``project_path``, the
    path to a row's project (``"project"``, ``"budget__project"``, ``"pk"`` for projects, None where rows belong to the
    organisation). Changes are plain methods that decode with a serializer, call one service with ``self.actor`` and
    encode with ``self.answer``.
    """

    permission_map: dict[str, str] = {}
    project_path: str | None = "project"
    #: True: also looking takes the permission in the whole organisation.
    organisation_only = False
    pagination_class = NewestFirst

    @property
    def actor(self) -> Actor:
        return actor_of(self.request)

    def get_queryset(self) -> QuerySet[Any]:
        """Rows visible through the permission of this action, or through the one for looking."""
        looked = [self.permission_map.get(name) for name in (self.action, "retrieve", "list")]
        permissions = list(dict.fromkeys(name for name in looked if name))
        if getattr(self, "swagger_fake_view", False):
            return super().get_queryset().none()
        return authority().visible(
            super().get_queryset(), self.request, permissions, project=self.project_path
        )

    def decoded(
        self, serializer_class: type[serializers.BaseSerializer[Any]] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Validated values of the request's body; raises what names the field, also for fields that do not exist."""
        build = self.get_serializer if serializer_class is None else serializer_class
        kwargs.setdefault("context", self.get_serializer_context())
        serializer: Any = build(data=self.request.data, **kwargs)
        serializer.is_valid(raise_exception=True)
        for name in self.request.data:
            if name not in serializer.fields:
                known = ", ".join(key for key, field in serializer.fields.items() if not field.read_only)
                raise InvalidRequest(f"There is no field {name!r} here. Fields are {known}.", param=name)
        return dict(serializer.validated_data)

    def answer(self, row: Any, *, status: int = 200) -> Response:
        return Response(self.get_serializer(row).data, status=status)

    def check_may(self, permission: str, project: Any) -> None:
        """Refuse what whoever asks may not do in ``project`` (None: the whole organisation). For rows not yet made."""
        if not authority().may(self.request, permission, project):
            where = f"in the project {project.slug}" if project is not None else "for the whole organisation"
            raise PermissionDenied(f"You may not do this {where}.", param="project")

    def check_still(self, permission: str, project_id: Any) -> None:
        """Refuse who has lost ``permission`` while they waited for this answer: a request reads what one may do only once."""
        if not authority().powers_of_actor(self.actor).allow(permission, project_id):
            raise PermissionDenied("You may not see this any more.")
