"""Reading runs and their steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import Exists, OuterRef, QuerySet

from llmops.core.actors import Actor
from llmops.runs.conversation import CALL, RESULT, Told
from llmops.runs.models import Run, Step
from llmops.runs.rules import Asked
from llmops.runs.sealed import answer_identity, asked_identity, opened, step_identity
from llmops.tools.models import Action

#: Something more may come of these.
GOING_ON = (Action.WAITING, Action.APPROVED, Action.CLAIMED)


@dataclass(frozen=True, slots=True)
class Question:
    """What a run was asked for, and the tools as they were offered when it began."""

    asked: Asked
    offered: list[Mapping[str, Any]]


def question_of(run: Run) -> Question:
    kept = opened(run.sealed, identity=asked_identity(run.pk)) or {"asked": {}, "offered": []}
    return Question(msgspec.convert(kept["asked"], Asked), kept["offered"])


def answer_of(run: Run) -> dict[str, Any]:
    """``text``, ``output`` and ``finish``; empty while there is none."""
    return opened(run.sealed_answer, identity=answer_identity(run.pk)) or {}


def told_by(step: Step) -> Told:
    content = opened(step.sealed, identity=step_identity(step.pk)) or {}
    return Told(step.kind, step.turn, step.place, step.what, content, str(step.action_id or ""))


def actor_behind(run: Run) -> Actor:
    """Whoever asked for the run: its calls of tools are asked for in that name."""
    return Actor(kind=run.requested_by_kind, identifier=run.requested_by_id, name=run.requested_by_name)  # type: ignore[arg-type]


def with_open_actions() -> Exists:
    """Whether anything is still to come of a call of a tool that the run waits for."""
    answered = Step.objects.filter(
        run=OuterRef("run"), kind=RESULT, turn=OuterRef("turn"), place=OuterRef("place")
    )
    return Exists(
        Step.objects.filter(~Exists(answered), run=OuterRef("pk"), kind=CALL, action__state__in=GOING_ON)
    )


def waited_for(run: Run) -> QuerySet[Action]:
    """Calls of tools of which something is still to come, in the order in which the model asked."""
    return (
        Action.objects.filter(steps__run=run, steps__kind=CALL, state__in=GOING_ON)
        .select_related("tool", "request")
        .order_by("steps__n")
    )


def called(run_id: UUID, state: str = "") -> QuerySet[Run]:
    return Run.objects.filter(pk=run_id, **({"state": state} if state else {}))


def plain(content: Any) -> Any:
    """Without what no database and no page takes."""
    return json.loads(json.dumps(content))
