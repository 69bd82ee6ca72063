"""Runs to test with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from llmops.runs import services
from llmops.runs.models import Run, Step
from llmops.runs.rules import read_asked
from llmops.runs.selectors import answer_of, told_by
from llmops.tools.models import Action


def asked(**changes: Any) -> Any:
    return read_asked(
        {
            "messages": [{"role": "user", "content": "Refund Ada."}],
            "model": "chat",
            "mode": "queued",
            **changes,
        }
    )


def begun(lab: SimpleNamespace, **changes: Any) -> Run:
    key = changes.pop("idempotency_key", "")
    who = changes.pop("who", lab.agent)
    return services.start_run(
        who, project=lab.support, asked=asked(**changes), idempotency_key=key, inline=True
    )[0]


def worked(run: Run) -> Run:
    services.advance(run.pk)
    run.refresh_from_db()
    return run


def done(lab: SimpleNamespace, **changes: Any) -> Run:
    return worked(begun(lab, **changes))


def text_of(run: Run) -> Any:
    return answer_of(run).get("text")


def steps(run: Run) -> list[str]:
    """``kind what outcome`` of each step."""
    return [
        " ".join(filter(None, (one.kind, one.what, one.outcome)))
        for one in Step.objects.filter(run=run).order_by("n")
    ]


def told(run: Run, kind: str) -> list[Any]:
    return [told_by(one).content for one in Step.objects.filter(run=run, kind=kind).order_by("n")]


def actions(run: Run) -> list[Action]:
    return list(Action.objects.filter(run=str(run.pk)).order_by("id"))
