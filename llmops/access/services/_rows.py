"""What the services of this room share: reading a row for change, and showing it to the trail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from django.db.models import Model

from llmops.core.errors import Conflict, InvalidRequest

_M = TypeVar("_M", bound=Model)
_HIGHEST_LIMIT = 2**31 - 1


def locked(row: _M) -> _M:
    """``row`` as stored, locked until the transaction ends."""
    # Not type(row): request.user is a lazy object around a user.
    found: Any = row._meta.model._base_manager.select_for_update(of=("self",)).filter(pk=row.pk).first()
    if found is None:
        raise Conflict(f"This {row._meta.verbose_name} no longer exists.")
    return cast("_M", found)


def seen(row: Model, fields: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in fields}


def check_limits(row: Model) -> None:
    """The bound of ``rpm``, ``tpm`` and ``concurrency`` that both databases hold; SQLite alone would take more."""
    for name in ("rpm", "tpm", "concurrency"):
        value = getattr(row, name)
        if isinstance(value, int) and value > _HIGHEST_LIMIT:
            raise InvalidRequest(
                f"{name} is at most {_HIGHEST_LIMIT}; leave it empty for no limit.", param=name
            )


def apply(row: Model, changes: Mapping[str, Any], *, allowed: Sequence[str]) -> None:
    """Set ``changes`` on ``row``; refuses fields that this service does not change."""
    for name, value in changes.items():
        if name not in allowed:
            raise InvalidRequest(f"{name} cannot be changed. What can: {', '.join(allowed)}.", param=name)
        setattr(row, name, value)
