"""Error budgets that burn too fast: every objective, with the windows and rates of ``burn.POLICIES``."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.alerts.burn import POLICIES, burning
from llmops.alerts.figures import Figures
from llmops.alerts.kinds.base import Asked, Finding, Kind, Setting, narrowing
from llmops.alerts.models import Slo
from llmops.alerts.objectives import counted, scope_of, words

_STATUS = {Slo.AVAILABILITY: "failed", Slo.LATENCY: "ok", Slo.TTFT: "ok"}


def _look(asked: Asked, figures: Figures) -> Iterator[Finding]:
    fewest = int(asked.settings["min_bad"])
    rows = Slo.objects.filter(archived_at=None).select_related("project")
    if asked.scope.project_id is not None:
        rows = rows.filter(project=asked.scope.project_id)
    slos = list(rows)
    windows = {seconds for policy in POLICIES for seconds in (policy.long_s, policy.short_s)}
    counts = counted(slos, windows, figures)
    for slo in slos:
        found = burning(counts[slo.pk].__getitem__, slo.target, fewest=fewest)
        if found is None:
            continue
        hours = found.policy.long_s / 3600
        scope = scope_of(slo)
        status = _STATUS.get(slo.objective)
        yield Finding(
            subject=f"slo:{slo.slug}",
            title=f"An error budget burns: {slo.slug}",
            says=f"{words(slo)}: the budget of that burns {found.long_rate:.1f}x as fast as it may over {hours:g} h and "
            f"{found.short_rate:.1f}x over {found.policy.short_s // 60} min (bound {found.policy.rate:g}x); {found.long.bad:,} of "
            f"{found.long.valid:,} calls missed it in {hours:g} h.",
            value=found.long_rate,
            bound=found.policy.rate,
            calls=found.long.bad,
            project_id=slo.project_id,
            severity=found.policy.severity,
            facts={**narrowing(scope), **({"status": status} if status else {}), "slo": slo.slug},
        )


KIND = Kind(
    name="slo_burn",
    title="An error budget burns",
    says="Every SLO's burn rate over two windows: 14.4x over 1 h and 5 min, 6x over 6 h and 30 min (critical), 3x over a day and 2 h, "
    "1x over 3 days and 6 h (warning).",
    look=_look,
    runbook="error-budget",
    settings=(Setting("min_bad", "From so many missed calls on", 5, "", 1),),
    narrows=("project",),
)
