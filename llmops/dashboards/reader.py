"""What the person behind a request may see: projects for figures, projects for budgets, links into the admin."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from django.contrib import admin
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from llmops.access.models import Project
from llmops.access.selectors import may, projects_for
from llmops.budgets.selectors import Gauge


@dataclass(frozen=True)
class Reader:
    """``projects`` are those whose usage may be seen; ``everywhere`` says that it is all of them, also deleted ones."""

    request: HttpRequest
    projects: tuple[Project, ...]
    everywhere: bool

    @classmethod
    def of(cls, request: HttpRequest) -> Reader:
        return cls(
            request,
            tuple(projects_for(request, "usage.view").filter(archived_at=None)),
            may(request, "usage.view"),
        )

    def project_ids(self, chosen: UUID | None = None) -> Collection[UUID] | None:
        """What to narrow figures to; None is everything. A project that may not be seen narrows to nothing."""
        if chosen is None:
            return None if self.everywhere else [project.pk for project in self.projects]
        if self.everywhere or any(project.pk == chosen for project in self.projects):
            return [chosen]
        return []

    def project_names(self) -> dict[UUID, str]:
        return {project.pk: project.slug for project in self.projects}

    def budget_project_ids(self) -> Collection[UUID] | None:
        if may(self.request, "budget.view"):
            return None
        return list(projects_for(self.request, "budget.view").values_list("pk", flat=True))

    def link(self, label: str, pk: object | None = None, *, action: str = "change") -> str:
        """Address of an object's admin page (without ``pk``: of the list), or empty where the reader may not go."""
        app_label, model_name = label.split(".")
        for model, model_admin in admin.site._registry.items():
            if model._meta.label_lower == label:
                allowed = (
                    model_admin.has_add_permission(self.request)
                    if action == "add"
                    else model_admin.has_view_permission(self.request)
                )
                break
        else:
            return ""
        if not allowed:
            return ""
        name = f"admin:{app_label}_{model_name}"
        try:
            if action == "add":
                return reverse(f"{name}_add")
            return reverse(f"{name}_change", args=[pk]) if pk is not None else reverse(f"{name}_changelist")
        except NoReverseMatch:
            return ""

    def sees_gauge(self, gauge: Gauge, chosen: UUID | None) -> bool:
        """With one project chosen, its own budgets and those of the whole organisation matter."""
        return chosen is None or gauge.project_id in (chosen, None)
