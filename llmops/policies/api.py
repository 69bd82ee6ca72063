"""``/api/v1/policies`` with versions, and trying them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access.models import slug_validator
from llmops.base.drf import ConsoleViewSet
from llmops.core.errors import NotFound
from llmops.policies import services
from llmops.policies.checks import CHECKS, describe
from llmops.policies.models import Policy, PolicyVersion
from llmops.policies.trial import MOST_CHARS, ROLES, Outcome, try_checks
from llmops.policies.wording import differences

_CHECKS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["kind", "stage", "action"],
        "properties": {
            "kind": {"type": "string", "enum": list(CHECKS)},
            "stage": {"type": "string", "enum": ["before", "after"]},
            "action": {"type": "string", "enum": ["allow", "redact", "retry", "require_approval", "block"]},
            "settings": {"type": "object"},
        },
    },
}


@extend_schema_field(_CHECKS)
class ChecksField(serializers.JSONField):
    """A list of checks; the service says what is wrong with it, by its path."""


class PolicyVersionSerializer(serializers.ModelSerializer[PolicyVersion]):
    checks = ChecksField(read_only=True)

    class Meta:
        model = PolicyVersion
        fields = ("number", "checks", "note", "digest", "created_at", "created_by")


class PolicyHistorySerializer(PolicyVersionSerializer):
    changes = serializers.ListField(
        child=serializers.CharField(), read_only=True, help_text="Against the version before, in words."
    )

    class Meta(PolicyVersionSerializer.Meta):
        fields = (*PolicyVersionSerializer.Meta.fields, "changes")  # type: ignore[assignment]


class PolicySerializer(serializers.ModelSerializer[Policy]):
    checks = ChecksField(write_only=True, help_text="The checks of the current version.")
    note = serializers.CharField(
        write_only=True, max_length=300, required=False, allow_blank=True, default=""
    )
    current = PolicyVersionSerializer(read_only=True)

    class Meta:
        model = Policy
        fields = (
            "id",
            "slug",
            "description",
            "everywhere",
            "checks",
            "note",
            "current",
            "archived_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("archived_at",)
        # The service answers 409 for a slug that is taken.
        extra_kwargs: dict[str, Any] = {"slug": {"validators": [slug_validator]}}


class PolicyRollBack(serializers.Serializer[Any]):
    version = serializers.IntegerField(min_value=1, max_value=2_147_483_647)
    reason = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class Sample(serializers.Serializer[Any]):
    asked = serializers.CharField(max_length=MOST_CHARS, trim_whitespace=False, allow_blank=True)
    role = serializers.ChoiceField(choices=ROLES, default="user")
    answer = serializers.CharField(
        max_length=MOST_CHARS, trim_whitespace=False, required=False, allow_null=True, default=None
    )
    version = serializers.IntegerField(
        min_value=1, max_value=2_147_483_647, required=False, allow_null=True, default=None
    )


class EmptyBody(serializers.Serializer[Any]):
    """An empty body."""


class TrialOutcomeSerializer(serializers.Serializer[Any]):
    action = serializers.CharField(
        help_text="The strictest of all that matched; ``allow`` where nothing did."
    )
    text = serializers.CharField(help_text="The text as it would go on.")
    changed = serializers.BooleanField()
    verdicts = serializers.ListField(child=serializers.DictField())
    unasked = serializers.ListField(
        child=serializers.CharField(), help_text="Checks that ask a model, which a trial does not."
    )
    advice = serializers.CharField(help_text="With ``retry``: what the model would be told.")


class TrialSerializer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    before = TrialOutcomeSerializer()
    after = TrialOutcomeSerializer(allow_null=True)


class Policies(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """What may be asked and answered. A version is never changed: other checks become a new one. Served once published."""

    queryset = Policy.objects.select_related("current")
    serializer_class = PolicySerializer
    lookup_field = "slug"
    lookup_value_regex = "[^/]+"
    filterset_fields = ("slug", "everywhere")
    project_path = None
    permission_map = {
        **dict.fromkeys(("list", "retrieve", "versions", "kinds", "trial"), "policy.view"),
        **dict.fromkeys(("create", "partial_update", "roll_back", "archive", "restore"), "policy.manage"),
    }

    def create(self, request: Request) -> Response:
        return self.answer(services.create_policy(self.actor, **self.decoded()), status=201)

    def partial_update(self, request: Request, slug: str) -> Response:
        """``checks`` replaces all of them, as a new version; without a difference nothing changes."""
        policy = self.get_object()
        data = self.decoded(partial=True)
        # The slug may be sent back, not changed: revisions, calls and routes name it.
        if data.get("slug") == policy.slug:
            del data["slug"]
        checks, note = data.pop("checks", None), data.pop("note", "")
        return self.answer(
            services.update_policy(self.actor, policy=policy, changes=data, checks=checks, note=note)
        )

    @extend_schema(request=PolicyRollBack, responses=PolicySerializer)
    @action(detail=True, methods=["post"], url_path="roll-back")
    def roll_back(self, request: Request, slug: str) -> Response:
        """Make the checks of an earlier version current again, as a new version."""
        policy, data = self.get_object(), self.decoded(PolicyRollBack)
        rolled_back = services.roll_back_policy(
            self.actor, policy=policy, number=data["version"], reason=data["reason"]
        )
        return self.answer(rolled_back)

    @extend_schema(request=EmptyBody)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, slug: str) -> Response:
        self.decoded(EmptyBody)
        return self.answer(services.archive_policy(self.actor, policy=self.get_object()))

    @extend_schema(request=EmptyBody)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, slug: str) -> Response:
        self.decoded(EmptyBody)
        return self.answer(services.unarchive_policy(self.actor, policy=self.get_object()))

    @extend_schema(responses=PolicyHistorySerializer(many=True))
    @action(detail=True, methods=["get"], serializer_class=PolicyHistorySerializer, filterset_fields=())
    def versions(self, request: Request, slug: str) -> Response:
        """All versions, the newest first, each with its differences to the one before in words."""
        rows: list[Any] = list(self.get_object().versions.order_by("number"))
        before: list[Any] = []
        for row in rows:
            row.changes = differences(before, row.checks)
            before = row.checks
        return Response(PolicyHistorySerializer(rows[::-1], many=True).data)

    @extend_schema(request=Sample, responses=TrialSerializer)
    @action(detail=True, methods=["post"], url_path="try")
    def trial(self, request: Request, slug: str) -> Response:
        """What a version (the current one by default) says about sample texts. EmptyBody is kept, no model is called."""
        policy, data = self.get_object(), self.decoded(Sample)
        number = data["version"]
        version = policy.current if number is None else policy.versions.filter(number=number).first()
        if version is None:
            raise NotFound(f"{policy.slug} has no version {number}.", param="version")
        tried = try_checks(
            policy.slug,
            version.number,
            version.checks,
            asked=data["asked"],
            answer=data["answer"],
            role=data["role"],
        )
        return Response(
            {
                "version": version.number,
                "before": _told(tried.before),
                "after": _told(tried.after) if tried.after is not None else None,
            }
        )

    @extend_schema(responses={200: {"type": "object"}})
    @action(detail=False, methods=["get"], filterset_fields=(), pagination_class=None)
    def kinds(self, request: Request) -> Response:
        """Every kind of check: what it finds, where it runs, what may follow, and the JSON Schema of its settings."""
        return Response({kind: describe(kind)._asdict() for kind in CHECKS})


def _told(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "verdicts": [msgspec.to_builtins(verdict) for verdict in outcome.verdicts]}


def register(router: BaseRouter | Any) -> None:
    router.register("policies", Policies)
