"""``/api/v1``: providers, their keys, models with versions and prices, routes.

Changes to providers, models, prices and routes are drafts until they are published (``/revisions/``); keys and pauses
take effect at once.
"""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access.models import slug_validator
from llmops.base.drf import ConsoleViewSet
from llmops.core.money import format_usd, parse_usd
from llmops.providers import services
from llmops.providers.models import Credential, Model, ModelConfig, Price, Provider, Route
from llmops.providers.rules import CAPABILITIES, TOKEN_CLASSES
from llmops.providers.services.providers import FIELDS as PROVIDER_FIELDS
from llmops.providers.services.routes import FIELDS as ROUTE_FIELDS

_SLUG: dict[str, Any] = {"validators": [slug_validator]}


class Reason(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class Nothing(serializers.Serializer[Any]):
    """An empty body."""


class BySlug(serializers.SlugRelatedField[Any]):
    """An object by its slug."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(slug_field="slug", **kwargs)


class UsdField(serializers.Field[int, Any, str, int]):
    """An amount of USD as text, exact; nanodollars inside."""

    def to_internal_value(self, data: Any) -> int:
        return parse_usd(data, field=str(self.field_name))

    def to_representation(self, value: int) -> str:
        return format_usd(value)


class ProviderSerializer(serializers.ModelSerializer[Provider]):
    class Meta:
        model = Provider
        fields = (
            "id",
            "slug",
            *PROVIDER_FIELDS,
            "paused_at",
            "pause_reason",
            "archived_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("paused_at", "pause_reason", "archived_at")
        extra_kwargs = {"slug": _SLUG, "base_url": {"validators": []}}


class _Switches(ConsoleViewSet):
    """Archiving, bringing back, pausing and resuming, by functions that a subclass names."""

    kind = ""

    def _call(self, name: str, **values: Any) -> Response:
        row = getattr(services, f"{name}_{self.kind}")(self.actor, **{self.kind: self.get_object()}, **values)
        return Response(type(self).serializer_class(row, context=self.get_serializer_context()).data)  # type: ignore[misc]

    @extend_schema(request=Nothing)
    @action(detail=True, methods=["post"], serializer_class=Nothing)
    def archive(self, request: Request, slug: str) -> Response:
        self.decoded()
        return self._call("archive")

    @extend_schema(request=Nothing)
    @action(detail=True, methods=["post"], serializer_class=Nothing)
    def restore(self, request: Request, slug: str) -> Response:
        self.decoded()
        return self._call("unarchive")


class _Pauses(_Switches):
    @extend_schema(request=Reason)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def pause(self, request: Request, slug: str) -> Response:
        return self._call("pause", **self.decoded())

    @extend_schema(request=Reason)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def resume(self, request: Request, slug: str) -> Response:
        return self._call("resume", **self.decoded())


class Providers(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Pauses):
    """Endpoints that serve models. Time-outs are milliseconds. A pause takes effect at once, the rest once published."""

    queryset = Provider.objects.all()
    serializer_class = ProviderSerializer
    kind = "provider"
    lookup_field = "slug"
    lookup_value_regex = "[^/]+"
    filterset_fields = ("slug", "kind")
    project_path = None
    permission_map = {
        "list": "provider.view",
        "retrieve": "provider.view",
        **dict.fromkeys(
            ("create", "partial_update", "archive", "restore", "pause", "resume"), "provider.manage"
        ),
    }

    def create(self, request: Request) -> Response:
        data = self.decoded()
        slug, kind, base_url = data.pop("slug"), data.pop("kind"), data.pop("base_url")
        provider = services.create_provider(self.actor, slug=slug, kind=kind, base_url=base_url, fields=data)
        return self.answer(provider, status=201)

    def partial_update(self, request: Request, slug: str) -> Response:
        provider = self.get_object()
        changes = self.decoded(partial=True)
        _refuse_renaming(changes, provider)
        return self.answer(services.update_provider(self.actor, provider=provider, changes=changes))


class CredentialSerializer(serializers.ModelSerializer[Credential]):
    provider = BySlug(queryset=Provider.objects.all())
    secret = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        max_length=10_000,
        help_text="Can be written, never read.",
    )

    class Meta:
        model = Credential
        fields = (
            "id",
            "provider",
            "name",
            "source",
            "reference",
            "secret",
            "fingerprint",
            "state",
            "state_changed_at",
            "last_probe_at",
            "last_probe_result",
            "last_used_at",
            "last_failure_at",
            "last_failure",
            "created_at",
            "updated_at",
        )
        read_only_fields = (
            "fingerprint",
            "state",
            "state_changed_at",
            "last_probe_at",
            "last_probe_result",
            "last_used_at",
            "last_failure_at",
            "last_failure",
        )
        extra_kwargs = {"source": {"required": False, "default": "sealed"}}
        # The service answers 409 for a name that is taken.
        validators: list[Any] = []


class NewSecret(serializers.ModelSerializer[Credential]):
    secret = serializers.CharField(write_only=True, required=False, allow_blank=True, max_length=10_000)

    class Meta:
        model = Credential
        fields = ("source", "reference", "secret")
        extra_kwargs = {"source": {"required": False, "default": "sealed"}}


class Activation(serializers.Serializer[Any]):
    unprobed_reason = serializers.CharField(
        max_length=300,
        required=False,
        allow_blank=True,
        default="",
        help_text="Needed for a key that was never seen working.",
    )


class Credentials(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Provider keys. A secret can be written and never read. Keys in use take effect within a second."""

    queryset = Credential.objects.select_related("provider")
    serializer_class = CredentialSerializer
    filterset_fields = ("provider__slug", "state", "name")
    project_path = None
    permission_map = {
        "list": "provider.view",
        "retrieve": "provider.view",
        **dict.fromkeys(
            ("create", "replace_secret", "probe", "activate", "drain", "revoke"), "provider.manage"
        ),
    }

    def create(self, request: Request) -> Response:
        return self.answer(services.add_credential(self.actor, **self.decoded()), status=201)

    @extend_schema(request=NewSecret, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], url_path="replace-secret", serializer_class=NewSecret)
    def replace_secret(self, request: Request, pk: str) -> Response:
        return self._shown(
            services.replace_secret(self.actor, credential=self.get_object(), **self.decoded())
        )

    @extend_schema(request=Nothing, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], serializer_class=Nothing)
    def probe(self, request: Request, pk: str) -> Response:
        """Try the key with a real call; what came of it stands in ``last_probe_result`` and ``last_failure``."""
        self.decoded()
        return self._shown(services.probe_credential(self.actor, credential=self.get_object()))

    @extend_schema(request=Activation, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], serializer_class=Activation)
    def activate(self, request: Request, pk: str) -> Response:
        return self._shown(
            services.activate_credential(self.actor, credential=self.get_object(), **self.decoded())
        )

    @extend_schema(request=Reason, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def drain(self, request: Request, pk: str) -> Response:
        return self._shown(
            services.drain_credential(self.actor, credential=self.get_object(), **self.decoded())
        )

    @extend_schema(request=Reason, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def revoke(self, request: Request, pk: str) -> Response:
        return self._shown(
            services.revoke_credential(self.actor, credential=self.get_object(), **self.decoded())
        )

    def _shown(self, credential: Credential) -> Response:
        return Response(CredentialSerializer(credential).data)


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

    class Meta(VersionSerializer.Meta):
        fields = ("slug", *VersionSerializer.Meta.fields)  # type: ignore[assignment]


class Models(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Switches):
    """Pinned models. A version is never changed: adding one makes it current. Prices are dated and never edited."""

    queryset = Model.objects.select_related("current__provider").prefetch_related("prices")
    serializer_class = ModelSerializer
    kind = "model"
    lookup_field = "slug"
    lookup_value_regex = "[^/]+"
    filterset_fields = ("slug", "current__provider__slug")
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
    @action(detail=True, methods=["get"], serializer_class=VersionSerializer, filterset_fields=())
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
    @action(detail=True, methods=["get"], serializer_class=PriceSerializer, filterset_fields=())
    def prices(self, request: Request, slug: str) -> Response:
        rows = self.get_object().prices.order_by("token_class", "-effective_from")
        return Response(PriceSerializer(rows, many=True).data)

    @extend_schema(request=PriceSerializer, responses={201: PriceSerializer})
    @prices.mapping.post
    def add_price(self, request: Request, slug: str) -> Response:
        price = services.add_price(self.actor, model=self.get_object(), **self.decoded(PriceSerializer))
        return Response(PriceSerializer(price).data, status=201)


class TargetSerializer(serializers.Serializer[Any]):
    model = BySlug(queryset=Model.objects.all())
    weight = serializers.IntegerField(min_value=0, max_value=1_000_000, default=100)


class RouteSerializer(serializers.ModelSerializer[Route]):
    targets = TargetSerializer(many=True, required=False, default=list)
    fallbacks = BySlug(many=True, queryset=Model.objects.all(), required=False, default=list)

    class Meta:
        model = Route
        fields = (
            "id",
            "slug",
            *ROUTE_FIELDS,
            "targets",
            "fallbacks",
            "paused_at",
            "pause_reason",
            "archived_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("paused_at", "pause_reason", "archived_at")
        extra_kwargs = {"slug": _SLUG}

    def to_representation(self, route: Route) -> dict[str, Any]:
        rows = sorted(route.targets.all(), key=lambda row: (row.position, row.model.slug))
        data: dict[str, Any] = {}
        for name, field in self.fields.items():
            if name == "targets":
                data[name] = [
                    {"model": row.model.slug, "weight": row.weight} for row in rows if not row.fallback
                ]
            elif name == "fallbacks":
                data[name] = [row.model.slug for row in rows if row.fallback]
            else:
                value = field.get_attribute(route)
                data[name] = None if value is None else field.to_representation(value)
        return data


class Routes(mixins.ListModelMixin, mixins.RetrieveModelMixin, _Pauses):
    """Public names for weighted targets and ordered fallbacks. A pause takes effect at once, the rest once published."""

    queryset = Route.objects.prefetch_related("targets__model")
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
            ("create", "partial_update", "archive", "restore", "pause", "resume"), "route.manage"
        ),
    }

    def create(self, request: Request) -> Response:
        data = self.decoded()
        slug, targets, fallbacks = data.pop("slug"), data.pop("targets"), data.pop("fallbacks")
        route = services.create_route(
            self.actor, slug=slug, targets=_chosen(targets), fallbacks=fallbacks, fields=data
        )
        return self.answer(route, status=201)

    def partial_update(self, request: Request, slug: str) -> Response:
        """``targets`` and ``fallbacks`` replace the present ones where they are sent."""
        route = self.get_object()
        data = self.decoded(partial=True)
        _refuse_renaming(data, route)
        targets, fallbacks = data.pop("targets", None), data.pop("fallbacks", None)
        changed = services.update_route(
            self.actor,
            route=route,
            changes=data,
            targets=None if targets is None else _chosen(targets),
            fallbacks=fallbacks,
        )
        return self.answer(changed)


def _chosen(targets: list[dict[str, Any]]) -> list[tuple[Model, int]]:
    return [(target["model"], target["weight"]) for target in targets]


def _refuse_renaming(changes: dict[str, Any], row: Provider | Route) -> None:
    """The slug may be sent back, not changed: revisions, calls and callers name it."""
    if changes.get("slug") == row.slug:
        del changes["slug"]


def register(router: BaseRouter | Any) -> None:
    router.register("providers", Providers)
    router.register("credentials", Credentials)
    router.register("models", Models)
    router.register("routes", Routes)
