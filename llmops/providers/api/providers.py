"""``/api/v1/providers``."""

from __future__ import annotations

from rest_framework import mixins, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.providers import services
from llmops.providers.api.shared import SLUG, Pauses, refuse_renaming
from llmops.providers.models import Provider
from llmops.providers.services.providers import FIELDS as PROVIDER_FIELDS


class ProviderSerializer(serializers.ModelSerializer[Provider]):
    passthrough = serializers.ListField(child=serializers.CharField(max_length=600), required=False)
    shared_objects = serializers.ListField(child=serializers.CharField(max_length=201), required=False)

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
        extra_kwargs = {"slug": SLUG, "base_url": {"validators": []}}


class Providers(mixins.ListModelMixin, mixins.RetrieveModelMixin, Pauses):
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
        refuse_renaming(changes, provider)
        return self.answer(services.update_provider(self.actor, provider=provider, changes=changes))
