"""Compare-and-set on a row: work is claimed, and states move, by one conditional UPDATE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import models

from llmops.core.errors import Conflict


def compare_and_set(row: models.Model, *, expect: dict[str, Any], change: dict[str, Any]) -> bool:
    """Write ``change`` if the stored row still has the values of ``expect``; a list or tuple admits any of its items.

    Returns whether this caller won. On success ``row`` carries the new values.
    """
    conditions = {
        f"{name}__in" if isinstance(value, list | tuple | set | frozenset) else name: value
        for name, value in expect.items()
    }
    won = type(row)._base_manager.filter(pk=row.pk, **conditions).update(**change) == 1
    if won:
        for name, value in change.items():
            if not hasattr(value, "resolve_expression"):
                setattr(row, name, value)
    return won


def move(
    row: models.Model, *, to: str, allowed_from: Iterable[str], field: str = "state", **change: Any
) -> None:
    """Move ``row`` to state ``to`` or raise ``Conflict`` that says where it stands now."""
    if compare_and_set(row, expect={field: tuple(allowed_from)}, change={field: to, **change}):
        return
    now = type(row)._base_manager.filter(pk=row.pk).values_list(field, flat=True).first()
    name = row._meta.verbose_name
    if now is None:
        raise Conflict(f"This {name} no longer exists.")
    raise Conflict(f"This {name} is {now!r} and cannot become {to!r}. Reload to see its present state.")
