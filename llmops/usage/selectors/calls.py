"""Lists of calls, by keyset, and the story of one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection
from django.db.models import BooleanField, Exists, ExpressionWrapper, F, OuterRef, Q, QuerySet
from django.db.models.expressions import RawSQL

from llmops.access.models import Project, ServiceKey
from llmops.budgets.models import Budget
from llmops.budgets.selectors import window_names
from llmops.core.errors import InvalidRequest, NotFound
from llmops.core.verdicts import Verdict
from llmops.usage.models import Call, CallOutcome, Correction, Journal, KeptObject
from llmops.usage.records import Attempt
from llmops.usage.signals import BIT

PAGE_SIZE, MOST_PER_PAGE = 50, 500
#: A provider names what it keeps at the beginning of its answer, which comes within this time.
_NAMED_WITHIN = timedelta(minutes=5)
NONE_GIVEN = "(none)"


@dataclass(frozen=True, slots=True)
class CallFilters:
    """What a list of calls is narrowed to; None and empty do not narrow. ``project_ids`` is what the reader may see.

    ``status`` and ``error_code`` take one value or several; ``errors_only`` every call with an error code,
    ``user`` is the digest of an end user. A text that is ``NONE_GIVEN`` finds calls without a value of that kind. ``fallback`` those that were answered by, or tried last at, a fallback.
    ``brought`` those of which a service told this kind of outcome.
    """

    project_ids: Collection[UUID] | None = None
    project_id: UUID | None = None
    key_id: UUID | None = None
    route: str = ""
    model: str = ""
    status: str | Collection[str] = ""
    error_code: str | Collection[str] = ""
    errors_only: bool = False
    fallback: bool = False
    feature: str = ""
    session: str = ""
    #: by name, of whatever version
    prompt: str = ""
    version: int | None = None
    #: one of ``usage.signals``: calls whose record says this of their answer
    signal: str = ""
    request_id: str = ""
    #: a request id, or that which the provider gave the attempt that ended a call
    any_id: str = ""
    user: str = ""
    tag: str = ""
    brought: str = ""
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallPage:
    """Newest first. ``projects`` and ``keys`` name what the calls refer to, as far as it still exists."""

    calls: list[Call]
    next_cursor: str | None
    projects: dict[UUID, str] = field(default_factory=dict)
    keys: dict[UUID, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChargeStory:
    """What a call held on and cost a budget (nanodollars); soft budgets hold nothing."""

    budget: str
    budget_id: UUID | None
    soft: bool
    held_nano: int
    cost_nano: int
    overrun_nano: int
    starts_at: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CallStory:
    """One call with everything it refers to; what was deleted since is None."""

    call: Call
    attempts: list[Attempt]
    verdicts: list[Verdict]
    charges: list[ChargeStory]
    project: Project | None
    key: ServiceKey | None
    journal: Journal | None
    outcomes: list[CallOutcome]
    corrections: list[Correction] = field(default_factory=list)


def filtered_calls(filters: CallFilters) -> QuerySet[Call]:
    calls = Call.objects.all()
    if filters.project_ids is not None:
        calls = calls.filter(project_id__in=list(filters.project_ids))
    exact: dict[str, Any] = {
        "project_id": filters.project_id,
        "key_id": filters.key_id,
        "route": filters.route,
        "model": filters.model,
        "feature": filters.feature,
        "session": filters.session,
        "prompt_name": filters.prompt,
        "request_id": filters.request_id,
        "user_digest": filters.user,
    }
    calls = calls.filter(
        **{name: "" if value == NONE_GIVEN else value for name, value in exact.items() if value}
    )
    if filters.tag:
        calls = calls.filter(tags=[]) if filters.tag == NONE_GIVEN else calls.filter(_has_tag(filters.tag))
    for name, wanted in (("status", filters.status), ("error_code", filters.error_code)):
        if wanted:
            calls = calls.filter(**{f"{name}__in": [wanted] if isinstance(wanted, str) else list(wanted)})
    if filters.any_id:
        # Both by their own index, however long ago; no list of a project in the order of time holds as few.
        given = Call.objects.filter(request_id=filters.any_id).order_by().values("pk")
        theirs = Call.objects.filter(~Q(provider_request_id=""), provider_request_id=filters.any_id)
        calls = calls.filter(pk__in=given.union(theirs.order_by().values("pk"), all=True))
    if filters.errors_only:
        calls = calls.filter(~Q(error_code=""))
    if filters.brought:
        told = CallOutcome.objects.filter(
            call_id=OuterRef("pk"), call_started_at=OuterRef("started_at"), kind=filters.brought
        )
        calls = calls.filter(Exists(told))
    if filters.version is not None:
        # Rollups count under 0 the calls that name a prompt without a version.
        calls = calls.filter(prompt_version=filters.version or None)
    if filters.signal:
        # The first condition is that of the index.
        calls = calls.filter(signals__gt=0).annotate(seen=F("signals").bitand(BIT[filters.signal]))
        calls = calls.filter(seen__gt=0)
    if filters.fallback:
        calls = calls.filter(fallback_count__gt=0)
    if filters.start:
        calls = calls.filter(started_at__gte=filters.start)
    if filters.end:
        calls = calls.filter(started_at__lt=filters.end)
    return calls.order_by("-started_at", "-id")


def _has_tag(tag: str) -> Q:
    if connection.vendor == "postgresql":
        return Q(tags__contains=[tag])
    each = RawSQL("EXISTS (SELECT 1 FROM json_each(usage_call.tags) AS one WHERE one.value = %s)", [tag])
    return Q(ExpressionWrapper(each, output_field=BooleanField()))


def calls_page(*, filters: CallFilters, cursor: str | None = None, page_size: int = PAGE_SIZE) -> CallPage:
    """One page after ``cursor`` (the ``next_cursor`` of the page before); cost does not grow with depth.

    Raises ``InvalidRequest`` for a cursor that no page gave out.
    """
    page_size = max(1, min(page_size, MOST_PER_PAGE))
    calls = filtered_calls(filters)
    if cursor:
        at, last = _decoded(cursor)
        calls = calls.filter(started_at__lte=at).exclude(started_at=at, id__gte=last)
    rows = list(calls[: page_size + 1])
    more, rows = len(rows) > page_size, rows[:page_size]
    return CallPage(
        calls=rows,
        next_cursor=_encoded(rows[-1]) if more else None,
        projects=dict(
            Project.objects.filter(pk__in={call.project_id for call in rows}).values_list("pk", "slug")
        ),
        keys=dict(ServiceKey.objects.filter(pk__in={call.key_id for call in rows}).values_list("pk", "name")),
    )


def call_story(call_id: UUID, *, project_ids: Collection[UUID] | None = None) -> CallStory:
    """Everything about one call. Raises ``NotFound``, also when it belongs to none of ``project_ids``."""
    call = Call.objects.filter(pk=call_id).first()
    if call is None or (project_ids is not None and call.project_id not in project_ids):
        raise NotFound("There is no such call here, or it is not yours to see.")
    return CallStory(
        call=call,
        attempts=[msgspec.convert(attempt, Attempt) for attempt in call.attempts],
        verdicts=[msgspec.convert(verdict, Verdict) for verdict in call.verdicts],
        charges=_charges(call.charges),
        project=Project.objects.filter(pk=call.project_id).first(),
        key=ServiceKey.objects.filter(pk=call.key_id).first(),
        journal=Journal.objects.filter(pk=call.journal_id).first(),
        outcomes=list(CallOutcome.objects.filter(call_id=call.pk).order_by("kind")),
        corrections=list(Correction.objects.filter(call_id=call.pk)) if call.charged_at_hold else [],
    )


def kept_answer(call: Call) -> str:
    """The id under which the provider keeps what it answered, as far as it had said so before the process died; empty otherwise.

    Known of streams and of responses in the background, by the call that their row names.
    """
    soon = call.started_at + max(_NAMED_WITHIN, timedelta(microseconds=call.total_us))
    rows = KeptObject.objects.filter(
        kind__in=("response", "chat.completion"),
        made_at__range=(call.started_at, soon),
        project_id=call.project_id,
        details__call=str(call.pk),
    )
    return rows.values_list("object_id", flat=True).first() or ""


def _charges(stored: list[dict[str, Any]]) -> list[ChargeStory]:
    windows = window_names({one["window"] for one in stored if "window" in one})
    soft_ids = [one["budget"] for one in stored if "budget" in one]
    soft = {str(budget.pk): budget for budget in Budget.objects.filter(pk__in=soft_ids)} if soft_ids else {}
    stories = []
    for one in stored:
        if "window" in one:
            known = windows.get(one["window"], {})
            stories.append(
                ChargeStory(
                    budget=known.get("budget", f"window {one['window']}, deleted since"),
                    budget_id=known.get("budget_id"),
                    soft=False,
                    held_nano=one.get("held", 0),
                    cost_nano=one.get("cost", 0),
                    overrun_nano=one.get("overrun", 0),
                    starts_at=known.get("starts_at"),
                    ends_at=known.get("ends_at"),
                )
            )
            continue
        budget = soft.get(one["budget"])
        stories.append(
            ChargeStory(
                budget=budget.slug if budget else "a budget deleted since",
                budget_id=budget.pk if budget else None,
                soft=True,
                held_nano=0,
                cost_nano=one.get("cost", 0),
                overrun_nano=0,
            )
        )
    return stories


def _encoded(call: Call) -> str:
    text = f"{call.started_at.astimezone(UTC).isoformat()} {call.pk.hex}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decoded(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, identifier = text.split(" ")
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError(at)
        return moment, UUID(identifier)
    except (ValueError, binascii.Error):
        raise InvalidRequest(
            "cursor: this is not a cursor of this list. Begin again at the first page.", param="cursor"
        ) from None
