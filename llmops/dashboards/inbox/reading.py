"""What the inbox shows: requests that wait for a person, what was decided, and actions whose outcome nobody knows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from llmops.access.models import Project
from llmops.access.selectors import keys_not_in_force, may, projects_for, time_left, visible
from llmops.approvals.kinds import kind_named
from llmops.approvals.models import Request
from llmops.approvals.selectors import described, stood_in_for
from llmops.approvals.services import decides_for, why_not, why_not_approved
from llmops.base.requests import actor_of
from llmops.core.digests import sha256_hex
from llmops.core.errors import InvalidRequest
from llmops.dashboards.inbox.listing import (
    DECIDED,
    PAGE,
    UNKNOWN,
    WAITING,
    Filters,
    decided_page,
    narrowed,
    requests_for,
    unknown_for,
    waiting_for,
    waiting_page,
)
from llmops.dashboards.inbox.showing import Argument, Exact, arguments_of, as_json, exact
from llmops.dashboards.runs.reading import SoFar, so_far
from llmops.tools.models import Action, Tool
from llmops.tools.rules import RISK_WORDS

#: Counting stops here: whether there are more is all that matters then.
MOST_COUNTED = 1000
TONES = {"read": "", "write": "", "destructive": "refused", "irreversible": "error"}
STATE_WORDS = {
    Request.OPEN: ("Waiting", ""),
    Request.EXECUTED: ("Approved", "ok"),
    Request.REJECTED: ("Rejected", "error"),
    Request.CANCELLED: ("Taken back", ""),
    Request.EXPIRED: ("Ran out", "refused"),
    Request.VOID: ("Void", "refused"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list."""

    pk: UUID
    title: Exact
    about: str
    risk: str
    tone: str
    because: str
    who: str
    where: str
    at: datetime
    ends_at: datetime | None
    left: str
    hurry: bool
    state: str
    state_tone: str
    digest: str = ""
    mine: bool = False
    unknown: bool = False
    given: int = 0
    required: int = 0
    #: why nobody can approve it at the moment: the key that asked is not in force
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Inbox:
    filters: Filters
    rows: list[Row]
    waiting: str
    unknown: str
    older: str
    tools: list[str]
    projects: list[str]
    #: Rows can be decided together: all are calls of one tool and of one class.
    together: bool = False
    marker: str = ""
    #: There are more than are listed, and no page has them; ``in_all`` says how many where they were counted.
    left_out: bool = False
    in_all: str = ""


def inbox(request: HttpRequest, filters: Filters, *, before: str = "") -> Inbox:
    now = timezone.now()
    waiting = waiting_for(request, now)
    unknown = unknown_for(request)
    rows: list[Row]
    older, left_out = "", False
    if filters.show == UNKNOWN:
        found: list[Any] = list(narrowed(unknown, filters, "").order_by("-claimed_at")[: PAGE + 1])
        rows, left_out = [_unknown_row(action) for action in found[:PAGE]], len(found) > PAGE
    else:
        if filters.show == DECIDED:
            found, more = decided_page(request, filters, before, now)
            older = filters.query(before=str(found[-1].pk)) if more else ""
        else:
            found, left_out = waiting_page(request, filters, now)
        actor = actor_of(request)
        stopped = _stopped(found)
        rows = [
            _row(one, now, mine=one.requested_by_id == actor.identifier, stopped=stopped.get(one.pk, ""))
            for one in found
        ]
    together = (
        filters.show == WAITING
        and bool(filters.tool and filters.risk)
        and len({row.where for row in rows}) == 1
        and any(not row.mine for row in rows)
    )
    counts = _counted(waiting), _counted(unknown)
    in_all = counts[filters.show == UNKNOWN] if left_out and not filters.narrowed else ""
    return Inbox(
        filters=filters,
        rows=rows,
        waiting=counts[0],
        unknown=counts[1],
        older=older,
        tools=_tools(request),
        projects=list(
            projects_for(request, "approval.view")
            .filter(archived_at=None)
            .values_list("slug", flat=True)[:200]
        ),
        together=together,
        marker=sha256_hex(repr((rows, *counts)).encode())[:20],
        left_out=left_out,
        in_all=in_all,
    )


def _counted(rows: QuerySet[Any]) -> str:
    number = rows.order_by()[: MOST_COUNTED + 1].count()
    return str(number) if number <= MOST_COUNTED else f"{MOST_COUNTED}+"


def _tools(request: HttpRequest) -> list[str]:
    rows = visible(Tool.objects.filter(archived_at=None), request, "action.view")
    return list(rows.order_by("slug").values_list("slug", flat=True).distinct()[:200])


