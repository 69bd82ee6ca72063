"""``/api/v1/routes``."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.providers import services
from llmops.providers.api.shared import SLUG, BySlug, Explanation, Pauses, refuse_renaming
from llmops.providers.models import Model, OpenBreaker, Route
from llmops.providers.rules import FAILURE_CLASSES, LONGEST_ANSWER
from llmops.providers.selectors import open_breakers
from llmops.providers.services.routes import FIELDS as ROUTE_FIELDS


class TargetSerializer(serializers.Serializer[Any]):
    model = BySlug(queryset=Model.objects.all())
    weight = serializers.IntegerField(min_value=0, max_value=1_000_000, default=100)


class BreakerSerializer(serializers.ModelSerializer[OpenBreaker]):
    one_project = serializers.SerializerMethodField(
        help_text="Only the calls of one project are kept away: theirs alone fail there."
    )

    def get_one_project(self, breaker: OpenBreaker) -> bool:
        return bool(breaker.project)

    class Meta:
        model = OpenBreaker
        fields = ("model", "provider", "host", "process", "since", "until", "why", "one_project")


class RouteSerializer(serializers.ModelSerializer[Route]):
    targets = TargetSerializer(many=True, required=False, default=list)
    fallbacks = BySlug(many=True, queryset=Model.objects.all(), required=False, default=list)
    fallbacks_for = serializers.DictField(
        child=BySlug(many=True, queryset=Model.objects.all()),
        required=False,
        default=dict,
        help_text="Class of failure -> models that are tried after it, in place of ``fallbacks``. Classes: "
        + ", ".join(name for name, _ in FAILURE_CLASSES),
    )
    larger_model = BySlug(queryset=Model.objects.all(), required=False, allow_null=True)
    summary_model = BySlug(queryset=Model.objects.all(), required=False, allow_null=True)
    static_answer = serializers.CharField(
        max_length=LONGEST_ANSWER, required=False, allow_blank=True, trim_whitespace=False
    )
    policies = serializers.ListField(child=serializers.CharField(max_length=63), required=False)

    open_breakers = serializers.SerializerMethodField(
        help_text="Targets that data planes leave alone now: where, since and until when, and why."
    )

    @extend_schema_field(BreakerSerializer(many=True))
    def get_open_breakers(self, route: Route) -> Any:
        # Once for a whole list of routes.
        shared = cast(dict[str, Any], self.context)
        found = shared.get("open_breakers")
        if found is None:
            found = shared["open_breakers"] = open_breakers()
        return BreakerSerializer([one for one in found if one.route == route.slug], many=True).data

    class Meta:
        model = Route
        fields = (
            "id",
            "slug",
            *ROUTE_FIELDS,
            "targets",
            "fallbacks",
            "fallbacks_for",
            "paused_at",
            "pause_reason",
            "degraded_at",
            "degrade_reason",
            "breakers_reset_at",
            "open_breakers",
            "archived_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = (
            "paused_at",
            "pause_reason",
            "degraded_at",
            "degrade_reason",
            "breakers_reset_at",
            "archived_at",
        )
        extra_kwargs = {"slug": SLUG}

    def to_representation(self, route: Route) -> dict[str, Any]:
        rows = sorted(route.targets.all(), key=lambda row: (row.position, row.model.slug))
        data: dict[str, Any] = {}
        for name, field in self.fields.items():
            if name == "targets":
                data[name] = [
                    {"model": row.model.slug, "weight": row.weight} for row in rows if not row.fallback
                ]
            elif name == "fallbacks":
                data[name] = [row.model.slug for row in rows if row.fallback and not row.failure_class]
            elif name == "fallbacks_for":
                data[name] = {
                    each: [row.model.slug for row in rows if row.failure_class == each]
                    for each in sorted({row.failure_class for row in rows} - {""})
                }
            else:
                value = field.get_attribute(route)
                data[name] = None if value is None else field.to_representation(value)
        return data


class Routes(mixins.ListModelMixin, mixins.RetrieveModelMixin, Pauses):
    """Public names for weighted targets and ordered fallbacks. Pausing and degrading take effect at once, the rest once
    published.
    """

    queryset = Route.objects.select_related("larger_model", "summary_model").prefetch_related(
        "targets__model"
    )
    serializer_class = RouteSerializer
    kind = "route"
    lookup_field = "slug"
    lookup_value_regex = "[^/]+"
    filterset_fields = ("slug",)
    project_path = None
    permission_map = {
        "list": "route.view",
        "retrieve": "route.view",
        **dict.fromkeys(
            (
                "create",
                "partial_update",
                "archive",
                "restore",
                "pause",
                "resume",
                "degrade",
                "recover",
                "reset_breakers",
            ),
            "route.manage",
        ),
    }

    def create(self, request: Request) -> Response:
        data = self.decoded()
        slug, targets, fallbacks = data.pop("slug"), data.pop("targets"), data.pop("fallbacks")
        fallbacks_for = data.pop("fallbacks_for")
        route = services.create_route(
            self.actor,
            slug=slug,
            targets=_chosen(targets),
            fallbacks=fallbacks,
            fallbacks_for=fallbacks_for,
            fields=data,
        )
        return self.answer(route, status=201)

    def partial_update(self, request: Request, slug: str) -> Response:
        """``targets``, ``fallbacks`` and ``fallbacks_for`` replace the present ones where they are sent."""
        route = self.get_object()
        data = self.decoded(partial=True)
        refuse_renaming(data, route)
        targets, fallbacks = data.pop("targets", None), data.pop("fallbacks", None)
        fallbacks_for = data.pop("fallbacks_for", None)
        changed = services.update_route(
            self.actor,
            route=route,
            changes=data,
            targets=None if targets is None else _chosen(targets),
            fallbacks=fallbacks,
            fallbacks_for=fallbacks_for,
        )
        return self.answer(changed)

    @extend_schema(request=Explanation)
    @action(detail=True, methods=["post"])
    def degrade(self, request: Request, slug: str) -> Response:
        """Pass over the targets: fallbacks answer, then the last resort."""
        return self._call("degrade", **self.decoded(Explanation))

    @extend_schema(request=Explanation)
    @action(detail=True, methods=["post"], url_path="reset-breakers")
    def reset_breakers(self, request: Request, slug: str) -> Response:
        """Close the breakers of this route in every data plane."""
        return self._call("reset_breakers", **self.decoded(Explanation))

    @extend_schema(request=Explanation)
    @action(detail=True, methods=["post"])
    def recover(self, request: Request, slug: str) -> Response:
        """Use the targets of a degraded route again."""
        return self._call("recover", **self.decoded(Explanation))


def _chosen(targets: list[dict[str, Any]]) -> list[tuple[Model, int]]:
    return [(target["model"], target["weight"]) for target in targets]
