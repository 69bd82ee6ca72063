"""``/api/v1/models`` with versions and prices."""

from __future__ import annotations

from django.db.models import QuerySet
from django.utils import timezone
from django_filters import BooleanFilter, FilterSet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.access.models import slug_validator
from llmops.base.money_fields import UsdField
from llmops.core.money import format_usd
from llmops.providers import services
from llmops.providers.api.shared import BySlug, Switches
from llmops.providers.models import Model, ModelConfig, Price, Provider
from llmops.providers.rules import CAPABILITIES, TOKEN_CLASSES
from llmops.providers.selectors import unpriced_models


class VersionSerializer(serializers.ModelSerializer[ModelConfig]):
    provider = BySlug(queryset=Provider.objects.all())
    capabilities = serializers.ListField(
        child=serializers.ChoiceField(choices=CAPABILITIES), required=False, default=list
    )
    parameters = serializers.DictField(required=False, default=dict)

    class Meta:
        model = ModelConfig
        fields = (
            "version",
            "provider",
            "upstream_model",
            "floats",
            "floats_reason",
            "context_window",
            "max_output_tokens",
            "default_max_output_tokens",
            "parameters",
            "capabilities",
            "note",
            "digest",
            "created_at",
            "created_by",
        )
        read_only_fields = ("version", "floats", "digest", "created_at", "created_by")


class PriceSerializer(serializers.ModelSerializer[Price]):
    usd_per_million = UsdField(
        source="nano_per_million", help_text='Text such as "2.50", per million tokens.'
    )
    token_class = serializers.ChoiceField(choices=TOKEN_CLASSES)
    effective_from = serializers.DateTimeField(required=False)

    class Meta:
        model = Price
        fields = (
            "id",
            "token_class",
            "usd_per_million",
            "effective_from",
            "source",
            "created_at",
            "created_by",
        )
        read_only_fields = ("created_by",)


class ModelSerializer(serializers.ModelSerializer[Model]):
    current = VersionSerializer(read_only=True)
    prices = serializers.SerializerMethodField(
        help_text="USD per million tokens in force now, by token class."
    )

    class Meta:
        model = Model
        fields = ("id", "slug", "current", "prices", "archived_at", "created_at", "updated_at")

    def get_prices(self, model: Model) -> dict[str, str]:
        now = timezone.now()
        dated = sorted(model.prices.all(), key=lambda price: price.effective_from)
        return {
            price.token_class: format_usd(price.nano_per_million)
            for price in dated
            if price.effective_from <= now
        }


class NewModel(VersionSerializer):
    slug = serializers.CharField(max_length=63, validators=[slug_validator])
    load_prices = serializers.BooleanField(
        default=False,
        help_text="Give it the prices that the shipped list knows of the model it is pinned to.",
    )

    class Meta(VersionSerializer.Meta):
        fields = ("slug", "load_prices", *VersionSerializer.Meta.fields)  # type: ignore[assignment]


class ModelFilters(FilterSet):
    unpriced = BooleanFilter(
        method="by_price", help_text="Models in use that have no price (or that have one)."
    )

    class Meta:
        model = Model
        fields = ("slug", "current__provider__slug")

    def by_price(self, models: QuerySet[Model], name: str, wanted: bool) -> QuerySet[Model]:
        unpriced = unpriced_models().order_by().values("pk")
        return models.filter(pk__in=unpriced) if wanted else models.exclude(pk__in=unpriced)


class Models(mixins.ListModelMixin, mixins.RetrieveModelMixin, Switches):
    """Pinned models. A version is never changed: adding one makes it current. Prices are dated and never edited."""

    queryset = Model.objects.select_related("current__provider").prefetch_related("prices")
    serializer_class = ModelSerializer
    kind = "model"
    lookup_field = "slug"
    lookup_value_regex = "[^/]+"
    filterset_class: type[FilterSet] | None = ModelFilters
    project_path = None
    permission_map = {
        **dict.fromkeys(("list", "retrieve", "versions", "prices"), "model.view"),
        **dict.fromkeys(("create", "pin", "archive", "restore"), "model.manage"),
        "add_price": "price.manage",
    }

    @extend_schema(request=NewModel, responses={201: ModelSerializer})
    def create(self, request: Request) -> Response:
        return self.answer(services.create_model(self.actor, **self.decoded(NewModel)), status=201)

    @extend_schema(responses=VersionSerializer(many=True))
    @action(detail=True, methods=["get"], serializer_class=VersionSerializer, filterset_class=None)
    def versions(self, request: Request, slug: str) -> Response:
        rows = self.get_object().versions.select_related("provider").order_by("-version")
        return Response(VersionSerializer(rows, many=True).data)

    @extend_schema(request=VersionSerializer, responses={201: VersionSerializer})
    @versions.mapping.post
    def pin(self, request: Request, slug: str) -> Response:
        """A new version: the current one with the members that are sent (200 and the current one without a difference)."""
        model = self.get_object()
        changes = self.decoded(VersionSerializer, partial=True)
        note = changes.pop("note", "")
        version = services.pin_model(self.actor, model=model, changes=changes, note=note)
        return Response(VersionSerializer(version).data, status=200 if version == model.current else 201)

    @extend_schema(responses=PriceSerializer(many=True))
    @action(detail=True, methods=["get"], serializer_class=PriceSerializer, filterset_class=None)
    def prices(self, request: Request, slug: str) -> Response:
        rows = self.get_object().prices.order_by("token_class", "-effective_from")
        return Response(PriceSerializer(rows, many=True).data)

    @extend_schema(request=PriceSerializer, responses={201: PriceSerializer})
    @prices.mapping.post
    def add_price(self, request: Request, slug: str) -> Response:
        price = services.add_price(self.actor, model=self.get_object(), **self.decoded(PriceSerializer))
        return Response(PriceSerializer(price).data, status=201)
