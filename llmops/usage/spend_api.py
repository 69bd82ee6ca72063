"""``/api/v1/spend/`` and ``/api/v1/outcomes/``."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import QueryDict
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter
from rest_framework.utils.urls import replace_query_param

from llmops.access.models import Project
from llmops.access.selectors import powers_of, projects_for
from llmops.base.drf import ConsoleViewSet
from llmops.base.money_fields import UsdField
from llmops.core.errors import InvalidRequest
from llmops.core.money import format_usd
from llmops.usage import services
from llmops.usage.models import CallOutcome, Rollup
from llmops.usage.selectors import Group, Span, SpendFilters, Sums, spend_by
from llmops.usage.selectors.spend import DIMENSIONS, midnight, projects_of_cost_centre
from llmops.usage.services.outcomes import LONGEST_NOTE, MOST_AT_ONCE

#: Groups that are looked at in all; beyond them, end users and tags are one line, ``rest``.
_MOST_GROUPS = 10_000
_HOUR = timedelta(hours=1)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_PARAMETERS = {
    "group_by": f"One of {', '.join(DIMENSIONS)}. Left out: `project`.",
    "from": "First moment: a day (2026-11-01) or a whole hour (2026-11-01T05:00Z). Left out: the first of this month, UTC.",
    "to": "Moment after the last: a day or a whole hour. Left out: now. `from=2026-11-01&to=2026-12-01` is November.",
    "project": "Slug of a project.",
    "cost_centre": "Of the projects that it pays for today.",
    "key": "Id of a service key.",
    "route": "",
    "model": "",
    "feature": "",
    "cursor": "From `next` of the page before.",
    "page_size": "Groups on a page, at most 500.",
}


class SpendSums(serializers.Serializer[Any]):
    """Amounts in USD as exact text. ``calls`` includes those that were refused."""

    cost_usd = serializers.CharField()
    calls = serializers.IntegerField()
    refused = serializers.IntegerField()
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    saved_usd = serializers.CharField(help_text="What answers of the response cache would have cost.")
    cost_per_call_usd = serializers.CharField(
        allow_null=True, help_text="Of calls that were not refused, rounded to a billionth."
    )
    cost_per_1000_tokens_usd = serializers.CharField(allow_null=True)


class SpendGroup(SpendSums):
    group = serializers.CharField(help_text="The name; empty for calls without one.")
    value = serializers.CharField(help_text="What identifies it: an id where there is one.")
    project_id = serializers.UUIDField(allow_null=True, required=False, help_text="Whose end user it is.")


SpendPage = type(
    "SpendPage",
    (serializers.Serializer,),
    {
        "__doc__": "``total`` is that of all groups together with ``rest``, which no group of the list holds.",
        "from": serializers.DateTimeField(),
        "to": serializers.DateTimeField(),
        "group_by": serializers.CharField(),
        "total": SpendSums(),
        "rest": SpendSums(),
        "next": serializers.CharField(allow_null=True),
        "results": SpendGroup(many=True),
    },
)


class SpendFigures(ConsoleViewSet):
    """What was spent, by one dimension. Figures are kept by whole hours, of end users and tags by whole days (UTC)."""

    queryset = Rollup.objects.all()
    serializer_class = SpendSums
    project_path = "project_id"
    filter_backends = ()
    pagination_class = None  # type: ignore[assignment]
    permission_map = {"list": "usage.view"}

    @extend_schema(
        responses=SpendPage,
        parameters=[
            OpenApiParameter(name, OpenApiTypes.STR, description=text) for name, text in _PARAMETERS.items()
        ],
    )
    def list(self, request: Request) -> Response:
        asked = request.query_params
        for name in asked:
            if name not in _PARAMETERS:
                raise InvalidRequest(
                    f"There is no parameter {name!r} here. Parameters are {', '.join(_PARAMETERS)}.",
                    param=name,
                )
        group_by = asked.get("group_by") or "project"
        span = _span(asked)
        found = spend_by(group_by, span, _filters(request), most=_MOST_GROUPS)
        page, following = _page(found.groups, asked, newest_last=group_by == "day")
        link = None
        if following:
            link = replace_query_param(request.build_absolute_uri(), "cursor", following)
        return Response(
            {
                "from": span.start,
                "to": span.end,
                "group_by": group_by,
                "total": sums_body(found.total),
                "rest": sums_body(found.rest),
                "next": link,
                "results": [_group_body(group) for group in page],
            }
        )


def sums_body(sums: Sums) -> dict[str, Any]:
    return {
        "cost_usd": format_usd(sums.cost_nano),
        "calls": sums.calls,
        "refused": sums.refused,
        "input_tokens": sums.input_tokens,
        "output_tokens": sums.output_tokens,
        "saved_usd": format_usd(sums.saved_nano),
        "cost_per_call_usd": _usd(sums.per_call_nano),
        "cost_per_1000_tokens_usd": _usd(sums.per_thousand_tokens_nano),
    }


def _group_body(group: Group) -> dict[str, Any]:
    body = {"group": group.name, "value": group.value, **sums_body(group.sums)}
    if group.project_id is not None and str(group.project_id) != group.value:
        body["project_id"] = group.project_id
    return body


def _usd(nano: int | None) -> str | None:
    return None if nano is None else format_usd(nano)


def _span(asked: QueryDict) -> Span:
    now = datetime.now(UTC)
    start = _moment(asked, "from")
    end = _moment(asked, "to") or now.replace(minute=0, second=0, microsecond=0) + _HOUR
    # An hour before the first of all moments there is none.
    last = max(end, _EARLIEST) - _HOUR
    return Span(start or min(midnight(now), last).replace(day=1, hour=0), end)


def _moment(asked: QueryDict, name: str) -> datetime | None:
    text = (asked.get(name) or "").strip()
    if not text:
        return None
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        # A plus sign that was not escaped arrives as a blank.
        moment = parse_datetime(text.replace(" ", "+"))
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest(
        f"{name}: write a day such as 2026-11-01, or a whole hour with its time zone such as 2026-11-01T05:00Z.",
        param=name,
    )


def _filters(request: Request) -> SpendFilters:
    asked = request.query_params
    project_ids = visible_projects(request)
    if slug := asked.get("project"):
        project: Project | None = projects_for(request, "usage.view").filter(slug=slug).first()
        if project is None:
            raise InvalidRequest(
                f"project: there is no project {slug[:80]!r} that you may see.", param="project"
            )
        project_ids = {project.pk}
    if "cost_centre" in asked:
        project_ids = set(projects_of_cost_centre(asked["cost_centre"], project_ids))
    key = asked.get("key") or None
    try:
        key_id = UUID(key) if key else None
    except ValueError:
        raise InvalidRequest("key: this is not an id (a UUID).", param="key") from None
    texts = {name: asked.get(name, "") for name in ("route", "model", "feature")}
    nameless = frozenset(name for name, value in texts.items() if name in asked and not value)
    return SpendFilters(project_ids=project_ids, key_id=key_id, nameless=nameless, **texts)


def visible_projects(request: Request) -> set[UUID] | None:
    """Projects whose usage may be seen; None: all."""
    if powers_of(request).allow("usage.view", None):
        return None
    return set(projects_for(request, "usage.view").values_list("pk", flat=True))


def _page(groups: list[Group], asked: QueryDict, *, newest_last: bool) -> tuple[list[Group], str | None]:
    """Groups after the cursor, which names the last one of the page before: none is given twice, whatever grows meanwhile."""
    text = asked.get("page_size") or "100"
    if not text.isdecimal() or not 1 <= int(text[:9]) <= 500:
        raise InvalidRequest("page_size: a number from 1 to 500.", param="page_size")
    size = int(text)

    def place(group: Group) -> list[Any]:
        amounts = [0, 0] if newest_last else [-group.sums.cost_nano, -group.sums.calls]
        return [*amounts, group.name, group.value, str(group.project_id or "")]

    groups = sorted(groups, key=place)
    if cursor := asked.get("cursor"):
        after = _decoded(cursor)
        groups = [group for group in groups if place(group) > after]
    page = groups[:size]
    return page, _encoded(place(page[-1])) if len(groups) > size else None


def _encoded(place: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _decoded(cursor: str) -> list[Any]:
    try:
        place = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        kinds = [type(one) for one in place] if isinstance(place, list) else []
        if kinds != [int, int, str, str, str]:
            raise ValueError(cursor)
        return list(place)
    except (ValueError, binascii.Error, RecursionError):
        raise InvalidRequest(
            "cursor: this is not a cursor of this list. Begin again at the first page.", param="cursor"
        ) from None


# --- outcomes --------------------------------------------------------------------------------------------------------


class OutcomeSerializer(serializers.ModelSerializer[CallOutcome]):
    value = UsdField(source="value_nano", read_only=True)

    class Meta:
        model = CallOutcome
        fields = ("call_id", "kind", "value", "at", "note", "feature", "route", "model", "told_at", "told_by")
        read_only_fields = fields


class ZonedMoment(serializers.DateTimeField):
    """A moment that says its time zone: whose clock another one would be by, nobody can tell."""

    def enforce_timezone(self, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise serializers.ValidationError(
                "this has no time zone. Add Z for UTC or an offset: 2026-11-26T12:00:00Z, 2026-11-26T12:00:00+01:00."
            )
        return super().enforce_timezone(value)


class OutcomeGiven(serializers.Serializer[Any]):
    call_id = serializers.UUIDField(help_text="From the header `x-llmops-call-id` of the call's answer.")
    kind = serializers.CharField(max_length=40, help_text="Such as resolved, converted, thumbs_up.")
    value = UsdField(
        required=False,
        allow_null=True,
        help_text='What it brought, in USD as text: "49.90"; null: none. Left out: as told before.',
    )
    at = ZonedMoment(
        required=False, help_text="When it came about, with its time zone; left out: as told before, or now."
    )
    note = serializers.CharField(
        max_length=LONGEST_NOTE, required=False, allow_blank=True, help_text="Left out: as told before."
    )


class OutcomesGiven(serializers.Serializer[Any]):
    outcomes = OutcomeGiven(many=True, allow_empty=False)


class OutcomesBooked(serializers.Serializer[Any]):
    """For each outcome in the order given: recorded, changed, unchanged or unknown."""

    recorded = serializers.IntegerField()
    changed = serializers.IntegerField()
    unchanged = serializers.IntegerField()
    unknown = serializers.IntegerField()
    results = serializers.ListField(child=serializers.CharField())


class Outcomes(mixins.ListModelMixin, ConsoleViewSet):
    """What calls brought. A service tells it with its own key, whenever it is known; telling it again changes nothing."""

    queryset = CallOutcome.objects.all()
    serializer_class = OutcomeSerializer
    project_path = "project_id"
    filterset_fields = ("kind", "feature", "call_id")
    permission_map = {"list": "usage.view", "create": "outcome.report"}

    @extend_schema(request=OutcomesGiven, responses=OutcomesBooked)
    def create(self, request: Request) -> Response:
        told = [
            services.Told(
                call_id=one["call_id"],
                kind=one["kind"],
                value_nano=(one["value"] or 0) if "value" in one else None,
                at=one.get("at"),
                note=one.get("note"),
            )
            for one in _given(request)
        ]
        project_ids = None
        if not powers_of(request).allow("outcome.report", None):
            project_ids = set(projects_for(request, "outcome.report").values_list("pk", flat=True))
        results = services.report_outcomes(self.actor, told, project_ids=project_ids)
        counts = {name: results.count(name) for name in ("recorded", "changed", "unchanged", "unknown")}
        return Response({**counts, "results": results})


def _given(request: Request) -> list[dict[str, Any]]:
    """A list of outcomes, alone or as the member ``outcomes``; one that cannot be read is named with its place."""
    body: Any = request.data
    if isinstance(body, dict):
        for name in body:
            if name != "outcomes":
                raise InvalidRequest(f"There is no field {name!r} here. Send a list as outcomes.", param=name)
        body = body.get("outcomes")
    if not isinstance(body, list) or not body:
        raise InvalidRequest(
            'outcomes: send a list such as [{"call_id": "...", "kind": "resolved"}].', param="outcomes"
        )
    if len(body) > MOST_AT_ONCE:
        raise InvalidRequest(f"outcomes: at most {MOST_AT_ONCE} in one request.", param="outcomes")
    found = []
    for index, one in enumerate(body):
        where = f"outcomes[{index}]"
        if not isinstance(one, dict):
            raise InvalidRequest(f"{where}: an object with call_id and kind.", param=where)
        serializer = OutcomeGiven(data=one)
        for name in one:
            if name not in serializer.fields:
                raise InvalidRequest(
                    f"{where}.{name}: there is no such field. Fields are {', '.join(serializer.fields)}.",
                    param=f"{where}.{name}",
                )
        try:
            valid = serializer.is_valid()
        except InvalidRequest as refusal:
            # Amounts refuse by themselves, and know their field but not their place.
            raise InvalidRequest(f"{where}.{refusal.message}", param=f"{where}.{refusal.param}") from None
        if not valid:
            field, problems = next(iter(serializer.errors.items()))
            raise InvalidRequest(f"{where}.{field}: {problems[0]}", param=f"{where}.{field}")
        found.append(dict(serializer.validated_data))
    return found


def register(router: BaseRouter) -> None:
    router.register("spend", SpendFigures, basename="spend")
    router.register("outcomes", Outcomes, basename="outcome")
