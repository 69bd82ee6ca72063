"""Where sealed values are kept, so that all of them can be sealed anew: a line for each column in ``settings.SEALED``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db.models import Count, F, Value
from django.db.models.functions import StrIndex, Substr
from django.utils.module_loading import import_string


@dataclass(frozen=True)
class SealedColumn:
    """``model`` is ``app.Model``; ``identity`` gives what a row's value is bound to. An empty value is none."""

    model: str
    field: str
    identity: Callable[[Any], str]

    @property
    def rows(self) -> Any:
        return apps.get_model(self.model)._base_manager.exclude(**{self.field: ""})

    def not_under(self, key_id: str) -> Any:
        """Rows whose value is sealed under another key."""
        return self.rows.exclude(**{f"{self.field}__startswith": f"v1.{key_id}."}).order_by("pk")

    def by_key(self) -> dict[str, int]:
        """Key id -> how many values are sealed under it."""
        rest = Substr(F(self.field), 4)
        of_key = self.rows.annotate(sealed_rest=rest).annotate(
            key_id=Substr("sealed_rest", 1, StrIndex("sealed_rest", Value(".")) - 1)
        )
        return dict(of_key.order_by().values_list("key_id").annotate(number=Count("pk")))


def sealed_columns() -> Iterator[SealedColumn]:
    for name in settings.SEALED:
        yield import_string(name)


def values_by_key() -> dict[str, int]:
    """Key id -> how many values of this installation are sealed under it."""
    found: dict[str, int] = {}
    for column in sealed_columns():
        for key_id, number in column.by_key().items():
            found[key_id] = found.get(key_id, 0) + number
    return found