def _stopped(rows: list[Request]) -> dict[UUID, str]:
    """Why each of those that wait cannot be approved at the moment, where that is so."""
    asked = {
        row.pk: row.requested_by_id
        for row in rows
        if row.state == Request.OPEN and row.requested_by_kind == "service_key"
    }
    why = keys_not_in_force(asked.values()) if asked else {}
    return {pk: why[key].why for pk, key in asked.items() if key in why}


def _row(row: Request, now: datetime, *, mine: bool, stopped: str = "") -> Row:
    action: Action | None = getattr(row, "action", None)
    opened = row.state == Request.OPEN
    word, tone = STATE_WORDS[row.state]
    if opened and row.expires_at <= now:
        word, tone = STATE_WORDS[Request.EXPIRED]
    left = row.expires_at - now
    return Row(
        pk=row.pk,
        title=exact(row.title),
        about=f"{action.tool.slug} v{action.version.number}" if action else row.object_name,
        risk=action.risk if action else "",
        tone=TONES.get(action.risk, "") if action else "",
        because=action.risk_rule if action else "",
        who=row.requested_by_name,
        where=row.project.slug if row.project else "the whole organisation",
        at=row.created_at,
        ends_at=row.expires_at if opened else row.closed_at,
        left=_left(left) if opened else "",
        hurry=opened and left.total_seconds() < 3600,
        state=word,
        state_tone=tone,
        digest=row.digest,
        mine=mine,
        given=sum(one.approves for one in row.decisions.all()),
        required=row.required,
        stopped=stopped,
    )


def _unknown_row(action: Action) -> Row:
    return Row(
        pk=action.pk, title=exact(action.says), about=f"{action.tool.slug} v{action.version.number}", risk=action.risk,
        tone=TONES.get(action.risk, ""), because=action.message, who=action.requested_by_name, where=action.project.slug,
        at=action.claimed_at or action.created_at, ends_at=None, left="", hurry=False, state="Outcome unknown",
        state_tone="unknown", unknown=True,
    )  # fmt: skip


def _left(left: Any) -> str:
    """In minutes at most, so that a page which is live does not change every second."""
    seconds = max(0, int(left.total_seconds()))
    return "less than a minute" if seconds < 60 else time_left(left - (left % timedelta(minutes=1)))


