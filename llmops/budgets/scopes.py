"""Which budgets a call touches. Pure: the data plane decides this in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

_B = TypeVar("_B")

ORGANISATION, PROJECT, KEY, FEATURE, ROUTE, USER, TAG = (
    "organisation",
    "project",
    "key",
    "feature",
    "route",
    "user",
    "tag",
)
SCOPE_KINDS = [
    (ORGANISATION, "Organisation"),
    (PROJECT, "Project"),
    (KEY, "Service key"),
    (FEATURE, "Feature"),
    (ROUTE, "Route"),
    (USER, "End user"),
    (TAG, "Tag"),
]


def scope_pairs(
    *, project: str, key: str, route: str, feature: str = "", user: str = "", tags: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Every ``(scope kind, value)`` that a call with these attributes belongs to; empty attributes match nothing."""
    pairs = [(ORGANISATION, ""), (PROJECT, project), (KEY, key), (ROUTE, route)]
    if feature:
        pairs.append((FEATURE, feature))
    if user:
        pairs.append((USER, user))
    pairs.extend((TAG, tag) for tag in tags)
    return pairs


def matching(index: Mapping[tuple[str, str], list[_B]], pairs: Iterable[tuple[str, str]]) -> list[_B]:
    """Budgets of ``index`` whose scope is among ``pairs``, in the order of the pairs."""
    return [budget for pair in pairs for budget in index.get(pair, ())]
