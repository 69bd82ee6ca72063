"""Targets that data planes leave alone."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.access.models import Project
from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind
from llmops.providers.models import OpenBreaker
from llmops.providers.selectors import open_breakers


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    found: dict[tuple[str, str, str], list[OpenBreaker]] = {}
    for one in open_breakers():
        found.setdefault((one.route, one.model, one.project), []).append(one)
    projects = dict(
        Project.objects.filter(slug__in=[slug for *_, slug in found if slug]).values_list("slug", "pk")
    )
    for (route, model, project), rows in sorted(found.items()):
        since = min(row.since for row in rows)
        where = f" of route {route}" if route else ""
        yield Finding(
            subject=f"target:{route}/{model}" + (f"/{project}" if project else ""),
            title=f"A breaker is open: {model}{where}" + (f" for {project}" if project else ""),
            says=f"{len(rows)} {'data plane leaves' if len(rows) == 1 else 'data planes leave'} it alone since "
            f"{since:%Y-%m-%d %H:%M:%S} UTC: {rows[0].why}"[:480],
            value=float(len(rows)),
            bound=1.0,
            project_id=projects.get(project),
            facts={name: value for name, value in (("route", route), ("model", model), ("status", "failed")) if value},
        )  # fmt: skip


KIND = Kind(
    name="breaker_open",
    title="A breaker is open",
    says="Targets of routes that data planes leave alone because they failed too often.",
    look=_look,
    runbook="degraded-provider",
)
