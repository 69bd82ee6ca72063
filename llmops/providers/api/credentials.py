"""``/api/v1/credentials``."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.base.drf import ConsoleViewSet
from llmops.providers import services
from llmops.providers.api.shared import BySlug, Explanation, Nothing
from llmops.providers.models import Credential, CredentialTrouble, Provider
from llmops.providers.selectors import troubles_of, with_troubles


class TroubleSerializer(serializers.ModelSerializer[CredentialTrouble]):
    class Meta:
        model = CredentialTrouble
        fields = ("process", "host", "reason", "since", "seen_at")
        read_only_fields = fields


class CredentialSerializer(serializers.ModelSerializer[Credential]):
    provider = BySlug(queryset=Provider.objects.all())
    secret = serializers.CharField(
        write_only=True,
        required=False,
        allow_blank=True,
        max_length=10_000,
        help_text="Can be written, never read.",
    )
    troubles = serializers.SerializerMethodField(
        help_text="Data planes that cannot read this key at present, and why. Empty is good."
    )

    @extend_schema_field(TroubleSerializer(many=True))
    def get_troubles(self, credential: Credential) -> Any:
        return TroubleSerializer(troubles_of(credential), many=True).data

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
            "origin",
            "state",
            "state_changed_at",
            "set_at",
            "rotate_after_days",
            "last_probe_at",
            "last_probe_result",
            "last_used_at",
            "last_failure_at",
            "last_failure",
            "troubles",
            "created_at",
            "updated_at",
        )
        read_only_fields = (
            "fingerprint",
            "origin",
            "state",
            "state_changed_at",
            "set_at",
            "rotate_after_days",
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


class Reminder(serializers.Serializer[Any]):
    days = serializers.IntegerField(
        min_value=0,
        max_value=3_650,
        allow_null=True,
        help_text="The key is due so many days after it was set; 0: never; null: as the installation has it.",
    )


class Credentials(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Provider keys. A secret can be written and never read. Keys in use take effect within a second."""

    queryset = with_troubles(Credential.objects.select_related("provider"))
    serializer_class = CredentialSerializer
    filterset_fields = ("provider__slug", "state", "name")
    project_path = None
    permission_map = {
        "list": "provider.view",
        "retrieve": "provider.view",
        **dict.fromkeys(
            (
                "create",
                "replace_secret",
                "probe",
                "activate",
                "drain",
                "revoke",
                "remind_after",
                "read_again",
            ),
            "provider.manage",
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

    @extend_schema(request=Explanation, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], serializer_class=Explanation)
    def drain(self, request: Request, pk: str) -> Response:
        return self._shown(
            services.drain_credential(self.actor, credential=self.get_object(), **self.decoded())
        )

    @extend_schema(request=Explanation, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], serializer_class=Explanation)
    def revoke(self, request: Request, pk: str) -> Response:
        return self._shown(
            services.revoke_credential(self.actor, credential=self.get_object(), **self.decoded())
        )

    @extend_schema(request=Reminder, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], url_path="remind-after", serializer_class=Reminder)
    def remind_after(self, request: Request, pk: str) -> Response:
        """When the key is due to be rotated, of which people are reminded."""
        return self._shown(services.remind_after(self.actor, credential=self.get_object(), **self.decoded()))

    @extend_schema(request=Nothing, responses=CredentialSerializer)
    @action(detail=True, methods=["post"], url_path="read-again", serializer_class=Nothing)
    def read_again(self, request: Request, pk: str) -> Response:
        """Have every process read a referenced key from its store anew."""
        self.decoded()
        return self._shown(services.read_again(self.actor, credential=self.get_object()))

    def _shown(self, credential: Credential) -> Response:
        return Response(CredentialSerializer(credential).data)
