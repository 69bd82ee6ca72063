"""The rules at the API's door. Every view is closed until it declares what opens it."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission

from llmops.access.models import Project
from llmops.access.selectors import may, may_anywhere, projects_for, visible
from llmops.base.authority import project_of

__all__ = ["DeniesUnlessDeclared", "HasPermission", "may", "may_anywhere", "visible", "visible_projects"]


class HasPermission(BasePermission):
    """Reads ``permission_map`` of the view: action (or lower-case method, for plain views) -> permission.

    The request as a whole needs the permission somewhere; an object needs it in its own project, found along the view's
    ``project_path`` (``None``: an object of the organisation, for which an organisation-wide role is needed, unless the
    permission only looks).
    """

    message = "You may not do this here."

    def has_permission(self, request: Any, view: Any) -> bool:
        if request.user is None or not request.user.is_authenticated:
            return False
        permission = required_permission(view, request)
        if permission is None:
            return False
        if getattr(view, "organisation_only", False):
            return may(request, permission, None)
        return may_anywhere(request, permission)

    def has_object_permission(self, request: Any, view: Any, obj: Any) -> bool:
        permission = required_permission(view, request)
        if permission is None:
            return False
        path = getattr(view, "project_path", "project")
        if path is None and permission.endswith(".view") and not getattr(view, "organisation_only", False):
            return may_anywhere(request, permission)
        return may(request, permission, project_of(obj, path))


class DeniesUnlessDeclared(HasPermission):
    """The default of the whole API: a view that declares no ``permission_map`` answers 403 to everybody."""

    message = "This address is closed: nothing declares who may use it."

    def has_permission(self, request: Any, view: Any) -> bool:
        if getattr(view, "permission_map", None):
            self.message = HasPermission.message
        return super().has_permission(request, view)


def required_permission(view: Any, request: Any) -> str | None:
    """The permission that this request needs, or None where nothing is declared for it."""
    declared: dict[str, str] = getattr(view, "permission_map", None) or {}
    if not hasattr(view, "action"):
        return declared.get(request.method.lower())
    if view.action is None:
        raise MethodNotAllowed(request.method)
    return declared.get(view.action)


def visible_projects(request: Any, permission: str = "project.view") -> QuerySet[Project]:
    """Projects that whoever is behind ``request`` may see."""
    return projects_for(request, permission)
