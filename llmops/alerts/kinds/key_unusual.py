"""Service keys that are used far more than usual: a loop, or somebody else has them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Sum

from llmops.access.models import ServiceKey
from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind, Setting, times
from llmops.usage.models import Rollup
from llmops.usage.selectors.spans import floor


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    """The last whole hour and the one that is not over, against the busiest hour of the week before."""
    bound, fewest = asked.settings["times"], asked.settings["min_calls"]
    hour = floor(figures.now, Rollup.HOUR)
    rows = Rollup.objects.filter(granularity=Rollup.HOUR, bucket__gte=hour - timedelta(days=7)).order_by()
    if asked.scope.project_id is not None:
        rows = rows.filter(project_id=asked.scope.project_id)
    now: dict[object, int] = {}
    before: dict[object, int] = {}
    for key_id, at, calls in rows.values_list("key_id", "bucket").annotate(Sum("calls")):
        kept = now if at >= hour - timedelta(hours=1) else before
        kept[key_id] = max(kept.get(key_id, 0), calls)
    unusual = {
        key_id: calls / before[key_id]
        for key_id, calls in now.items()
        if calls >= fewest and before.get(key_id) and calls >= bound * before[key_id]
    }
    for key in ServiceKey.objects.filter(pk__in=list(unusual)).select_related("project"):
        value = unusual[key.pk]
        yield Finding(
            subject=f"key:{key.pk}",
            title=f"A service key is used unusually much: {key.name} of {key.project.slug}",
            says=f"{now[key.pk]:,} calls in an hour, {times(value)} of its busiest hour of the last week.",
            value=value,
            bound=bound,
            calls=now[key.pk],
            project_id=key.project_id,
            facts={"key": str(key.pk)},
        )


KIND = Kind(
    name="key_unusual",
    title="A service key is used unusually much",
    says="Calls of a service key in an hour, against its busiest hour of the last week.",
    look=_look,
    runbook="key-leaked",
    settings=(Setting("times", "From", 5, "x", 1.1, 1000), Setting("min_calls", "From so many calls on", 200, "", 1)),
    narrows=("project",),
    every_s=60,
)  # fmt: skip
