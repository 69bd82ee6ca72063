"""What the ledger says of a run's call, for its column: the same figures as in the call's story."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.urls import reverse

from llmops.access.selectors import may
from llmops.core.errors import NotFound
from llmops.dashboards import formats
from llmops.dashboards.reader import Reader
from llmops.dashboards.story import story
from llmops.playground.models import Run


def figures_of(request: HttpRequest, run: Run) -> dict[str, Any] | None:
    """None while the call is not booked. Without the right to see usage: that it is, and nothing else."""
    if run.call_id is None:
        return None
    if not may(request, "usage.view", run.project_id):
        return {"link": ""}
    try:
        told = story(Reader.of(request), UUID(str(run.call_id)))
    except NotFound:
        return None
    call = told.told.call
    return {
        "link": reverse("dashboards:call", args=[call.pk]),
        "headline": told.headline,
        "status": told.status_word,
        "simulated": told.simulated,
        "model": call.model,
        "cost": formats.usd(call.cost_nano),
        "cost_exact": formats.usd_exact(call.cost_nano),
        "tokens": [
            {
                "name": row.name,
                "tokens": formats.count(row.tokens),
                "cost": formats.usd(round(row.cost_nano)) if row.cost_nano is not None else "",
            }
            for row in told.tokens
        ],
        "input_tokens": call.input_tokens,
        "output_tokens": call.output_tokens,
        "estimated": call.usage_estimated,
        "total_us": call.total_us,
        "ttft_us": call.ttft_us,
        "total": formats.duration(call.total_us),
        "ttft": formats.duration(call.ttft_us) if call.ttft_us is not None else "",
        "cache": told.cache_words,
        "clamped": call.output_cap if call.output_clamped else None,
        "fallback": bool(call.fallback_count),
        "attempts": [
            {
                "n": lane.n,
                "model": lane.model,
                "outcome": lane.outcome,
                "why": lane.why,
                "took": formats.duration(lane.total_us),
                "failed": lane.failed,
            }
            for lane in told.lanes
        ],
        "verdicts": [
            {
                "check": verdict.check,
                "policy": f"{verdict.policy} v{verdict.version}",
                "when": verdict.when,
                "found": verdict.found,
                "done": verdict.done,
                "stopped": verdict.stopped,
            }
            for verdict in told.verdicts
        ],
    }
