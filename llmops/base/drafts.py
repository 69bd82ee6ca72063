"""What every change to a draft shares: the lock against publishing, checking, and saying what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction

from llmops.base.locks import lock
from llmops.core.errors import Conflict, InvalidRequest
from llmops.core.texts import text_problem

#: Held shared while a draft changes and exclusively while it is compiled: what is published was all there at one moment.
DRAFT_LOCK = "providers.draft"

_M = TypeVar("_M", bound=models.Model)


def editing() -> None:
    """Take part in changing drafts until the transaction ends."""
    lock(DRAFT_LOCK, shared=True)


def locked(row: _M) -> _M:
    """The stored row, locked until the transaction ends. Raises ``Conflict`` when it is gone."""
    found = type(row)._base_manager.select_for_update().filter(pk=row.pk).first()
    if found is None:
        raise Conflict(f"This {row._meta.verbose_name} no longer exists.")
    return found


def checked(row: models.Model, *, lines: Iterable[str] = ()) -> None:
    """Raises ``InvalidRequest`` naming the first field that does not fit, with all of them in its data; ``Conflict``
    where the only thing wrong is a name that is taken. ``lines`` names the fields that may hold line breaks.
    """
    admitted = frozenset(lines)
    for field in row._meta.concrete_fields:
        if problem := text_problem(getattr(row, field.attname), lines=field.name in admitted):
            raise InvalidRequest(f"{field.name}: {problem}.", param=field.name)
    try:
        row.full_clean()
    except ValidationError as invalid:
        problems = {
            (name if name != NON_FIELD_ERRORS else "request"): messages[0]
            for name, messages in invalid.message_dict.items()
        }
        name, message = next(iter(problems.items()))
        codes = {error.code for errors in invalid.error_dict.values() for error in errors}
        kind = Conflict if codes <= {"unique", "unique_together"} else InvalidRequest
        raise kind(
            f"{name}: {message}",
            param=name if name != "request" else None,
            data={"problems": problems},
        ) from None


def inserted(row: models.Model) -> None:
    """Insert a checked row. Raises ``Conflict`` when somebody else has just taken its name."""
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        raise Conflict(
            f"This {row._meta.verbose_name} could not be added: somebody else has just added one of the same name."
        ) from None


def values(row: models.Model, names: Iterable[str]) -> dict[str, Any]:
    """The named fields as JSON-like values; a related object by its name."""
    found: dict[str, Any] = {}
    for name in names:
        value = getattr(row, name)
        found[name] = str(value) if isinstance(value, models.Model) else value
    return found


def assign(row: models.Model, changes: Mapping[str, Any], *, allowed: Iterable[str]) -> None:
    """Set the fields of ``changes``. Raises ``InvalidRequest`` naming a field that cannot be changed."""
    names = tuple(allowed)
    for name, value in changes.items():
        if name not in names:
            raise InvalidRequest(
                f"{name}: this cannot be changed. Fields that can be: {', '.join(names)}.", param=name
            )
        setattr(row, name, value)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members that differ, as they were and as they are."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}