@dataclass(frozen=True, slots=True)
class Step:
    """Something else that the same run asked for: what came of it is what a reviewer can judge by."""

    action: Action
    says: Exact
    said: str
    result: Exact | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one person said."""

    approves: bool
    who: str
    decided_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Item:
    """One request as its page shows it."""

    row: Row
    request: Request
    action: Action | None
    what: list[tuple[str, Exact]]
    arguments: list[Argument]
    raw: str
    #: What the arguments are held against: the action that this one replaces, or what the run asked for before and did not get.
    attempt: Step | None
    replaces: bool
    replaced_by: str
    reason: Exact
    #: The run that it was asked for in, as far as it had come.
    run: SoFar | None
    story: list[Step]
    decisions: list[Verdict]
    risk_words: str
    may_decide: bool
    #: said where it waits for somebody else
    why_not: str
    decides_for: str
    may_edit: bool
    may_take_back: bool
    #: why nobody can approve it at the moment, though it can be rejected
    stopped: str
    marker: str
    odd: bool


def item(request: HttpRequest, pk: UUID) -> Item | None:
    """The request of this id, or None where there is none that the reader may see."""
    row = requests_for(request).prefetch_related("decisions").filter(pk=pk).first()
    if row is None:
        return None
    actor, now = actor_of(request), timezone.now()
    action: Action | None = getattr(row, "action", None)
    own = (actor.kind, actor.identifier) == (row.requested_by_kind, row.requested_by_id)
    shown = _row(row, now, mine=own)
    attempt = _attempt(request, action) if action else None
    arguments = arguments_of(action.given, attempt.action.given if attempt else None) if action else []
    run = so_far((request, *stood_in_for(request)), action) if action and action.run else None
    apart = (*_TOLD_APART, "Run") if run else _TOLD_APART
    what = [(label, exact(text)) for label, text in described(row) if label not in apart or not action]
    reason = exact(action.reason if action and action.reason else row.reason)
    later = getattr(action, "superseded_by", None) if action else None
    refusal = why_not(actor, row)
    decides = not refusal
    decisions = list(row.decisions.all())
    stopped = why_not_approved(row)
    return Item(
        row=shown,
        request=row,
        action=action,
        what=what,
        arguments=arguments,
        raw=as_json(action.given) if action else "",
        attempt=attempt,
        replaces=bool(action and action.supersedes_id),
        replaced_by=str(later.request_id or "") if later else "",
        reason=reason,
        run=run,
        story=_story(request, action) if action else [],
        decisions=[
            Verdict(one.approves, exact(one.who).text, one.decided_at, exact(one.reason).text)
            for one in decisions
        ],
        risk_words=RISK_WORDS[action.risk] if action else "",
        may_decide=decides,
        why_not=refusal,
        decides_for=decides_for(actor, row) if decides else "",
        may_edit=_may_edit(request, row, decides),
        may_take_back=own and row.state == Request.OPEN and row.expires_at > now,
        stopped=stopped,
        marker=_item_marker(row, action, decisions, f"{shown.left} {stopped}"),
        odd=shown.title.odd or reason.odd or any(line.value.odd for line in arguments),
    )


_LONGEST_STORY, _LONGEST_RESULT = 20, 4_000
_NOT_GOT = (Action.REJECTED, Action.EXPIRED, Action.CANCELLED, Action.FAILED)
_TOLD_APART = ("What", "Arguments", "Risk", "Because of")


def _item_marker(row: Request, action: Action | None, decisions: list[Any], left: str) -> str:
    known = (
        row.state,
        action.state if action else "",
        action.message if action else "",
        len(decisions),
        left,
    )
    return sha256_hex(repr(known).encode())[:20]


def _may_edit(request: HttpRequest, row: Request, decides: bool) -> bool:
    try:
        revises = kind_named(row.kind).revise is not None
    except InvalidRequest:
        return False
    return revises and decides and may(request, "action.propose", row.project)


def _others(request: HttpRequest, action: Action) -> QuerySet[Action]:
    """Actions of its project, for whoever may see them, or stands in for somebody who may: they judge by the same."""
    readers = (request, *stood_in_for(request))
    seen = any(may(who, "action.view", action.project) for who in readers)
    rows = Action.objects.filter(project_id=action.project_id) if seen else Action.objects.none()
    return rows.select_related("tool", "request").prefetch_related("request__decisions")


def _of_its_run(request: HttpRequest, action: Action) -> QuerySet[Action]:
    """What whoever asked first asked for under the same run, and what people put in place of that. A run's id is a text that any key of
    the project can write: what another one wrote under it is no evidence here."""
    first = action
    while first.supersedes is not None:
        first = first.supersedes
    theirs = Q(requested_by_kind=first.requested_by_kind, requested_by_id=first.requested_by_id)
    return _others(request, action).filter(theirs | Q(requested_by_kind="user"), run=action.run)


def _story(request: HttpRequest, action: Action) -> list[Step]:
    """What else the same run asked for, oldest first, with what came of it."""
    if not action.run:
        return []
    others = _of_its_run(request, action).exclude(pk=action.pk)
    newest = list(others.order_by("-created_at")[:_LONGEST_STORY])
    return [_step_of(one) for one in newest[::-1]]


def _attempt(request: HttpRequest, action: Action) -> Step | None:
    """The action that this one replaces, or else the last call of the tool that the run asked for before and did not get."""
    if action.supersedes is not None:
        return _step_of(action.supersedes)
    if not action.run:
        return None
    others = _of_its_run(request, action).filter(tool_id=action.tool_id)
    before = (
        others.filter(created_at__lt=action.created_at, state__in=_NOT_GOT).order_by("-created_at").first()
    )
    return _step_of(before) if before else None


def _step_of(action: Action) -> Step:
    said = ""
    if action.request is not None:
        against = [one for one in action.request.decisions.all() if not one.approves]
        said = f"{against[0].who}: {against[0].reason}" if against else ""
    result = None
    if action.result is not None:
        text = json.dumps(action.result, ensure_ascii=False, indent=2)
        result = exact(text if len(text) <= _LONGEST_RESULT else f"{text[:_LONGEST_RESULT]}…")
    return Step(action, exact(action.says), exact(said or action.message).text, result)


def unknown_item(request: HttpRequest, pk: UUID) -> Action | None:
    rows = Action.objects.select_related("project", "tool", "version", "request")
    return (
        visible(rows, request, "action.view")
        .filter(Q(state=Action.UNKNOWN) | ~Q(resolution=""), pk=pk)
        .first()
    )


def may_resolve(request: HttpRequest, project: Project) -> bool:
    return may(request, "action.resolve", project)
