"""What a reader may see of a dashboard, as a value: readers of one scope who ask for the same see the same, made once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from llmops.access.selectors import may, may_anywhere, projects_for
from llmops.dashboards.filters import Filters
from llmops.usage.selectors.boards import Narrowed


@dataclass(frozen=True, slots=True)
class Scope:
    """``projects`` are ids and slugs of those whose usage may be seen, ``everywhere`` that it is all of them, also deleted ones.
    The others say what else may be looked at, and so be named and linked to."""

    projects: tuple[tuple[UUID, str], ...]
    everywhere: bool
    providers: bool
    routes: bool
    revisions: bool
    keys: bool
    audit: bool

    @classmethod
    def of(cls, who: Any) -> Scope:
        """``who`` is a request or a user."""
        rows = projects_for(who, "usage.view").filter(archived_at=None).order_by("slug")
        return cls(
            projects=tuple(rows.values_list("pk", "slug")),
            everywhere=may(who, "usage.view"),
            providers=may(who, "provider.view"),
            routes=may_anywhere(who, "route.view"),
            revisions=may_anywhere(who, "revision.view"),
            keys=may(who, "service_key.view"),
            audit=may(who, "audit.view"),
        )

    @property
    def nothing(self) -> bool:
        return not (self.everywhere or self.projects)

    def project_ids(self, chosen: UUID | None = None) -> Collection[UUID] | None:
        """What to narrow figures to; None is everything. A project that may not be seen narrows to nothing."""
        if chosen is None:
            return None if self.everywhere else [pk for pk, _ in self.projects]
        if self.everywhere or any(pk == chosen for pk, _ in self.projects):
            return [chosen]
        return []

    def narrowed(self, filters: Filters) -> Narrowed:
        return Narrowed(
            project_ids=self.project_ids(filters.project),
            key_id=filters.key,
            route=filters.route,
            model=filters.model,
            feature=filters.feature,
        )
