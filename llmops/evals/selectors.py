"""Which datasets somebody may see, and what stands in them without their texts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from llmops.access.selectors import projects_for
from llmops.core.errors import NotFound
from llmops.evals.models import Case, Dataset
from llmops.evals.services import keeping

VIEW, MANAGE = "dataset.view", "dataset.manage"
MOST_SHOWN = 500


@dataclass(frozen=True, slots=True)
class CaseRow:
    """``until``: how long what was copied of the call is kept; None when it is gone."""

    case: Case
    until: datetime | None


def datasets_of(who: Any, permission: str = VIEW) -> QuerySet[Dataset]:
    return Dataset.objects.filter(project__in=projects_for(who, permission)).select_related("project")


def dataset_of(who: Any, dataset_id: UUID, permission: str = VIEW) -> Dataset:
    """Raises ``NotFound``, also for one of a project that ``who`` may not see."""
    found = datasets_of(who, permission).filter(pk=dataset_id).first()
    if found is None:
        raise NotFound("dataset: there is no such dataset of yours.", param="dataset")
    return found


def cases_of(dataset: Dataset) -> list[CaseRow]:
    """The latest first."""
    days = keeping().filter(pk=dataset.project_id).values_list("keep_texts_days", flat=True).first()
    rows = dataset.cases.select_related("text").order_by("-n")[:MOST_SHOWN]
    return [
        CaseRow(
            case,
            case.text.started_at + timedelta(days=days)
            if days is not None and hasattr(case, "text")
            else None,
        )
        for case in rows
    ]
