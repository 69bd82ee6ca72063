"""``/api/v1/actions``: propose a call of a tool, wait for it, and carry it out oneself where the tool says so."""

from __future__ import annotations

import json
import time
from threading import BoundedSemaphore
from typing import Any

from django.db import connection
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.access.api import ProjectField
from llmops.base.drf import ConsoleViewSet
from llmops.core.errors import InvalidRequest
from llmops.tools import services
from llmops.tools.models import Action

#: A question that waits has a thread for as long; so many may, and the rest is answered at once.
LONGEST_WAIT_S, MOST_WAITING, _LOOK_S = 25.0, 12, 0.2
_places = BoundedSemaphore(MOST_WAITING)
#: Nothing more comes by itself.
_OVER = frozenset((Action.SUCCEEDED, Action.FAILED, Action.UNKNOWN, Action.REJECTED, Action.EXPIRED, Action.CANCELLED,
                   Action.SUPERSEDED))  # fmt: skip


class ActionSerializer(serializers.ModelSerializer[Action]):
    project = ProjectField(read_only=True)
    tool = serializers.CharField(source="tool.slug", read_only=True)
    version = serializers.IntegerField(source="version.number", read_only=True)
    arguments = serializers.SerializerMethodField()
    on_behalf_of = serializers.CharField(source="behalf_of_name", read_only=True)
    approvals = serializers.SerializerMethodField(help_text="Given, and needed.")
    expires_at = serializers.SerializerMethodField()
    superseded_by = serializers.SerializerMethodField()

    class Meta:
        model = Action
        fields = (
            "id", "project", "tool", "version", "arguments", "says", "digest", "reason", "run", "risk", "risk_rule",
            "requested_by_name", "on_behalf_of", "state", "approvals", "expires_at", "approved_at", "claimed_at",
            "finished_at", "result", "message", "resolution", "resolved_by", "supersedes", "superseded_by", "created_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_arguments(self, row: Action) -> dict[str, Any]:
        return row.given

    def get_approvals(self, row: Action) -> dict[str, int]:
        if row.request is None:
            return {"given": 0, "needed": 0}
        given = sum(one.approves for one in row.request.decisions.all())
        return {"given": given, "needed": row.request.required}

    def get_expires_at(self, row: Action) -> str | None:
        waits = row.request is not None and row.state == Action.WAITING
        return row.request.expires_at.isoformat() if waits and row.request else None

    def get_superseded_by(self, row: Action) -> str | None:
        later = getattr(row, "superseded_by", None)
        return str(later.pk) if later else None


class Proposal(serializers.Serializer[Any]):
    tool = serializers.CharField(max_length=63)
    arguments = serializers.JSONField(
        help_text="As the tool's schema has them; text is read as JSON, as models write it."
    )
    project = ProjectField(required=False, help_text="Left out: the project of the key.")
    reason = serializers.CharField(max_length=2000, required=False, allow_blank=True, default="")
    run = serializers.CharField(max_length=64, required=False, allow_blank=True, default="")
    on_behalf_of = serializers.CharField(
        max_length=150, required=False, allow_blank=True, default="", help_text="A username, who may then not approve it."
    )  # fmt: skip


class Redemption(serializers.Serializer[Any]):
    token = serializers.CharField(max_length=200)


class ActionReport(serializers.Serializer[Any]):
    claim = serializers.UUIDField(help_text="As redeeming gave it.")
    succeeded = serializers.BooleanField()
    result = serializers.JSONField(required=False, allow_null=True, default=None)
    message = serializers.CharField(max_length=1000, required=False, allow_blank=True, default="")


class Finding(serializers.Serializer[Any]):
    happened = serializers.BooleanField()
    reason = serializers.CharField(max_length=500)


class WithdrawalBody(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class RedeemedSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    claim = serializers.UUIDField()
    arguments = serializers.DictField(help_text="Carry out exactly these.")
    digest = serializers.CharField()
    deadline_at = serializers.DateTimeField(help_text="Without a report by then the outcome is unknown.")


class Actions(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Calls of tools that somebody proposed. Each is carried out at most once, and only as it was approved."""

    queryset = Action.objects.select_related(
        "project", "tool", "version", "request", "superseded_by"
    ).prefetch_related("request__decisions")
    serializer_class = ActionSerializer
    filterset_fields = ("state", "risk", "run", "tool__slug", "project__slug")
    permission_map = {
        **dict.fromkeys(("list", "retrieve"), "action.view"),
        **dict.fromkeys(("create", "withdraw", "redeem", "report"), "action.propose"),
        "resolve": "action.resolve",
    }

    @extend_schema(
        request=Proposal,
        responses={201: ActionSerializer},
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)],
    )
    def create(self, request: Request) -> Response:
        """Propose a call. It waits for approval, or runs where nobody need agree; ``GET`` its address to wait."""
        data = self.decoded(Proposal)
        key = getattr(request._request, "service_key", None)
        project = data.pop("project", None) or (key.project if key is not None else None)
        if project is None:
            raise InvalidRequest("project: name the project of the tool.", param="project")
        self.check_may("action.propose", project)
        made = services.propose(
            self.actor,
            project=project,
            tool=data["tool"],
            arguments=_read(data["arguments"]),
            reason=data["reason"],
            run=data["run"],
            behalf_of=data["on_behalf_of"],
            idempotency_key=request.headers.get("Idempotency-Key", ""),
        )
        return Response(self._told(made), status=201, headers={"Location": f"{request.path}{made.pk}/"})

    @extend_schema(
        parameters=[OpenApiParameter("wait", float, description="Seconds to wait for the end, at most 25.")]
    )
    def retrieve(self, request: Request, pk: str) -> Response:
        """One action. With ``wait`` the answer comes when it is over, when it can be redeemed, or when the time is up."""
        row = self.get_object()
        wait = _seconds(request.query_params.get("wait", "0"))
        if wait and _places.acquire(blocking=False):
            try:
                _wait(row, wait)
            finally:
                _places.release()
            self.check_still("action.view", row.project_id)
        return Response(self._told(row))

    @extend_schema(request=WithdrawalBody, responses=ActionSerializer)
    @action(detail=True, methods=["post"])
    def withdraw(self, request: Request, pk: str) -> Response:
        """Take back what one proposed oneself, as long as nobody began with it."""
        row, data = self.get_object(), self.decoded(WithdrawalBody)
        return Response(self._told(services.withdraw(self.actor, action=row, **data)))

    @extend_schema(request=Redemption, responses=RedeemedSerializer)
    @action(detail=True, methods=["post"])
    def redeem(self, request: Request, pk: str) -> Response:
        """Claim an approved action, once, to carry it out oneself."""
        row, data = self.get_object(), self.decoded(Redemption)
        claimed, claim_id = services.redeem(self.actor, action=row, token=data["token"])
        return Response(
            {
                "id": str(claimed.pk),
                "claim": str(claim_id),
                "arguments": claimed.given,
                "digest": claimed.digest,
                "deadline_at": claimed.deadline_at,
            }
        )

    @extend_schema(request=ActionReport, responses=ActionSerializer)
    @action(detail=True, methods=["post"])
    def report(self, request: Request, pk: str) -> Response:
        """What came of an action that was redeemed."""
        row, data = self.get_object(), self.decoded(ActionReport)
        claim_id = data.pop("claim")
        return Response(self._told(services.report(self.actor, action=row, claim_id=claim_id, **data)))

    @extend_schema(request=Finding, responses=ActionSerializer)
    @action(detail=True, methods=["post"])
    def resolve(self, request: Request, pk: str) -> Response:
        """What a person found out about an unknown outcome. Nothing is run again."""
        row, data = self.get_object(), self.decoded(Finding)
        return Response(self._told(services.resolve(self.actor, action=row, **data)))

    def _told(self, row: Action) -> dict[str, Any]:
        """The action; to who proposed it also the token, while it can be redeemed."""
        fresh = type(self).queryset.get(pk=row.pk)
        told: dict[str, Any] = dict(ActionSerializer(fresh).data)
        actor = self.actor
        own = (actor.kind, actor.identifier[:64]) == (fresh.requested_by_kind, fresh.requested_by_id)
        if own and _redeemable(fresh):
            told["token"] = services.token_of(fresh)
        return told


def _redeemable(row: Action) -> bool:
    return row.state == Action.APPROVED and row.version.definition["execution"] == "service"


def _wait(row: Action, seconds: float) -> None:
    until = time.monotonic() + seconds
    hands_out = row.version.definition["execution"] == "service"
    over = _OVER | ({Action.APPROVED} if hands_out else frozenset())
    while time.monotonic() < until:
        state = Action.objects.filter(pk=row.pk).values_list("state", flat=True).first()
        if state is None or state in over:
            return
        # Somebody else may have the connection while this one sleeps.
        if not connection.in_atomic_block:
            connection.close()
        time.sleep(min(_LOOK_S, max(0.0, until - time.monotonic())))


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 3600:
        raise InvalidRequest("wait: a number of seconds, at most 25.", param="wait")
    return min(found, LONGEST_WAIT_S)


def _read(arguments: Any) -> Any:
    """Models write arguments as text that holds JSON."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidRequest("arguments: this text is not JSON.", param="arguments") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is given twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)
