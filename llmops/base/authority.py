"""Who may do what, as the ground sees it.

The rules live above (``access``); ``settings.AUTHORITY`` names the module that answers, so that admin and API bases can
ask without importing upwards. Everybody else imports ``llmops.access.permissions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol, TypeVar, cast

from django.conf import settings
from django.db.models import Model, QuerySet

from llmops.core.actors import Actor

_M = TypeVar("_M", bound=Model)


class Authority(Protocol):
    """``who`` is a request, a user or a service key; ``project`` is a project, or None for the whole organisation."""

    def may(self, who: Any, permission: str, project: Any = None) -> bool: ...

    def powers_of_actor(self, actor: Actor) -> Any: ...

    def may_anywhere(self, who: Any, permission: str) -> bool: ...

    def visible(
        self, queryset: QuerySet[_M], who: Any, permissions: str | Sequence[str], *, project: str | None
    ) -> QuerySet[_M]: ...


@cache
def _named(module: str) -> Any:
    return import_module(module)


def authority() -> Authority:
    return cast(Authority, _named(settings.AUTHORITY))


def project_of(row: Model, path: str | None) -> Any:
    """The project of ``row`` found along ``path`` (``"budget__project"``); ``"pk"`` says that it is one itself.

    None: the row belongs to the organisation.
    """
    if path is None:
        return None
    if path == "pk":
        return row
    found: Any = row
    for step in path.split("__"):
        found = getattr(found, step)
        if found is None:
            return None
    return found
