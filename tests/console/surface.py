"""Every address and command of the console, read from the resolver, the admin's registry and Django's command list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from django.contrib import admin
from django.core.management import get_commands
from django.urls import URLPattern, URLResolver, get_resolver

CHANGING = ("POST", "PUT", "PATCH", "DELETE")
_ADMIN_PAGES = {"changelist", "add", "change", "delete", "history"}


def _walk(patterns: list[Any], prefix: str) -> Iterator[tuple[str, URLPattern]]:
    for pattern in patterns:
        whole = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern.url_patterns, whole)
        else:
            yield whole, pattern


def readable(route: str) -> str:
    """``/api/v1/projects/{slug}/`` for a route in either of Django's notations."""
    route = re.sub(r"\(\?P<(\w+)>(?:[^()]|\([^()]*\))*\)", r"{\1}", route)
    route = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route)
    return "/" + route.replace("^", "").replace("$", "").replace(r"\.", ".")


@cache
def patterns() -> tuple[tuple[str, URLPattern], ...]:
    return tuple((readable(route), pattern) for route, pattern in _walk(get_resolver().url_patterns, ""))


def api_routes() -> dict[str, str]:
    """``"POST /api/v1/projects/"`` -> action, for every method of every resource."""
    found = {}
    for route, pattern in patterns():
        for method, action in (getattr(pattern.callback, "actions", None) or {}).items():
            # DRF adds HEAD beside GET once a view was called.
            if method != "head":
                found[f"{method.upper()} {route}"] = action
    return found


def api_changes() -> set[str]:
    """Every method that may change something; ``changes.LOOKS`` says which do not."""
    return {key for key in api_routes() if key.split()[0] in CHANGING}


def model_admins() -> dict[str, Any]:
    """``"access/servicekey"`` -> its admin."""
    return {
        f"{model._meta.app_label}/{model._meta.model_name}": model_admin
        for model, model_admin in admin.site._registry.items()
    }


def admin_actions(model_admin: Any) -> set[str]:
    names = [*model_admin.actions_list, *model_admin.actions_detail, *model_admin.actions_row]
    return {action.path for action in map(model_admin.get_unfold_action, names)}


def admin_changes() -> set[str]:
    """``"POST /admin/access/project/{object_id}/archive/"`` for everything that an admin page offers to change."""
    found = set()
    for place, model_admin in model_admins().items():
        base = f"POST /admin/{place}/"
        offered = {"add": "create", "change": "update", "delete": "remove"}
        for page, operation in offered.items():
            if model_admin.offers(operation):
                found.add(base + ("add/" if page == "add" else f"{{object_id}}/{page}/"))
        detail = {action.path for action in model_admin._get_base_actions_detail()}
        for path in admin_actions(model_admin):
            found.add(f"{base}{{object_id}}/{path}/" if path in detail else f"{base}{path}/")
    return found


def admin_pages() -> set[str]:
    """Every address under ``/admin/<app>/<model>/`` that the resolver knows, without the old-style redirect."""
    return {
        route
        for route, pattern in patterns()
        if getattr(pattern.callback, "model_admin", None) is not None and pattern.name is not None
    }


def other_pages() -> set[str]:
    """Addresses that are neither an API resource nor a page of a model's admin."""
    known = {key.split()[1] for key in api_routes()} | admin_pages()
    return {route for route, _ in patterns() if route not in known}


def commands() -> set[str]:
    return set(get_commands())
