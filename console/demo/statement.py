"""The usage report that the demo's provider sent for last month: the ledger's figures, but for one call whose process died."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from datetime import UTC, date, datetime, time

from console.demo.story import Months
from llmops.core.actors import Actor
from llmops.core.money import NANO
from llmops.providers.models import ModelConfig, Provider
from llmops.usage.models import Call, Rollup
from llmops.usage.services import import_statement

#: What the lost call really used, as its provider counted, and what it cost of what was held for it.
_INPUT, _OUTPUT, _HELD_TIMES = 1_900, 300, 3
_COLUMNS = ("date", "model", "requests", "input_tokens", "input_cached_tokens", "output_tokens", "cost_usd")


def take_over(actor: Actor, *, provider: str, months: Months) -> None:
    """Import the report, as finance would; where the two differ by more than 1 % an alert is raised."""
    sums: dict[tuple[date, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    upstream = dict(
        ModelConfig.objects.filter(current_of__isnull=False).values_list("model__slug", "upstream_model")
    )
    start, end = (datetime.combine(day, time(), tzinfo=UTC) for day in (months.last, months.this))
    rows = Rollup.objects.filter(granularity=Rollup.DAY, bucket__gte=start, bucket__lt=end).exclude(model="")
    for bucket, model, *used in rows.values_list(
        "bucket", "model", "attempts", "input_tokens", "cached_input_tokens", "output_tokens", "cost_nano"
    ):
        _add(sums[bucket.date(), upstream[model]], used)
    for lost in Call.objects.filter(status=Call.UNKNOWN, started_at__gte=start, started_at__lt=end):
        paid = lost.cost_nano // _HELD_TIMES
        _add(
            sums[lost.started_at.date(), upstream[lost.model]],
            [0, _INPUT, 0, _OUTPUT, paid - lost.cost_nano],
        )
    written = io.StringIO()
    table = csv.writer(written)
    table.writerow(_COLUMNS)
    for (day, model), (requests, asked, cached, answered, cost) in sorted(sums.items()):
        table.writerow([day.isoformat(), model, requests, asked, cached, answered, f"{cost / NANO:.9f}"])
    import_statement(
        actor,
        provider=Provider.objects.get(slug=provider),
        text=written.getvalue(),
        file_name=f"simulated-usage-{months.last:%Y-%m}.csv",
    )


def _add(sums: list[int], more: list[int]) -> None:
    for place, value in enumerate(more):
        sums[place] += value
