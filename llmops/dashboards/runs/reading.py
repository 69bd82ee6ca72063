"""What the pages about runs show: the list, and one run's story from the question to its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from llmops.access.models import Project
from llmops.access.selectors import may, projects_for, visible
from llmops.core.appearance import written_out
from llmops.core.digests import sha256_hex
from llmops.dashboards import formats
from llmops.dashboards.inbox.showing import Argument, arguments_of
from llmops.runs.conversation import CALL, NOTE, RESULT, TURN
from llmops.runs.costing import TurnCost, costs_by_turn, costs_of, total
from llmops.runs.models import ProjectKey, Run, Step
from llmops.runs.rules import Asked
from llmops.runs.sealed import opened, step_identity
from llmops.runs.selectors import answer_of, question_of
from llmops.tools.models import Action
from llmops.usage.models import Call

PAGE = 50
TONES = {Run.SUCCEEDED: "ok", Run.FAILED: "error", Run.CANCELLED: "", Run.PARKED: "refused"}
_LONGEST = 6_000
_RISK_TONES = {"destructive": "refused", "irreversible": "error"}
_ACTION_TONES = {
    Action.SUCCEEDED: "ok", Action.FAILED: "error", Action.REJECTED: "error", Action.UNKNOWN: "error",
    Action.EXPIRED: "refused", Action.WAITING: "refused",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filters:
    state: str = ""
    project: str = ""
    prompt: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Filters:
        state = given.get("state", "")
        return cls(
            state if state in dict(Run.STATES) else "",
            given.get("project", "")[:63],
            given.get("prompt", "")[:63].replace("\0", ""),
        )

    def query(self, **changed: str) -> str:
        values = {"state": self.state, "project": self.project, "prompt": self.prompt, **changed}
        kept = {name: value for name, value in values.items() if value}
        return f"?{urlencode(kept)}" if kept else "?"

    @property
    def narrowed(self) -> bool:
        return bool(self.state or self.project or self.prompt)


@dataclass(frozen=True, slots=True)
class Row:
    pk: UUID
    title: str
    state: str
    tone: str
    moving: bool
    who: str
    where: str
    turns: int
    tools: str
    cost: str
    took: str
    at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class Listed:
    filters: Filters
    rows: list[Row]
    older: str
    projects: list[str]
    marker: str
    keyless: list[Keyless]


@dataclass(frozen=True, slots=True)
class Keyless:
    """A project whose runs call nothing: the key that they call with was revoked. ``may``: whether the reader can issue another."""

    project: Project
    may: bool


def keyless(request: HttpRequest) -> list[Keyless]:
    rows = visible(ProjectKey.objects.select_related("project"), request, "run.view")
    rows = rows.filter(service_key__revoked_at__isnull=False, project__archived_at=None)
    return [
        Keyless(row.project, may(request, "service_key.manage", row.project))
        for row in rows.order_by("project__slug")[:50]
    ]


def runs_for(request: HttpRequest) -> QuerySet[Run]:
    return visible(Run.objects.select_related("project"), request, "run.view")


def listed(request: HttpRequest, filters: Filters, *, before: str = "") -> Listed:
    rows = runs_for(request).defer("sealed", "sealed_answer", "sealed_saying")
    if filters.state:
        rows = rows.filter(state=filters.state)
    if filters.project:
        rows = rows.filter(project__slug=filters.project)
    if filters.prompt:
        rows = rows.filter(prompt_name=filters.prompt)
    if (last := _uuid(before)) is not None:
        rows = rows.filter(pk__lt=last)
    listed_ones = list(rows.order_by("-id")[: PAGE + 1])
    costs = costs_of(listed_ones)
    found = [_row(one, costs[one.pk]) for one in listed_ones]
    older = filters.query(before=str(found[PAGE - 1].pk)) if len(found) > PAGE else ""
    shown = found[:PAGE]
    marker = sha256_hex(repr([(one.pk, one.state, one.turns, one.cost) for one in shown]).encode())[:20]
    projects = list(projects_for(request, "run.view").order_by("slug").values_list("slug", flat=True)[:200])
    return Listed(filters, shown, older, projects, marker, [] if before else keyless(request))


def _row(run: Run, cost: int) -> Row:
    end = run.finished_at or timezone.now()
    version = f" v{run.prompt_version}" if run.prompt_version else ""
    return Row(
        pk=run.pk,
        title=f"{run.prompt_name}{version}" if run.prompt_name else f"Messages to {run.model}",
        state=run.get_state_display(),
        tone=TONES.get(run.state, ""),
        moving=not run.over,
        who=run.requested_by_name,
        where=run.project.slug,
        turns=run.turns,
        tools=", ".join(run.tools[:4]) + ("…" if len(run.tools) > 4 else ""),
        cost=formats.usd(cost),
        took=formats.duration((end - run.created_at).total_seconds() * 1_000_000) if run.over else "",
        at=run.created_at,
        error=run.error_message,
    )


# A run as whoever decides about one of its calls is shown it ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SoFar:
    """What was asked, and what the model said when it asked for a call. ``story``: whether the reader may see the whole."""

    pk: UUID
    story: bool
    prompt: str
    variables: list[Argument]
    asked: list[Said]
    earlier: int
    said: str


_SHOWN_MESSAGES = 4


def so_far(readers: Sequence[HttpRequest | Any], action: Action) -> SoFar | None:
    """The run of this action, for whoever may see runs of its project or stands in for somebody who may (``readers``, the one who
    looks first); None where there is none, as the id is then a text of the service that asked."""
    pk = _uuid(action.run)
    if pk is None or not any(may(who, "run.view", action.project) for who in readers):
        return None
    run = Run.objects.filter(pk=pk, project_id=action.project_id).first()
    step = Step.objects.filter(run=run, kind=CALL, action=action).first() if run is not None else None
    if run is None or not run.sealed or step is None:
        return None
    question = question_of(run).asked
    turn = Step.objects.filter(run=run, kind=TURN, turn=step.turn).first()
    content = (opened(turn.sealed, identity=step_identity(turn.pk)) or {}) if turn is not None else {}
    said = (content.get("message") or {}).get("content") or ""
    return SoFar(
        pk=run.pk,
        story=may(readers[0], "run.view", run.project),
        prompt=_prompt(run),
        variables=_variables(question),
        asked=[_said(one.role, one.content) for one in question.messages[-_SHOWN_MESSAGES:]],
        earlier=max(0, len(question.messages) - _SHOWN_MESSAGES),
        said=written_out(said)[:_LONGEST],
    )


def _variables(question: Asked) -> list[Argument]:
    prompt = question.prompt
    return arguments_of(prompt.variables) if prompt is not None and prompt.variables else []


# One run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """A message before the run, or of it."""

    role: str
    text: str
    cut: int = 0


@dataclass(slots=True)
class ToolCall:
    """One call of a tool: what the model asked for, what became of it, who decided, and what the model was told."""

    tool: str
    says: str
    risk: str
    risk_tone: str
    because: str
    arguments: list[Argument]
    state: str = ""
    tone: str = ""
    request: UUID | None = None
    unknown: UUID | None = None
    decisions: list[Any] = field(default_factory=list)
    told: str = ""
    took: str = ""
    replaced: bool = False


@dataclass(slots=True)
class Turn:
    number: int
    at: datetime
    model: str
    text: str
    refusal: str
    tokens: str
    cost: str
    took: str
    call: UUID | None
    calls: list[ToolCall] = field(default_factory=list)
    answers: bool = False


@dataclass(slots=True)
class Note:
    """``waited``: how long it was until the run went on."""

    text: str
    at: datetime
    what: str
    waited: str = ""


@dataclass(frozen=True, slots=True)
class Story:
    run: Run
    row: Row
    asked: list[Said]
    prompt: str
    variables: list[Argument]
    parts: list[Any]
    answer: str
    output: str
    forgotten: bool
    may_cancel: bool
    bounds: str
    marker: str


def story(request: HttpRequest, run_id: UUID) -> Story | None:
    run = runs_for(request).filter(pk=run_id).first()
    if run is None:
        return None
    steps = list(Step.objects.filter(run=run).order_by("n"))
    actions = (
        Action.objects.select_related("request", "tool", "version")
        .prefetch_related("request__decisions")
        .in_bulk({one.action_id for one in steps if one.action_id})
    )
    may_see_calls = may(request, "usage.view", run.project)
    calls = [one.call_id for one in steps if one.call_id]
    booked = set(Call.objects.filter(pk__in=calls).values_list("pk", flat=True)) if may_see_calls else set()
    costs = costs_by_turn([run])[run.pk]
    question = question_of(run).asked if run.sealed else None
    answer = answer_of(run)
    output = answer.get("output")
    standing = [
        run.state,
        run.turns,
        len(steps),
        [(one.pk, one.state) for one in actions.values()],
        sorted(map(str, booked)),
        total(costs.values()),
    ]
    return Story(
        run=run,
        row=_row(run, total(costs.values())),
        asked=[_said(one.role, one.content) for one in question.messages] if question else [],
        prompt=_prompt(run),
        variables=_variables(question) if question else [],
        parts=_parts(steps, actions, booked, costs, answered=run.state == Run.SUCCEEDED and output is None),
        answer=written_out(answer.get("text") or ""),
        output=json.dumps(output, ensure_ascii=False, indent=2) if output is not None else "",
        forgotten=not run.sealed,
        may_cancel=not run.over and run.cancel_asked_at is None and may(request, "run.start", run.project),
        bounds=_bounds(run),
        marker=sha256_hex(repr(standing).encode())[:20],
    )


def _parts(
    steps: list[Step],
    actions: dict[UUID, Action],
    booked: set[UUID],
    costs: Mapping[int, TurnCost],
    *,
    answered: bool,
) -> list[Any]:
    """Turns with their calls in place, and notes between them, in the order in which they came. ``answered``: what the last turn
    said is the answer, and is shown as that."""
    parts: list[Any] = []
    turns: dict[int, Turn] = {}
    calls: dict[tuple[int, int], ToolCall] = {}
    waits: Note | None = None
    for step in steps:
        if waits is not None and step.kind != NOTE:
            waits.waited, waits = formats.duration((step.at - waits.at).total_seconds() * 1_000_000), None
        content = opened(step.sealed, identity=step_identity(step.pk)) or {}
        if step.kind == TURN:
            turns[step.turn] = turn = _turn(step, content, booked, costs)
            parts.append(turn)
        elif step.kind == NOTE:
            parts.append(note := Note(written_out(content.get("text", "")), step.at, step.what))
            waits = note if step.what == "parked" else waits
        elif step.kind == CALL and step.turn in turns:
            if (earlier := calls.get((step.turn, step.place))) is not None:
                earlier.replaced = True
            call = _call(step, content, actions.get(step.action_id) if step.action_id else None)
            calls[step.turn, step.place] = call
            turns[step.turn].calls.append(call)
        elif step.kind == RESULT and (found := calls.get((step.turn, step.place))) is not None:
            found.told = written_out(str(content.get("content", "")))[:_LONGEST]
            found.took = formats.duration(step.took_us) if step.took_us is not None else ""
    if answered and turns:
        turns[max(turns)].answers = True
    return parts


def _turn(step: Step, content: Mapping[str, Any], booked: set[UUID], costs: Mapping[int, TurnCost]) -> Turn:
    message = content.get("message") or {}
    return Turn(
        number=step.turn,
        at=step.at,
        model=step.what,
        text=written_out(message.get("content") or "")[:_LONGEST],
        refusal=written_out(message.get("refusal") or "")[:_LONGEST],
        tokens=f"{formats.count(step.input_tokens)} in, {formats.count(step.output_tokens)} out",
        cost=formats.usd(costs[step.turn].nano if step.turn in costs else step.cost_nano),
        took=formats.duration(step.took_us),
        call=step.call_id if step.call_id in booked else None,
    )


def _call(step: Step, content: Mapping[str, Any], action: Action | None) -> ToolCall:
    found = ToolCall(
        tool=step.what,
        says=written_out(content.get("says") or f"{step.what} was not called"),
        risk=action.risk if action else "",
        risk_tone=_RISK_TONES.get(action.risk, "") if action else "",
        because=content.get("because") or "",
        arguments=arguments_of(_read(content.get("arguments"))),
    )
    if action is None:
        found.state, found.tone = "Refused", "error"
        return found
    found.state, found.tone = action.get_state_display(), _ACTION_TONES.get(action.state, "")
    found.request = action.request_id
    found.unknown = action.pk if action.state == Action.UNKNOWN else None
    found.decisions = list(action.request.decisions.all()) if action.request is not None else []
    return found


def _read(arguments: Any) -> Mapping[str, Any]:
    """Arguments as the model wrote them: what is no object is shown as the text that it is."""
    try:
        read = json.loads(arguments or "{}")
    except (ValueError, TypeError, RecursionError):
        read = None
    return read if isinstance(read, dict) else {"arguments": str(arguments)}


def _said(role: str, content: Any) -> Said:
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return Said(role, written_out(text[:_LONGEST]), max(0, len(text) - _LONGEST))


def _prompt(run: Run) -> str:
    return f"{run.prompt_name}, version {run.prompt_version}" if run.prompt_name else ""


def _bounds(run: Run) -> str:
    words = [f"{run.max_turns} turns", f"{run.max_seconds} s of work"]
    if run.max_cost_nano is not None:
        words.append(formats.usd(run.max_cost_nano))
    return ", ".join(words)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
