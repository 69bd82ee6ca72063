"""``/api/v1``: projects, service keys, memberships, accounts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access import services
from llmops.access.models import Membership, Project, ServiceKey, slug_validator
from llmops.access.rules import ROLES, SCOPES
from llmops.access.selectors import projects_for
from llmops.access.services.keys import DEFAULT_GRACE
from llmops.base.drf import ConsoleViewSet
from llmops.core.errors import InvalidRequest


class ProjectField(serializers.SlugRelatedField[Project]):
    """A project by its slug. One that the caller may not see is as unknown as one that does not exist."""

    def __init__(self, **kwargs: Any) -> None:
        if not kwargs.get("read_only"):
            kwargs.setdefault("queryset", Project.objects.all())
        super().__init__(slug_field="slug", **kwargs)

    def get_queryset(self) -> Any:
        return projects_for(self.context["request"], ("project.view", *self._needed()))

    def _needed(self) -> tuple[str, ...]:
        view = self.context.get("view")
        declared = getattr(view, "permission_map", {}).get(getattr(view, "action", None))
        return (declared,) if declared else ()


class PersonField(serializers.SlugRelatedField[Any]):
    """A person by username."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(slug_field="username", queryset=get_user_model().objects.all(), **kwargs)


class Reason(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=500, required=False, allow_blank=True, default="")


class ProjectSerializer(serializers.ModelSerializer[Project]):
    class Meta:
        model = Project
        fields = (
            "id",
            "slug",
            "name",
            "owner",
            "cost_center",
            "default_route",
            "rpm",
            "tpm",
            "concurrency",
            "keep_texts_percent",
            "keep_texts_days",
            "keep_texts_readable",
            "archived_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("archived_at",)
        # The service answers 409 for a slug that is taken.
        extra_kwargs = {"slug": {"validators": [slug_validator]}, "name": {"required": False}}


class Projects(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """The units that spend. A project is archived, never removed."""

    queryset = Project.objects.all()
    serializer_class = ProjectSerializer
    lookup_field = "slug"
    lookup_value_regex = "[^/]+"
    filterset_fields = ("slug", "cost_center")
    project_path = "pk"
    permission_map = {
        "list": "project.view",
        "retrieve": "project.view",
        "create": "project.manage",
        "partial_update": "project.manage",
        "archive": "project.manage",
        "restore": "project.manage",
    }

    def create(self, request: Request) -> Response:
        self.check_may("project.manage", None)
        return self.answer(services.create_project(self.actor, **self.decoded()), status=201)

    def partial_update(self, request: Request, slug: str) -> Response:
        project = self.get_object()
        return self.answer(services.update_project(self.actor, project=project, **self.decoded(partial=True)))

    @extend_schema(request=Reason)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def archive(self, request: Request, slug: str) -> Response:
        return self._moved(services.archive_project)

    @extend_schema(request=Reason)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def restore(self, request: Request, slug: str) -> Response:
        return self._moved(services.restore_project)

    def _moved(self, change: Any) -> Response:
        project = self.get_object()
        return Response(ProjectSerializer(change(self.actor, project=project, **self.decoded())).data)


class ServiceKeySerializer(serializers.ModelSerializer[ServiceKey]):
    project = ProjectField()
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=SCOPES), required=False, allow_empty=False
    )
    allowed_routes = serializers.ListField(child=serializers.CharField(max_length=200), required=False)
    allowed_models = serializers.ListField(child=serializers.CharField(max_length=200), required=False)

    class Meta:
        model = ServiceKey
        fields = (
            "id",
            "project",
            "name",
            "prefix",
            "scopes",
            "allowed_routes",
            "allowed_models",
            "rpm",
            "tpm",
            "concurrency",
            "priority",
            "expires_at",
            "revoked_at",
            "paused_at",
            "pause_reason",
            "last_used_at",
            "previous_valid_until",
            "previous_prefix",
            "previous_last_used_at",
            "rotated_at",
            "held_by_console",
            "created_at",
            "updated_at",
        )
        read_only_fields = (
            "prefix",
            "revoked_at",
            "paused_at",
            "pause_reason",
            "last_used_at",
            "previous_valid_until",
            "previous_prefix",
            "previous_last_used_at",
            "rotated_at",
            "held_by_console",
        )
        # The service answers 409 for a name that is taken.
        validators: list[Any] = []


class IssuedKeySerializer(ServiceKeySerializer):
    """A key at the one moment at which its secret is known."""

    secret = serializers.CharField(read_only=True, help_text="Shown in this answer only.")

    class Meta(ServiceKeySerializer.Meta):
        fields = (*ServiceKeySerializer.Meta.fields, "secret")  # type: ignore[assignment]


class Pausing(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=300, help_text="Callers and on-call read it.")


class ServiceKeyRotation(Reason):
    grace_seconds = serializers.IntegerField(
        min_value=0,
        max_value=30 * 86_400,
        default=int(DEFAULT_GRACE.total_seconds()),
        help_text="How long the present secret works beside the new one.",
    )


class ServiceKeys(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Bearer keys of services. The secret is in the answer that issues it, and nowhere else."""

    queryset = ServiceKey.objects.select_related("project")
    serializer_class = ServiceKeySerializer
    filterset_fields = ("project__slug", "name")
    permission_map = {
        "list": "service_key.view",
        "retrieve": "service_key.view",
        "create": "service_key.manage",
        "partial_update": "service_key.manage",
        "rotate": "service_key.manage",
        "end_grace": "service_key.manage",
        "revoke": "service_key.manage",
        "pause": "service_key.manage",
        "resume": "service_key.manage",
    }

    @extend_schema(responses={201: IssuedKeySerializer})
    def create(self, request: Request) -> Response:
        data = self.decoded()
        self.check_may("service_key.manage", data["project"])
        return self._issued(services.create_service_key(self.actor, **data), status=201)

    def partial_update(self, request: Request, pk: str) -> Response:
        key = self.get_object()
        data = self.decoded(partial=True)
        if data.pop("project", key.project) != key.project:
            raise InvalidRequest("A key stays in its project; issue another one there.", param="project")
        return self.answer(services.update_service_key(self.actor, key=key, **data))

    @extend_schema(request=ServiceKeyRotation, responses=IssuedKeySerializer)
    @action(detail=True, methods=["post"], serializer_class=ServiceKeyRotation)
    def rotate(self, request: Request, pk: str) -> Response:
        key, data = self.get_object(), self.decoded()
        grace = timedelta(seconds=data["grace_seconds"])
        return self._issued(
            services.rotate_service_key(self.actor, key=key, grace=grace, reason=data["reason"])
        )

    @extend_schema(request=Reason, responses=ServiceKeySerializer)
    @action(detail=True, methods=["post"], url_path="end-grace", serializer_class=Reason)
    def end_grace(self, request: Request, pk: str) -> Response:
        """End the earlier secret before its time."""
        key = services.end_grace(self.actor, key=self.get_object(), **self.decoded())
        return Response(ServiceKeySerializer(key).data)

    @extend_schema(request=Reason, responses=ServiceKeySerializer)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def revoke(self, request: Request, pk: str) -> Response:
        key = services.revoke_service_key(self.actor, key=self.get_object(), **self.decoded())
        return Response(ServiceKeySerializer(key).data)

    @extend_schema(request=Pausing, responses=ServiceKeySerializer)
    @action(detail=True, methods=["post"], serializer_class=Pausing)
    def pause(self, request: Request, pk: str) -> Response:
        """Refuse calls with this key until it is resumed; callers are told the reason."""
        key = services.pause_service_key(self.actor, key=self.get_object(), **self.decoded())
        return Response(ServiceKeySerializer(key).data)

    @extend_schema(request=Reason, responses=ServiceKeySerializer)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def resume(self, request: Request, pk: str) -> Response:
        key = services.resume_service_key(self.actor, key=self.get_object(), **self.decoded())
        return Response(ServiceKeySerializer(key).data)

    def _issued(self, issued: services.IssuedKey, *, status: int = 200) -> Response:
        body = {**ServiceKeySerializer(issued.key).data, "secret": issued.secret}
        return Response(body, status=status, headers={"Cache-Control": "no-store"})


class MembershipSerializer(serializers.ModelSerializer[Membership]):
    user = PersonField()
    project = ProjectField(required=False, allow_null=True, default=None)
    role = serializers.ChoiceField(choices=ROLES)

    class Meta:
        model = Membership
        fields = ("id", "user", "project", "role", "created_at", "updated_at")
        validators: list[Any] = []


class RoleSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=ROLES)


class Memberships(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Who holds which role where; ``project`` null is the whole organisation."""

    queryset = Membership.objects.select_related("user", "project")
    serializer_class = MembershipSerializer
    filterset_fields = ("user__username", "project__slug", "role")
    permission_map = {
        "list": "member.view",
        "retrieve": "member.view",
        "create": "member.manage",
        "partial_update": "member.manage",
        "destroy": "member.manage",
    }

    def create(self, request: Request) -> Response:
        data = self.decoded()
        self.check_may("member.manage", data["project"])
        return self.answer(services.add_member(self.actor, **data), status=201)

    @extend_schema(request=RoleSerializer)
    def partial_update(self, request: Request, pk: str) -> Response:
        membership = self.get_object()
        data = self.decoded(RoleSerializer)
        return self.answer(services.change_role(self.actor, membership=membership, role=data["role"]))

    def destroy(self, request: Request, pk: str) -> Response:
        services.remove_member(self.actor, membership=self.get_object())
        return Response(status=204)


class UserSerializer(serializers.ModelSerializer[Any]):
    class Meta:
        model = get_user_model()
        fields = (
            "id",
            "username",
            "email",
            "first_name",
            "last_name",
            "is_superuser",
            "is_active",
            "date_joined",
            "last_login",
        )
        read_only_fields = ("is_active", "date_joined", "last_login")
        # The service answers 409 for a name that is taken.
        extra_kwargs: dict[str, Any] = {"username": {"validators": []}}


class NewUserSerializer(UserSerializer):
    password = serializers.CharField(write_only=True, required=False, max_length=4096)

    class Meta(UserSerializer.Meta):
        fields = (*UserSerializer.Meta.fields, "password")  # type: ignore[assignment]


class Password(serializers.Serializer[Any]):
    password = serializers.CharField(write_only=True, max_length=4096, trim_whitespace=False)


class Users(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """Accounts of the console. An account is deactivated, never removed."""

    queryset = get_user_model().objects.all()
    serializer_class = UserSerializer
    filterset_fields = ("username", "is_active", "is_superuser")
    project_path = None
    organisation_only = True
    permission_map = {
        "list": "member.view",
        "retrieve": "member.view",
        "create": "member.manage",
        "partial_update": "member.manage",
        "deactivate": "member.manage",
        "activate": "member.manage",
        "set_password": "member.manage",
        "unlock": "member.manage",
        "end_sessions": "member.manage",
        "reset_second_factor": "member.manage",
    }

    @extend_schema(request=NewUserSerializer)
    def create(self, request: Request) -> Response:
        return self.answer(services.create_user(self.actor, **self.decoded(NewUserSerializer)), status=201)

    def partial_update(self, request: Request, pk: str) -> Response:
        user = self.get_object()
        return self.answer(services.update_user(self.actor, user=user, **self.decoded(partial=True)))

    @extend_schema(request=Reason, responses=UserSerializer)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def deactivate(self, request: Request, pk: str) -> Response:
        return self._changed(services.deactivate_user(self.actor, user=self.get_object(), **self.decoded()))

    @extend_schema(request=Reason, responses=UserSerializer)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def activate(self, request: Request, pk: str) -> Response:
        return self._changed(services.activate_user(self.actor, user=self.get_object(), **self.decoded()))

    @extend_schema(request=Password, responses=UserSerializer)
    @action(detail=True, methods=["post"], url_path="set-password", serializer_class=Password)
    def set_password(self, request: Request, pk: str) -> Response:
        return self._changed(services.set_password(self.actor, user=self.get_object(), **self.decoded()))

    @extend_schema(request=Reason, responses=UserSerializer)
    @action(detail=True, methods=["post"], serializer_class=Reason)
    def unlock(self, request: Request, pk: str) -> Response:
        user = self.get_object()
        services.unlock_user(self.actor, user=user, **self.decoded())
        return self._changed(user)

    @extend_schema(request=Reason, responses=UserSerializer)
    @action(detail=True, methods=["post"], url_path="end-sessions", serializer_class=Reason)
    def end_sessions(self, request: Request, pk: str) -> Response:
        """Sign somebody out everywhere."""
        user = self.get_object()
        services.end_sessions(self.actor, user=user, **self.decoded())
        return self._changed(user)

    @extend_schema(request=Reason, responses=UserSerializer)
    @action(detail=True, methods=["post"], url_path="reset-second-factor", serializer_class=Reason)
    def reset_second_factor(self, request: Request, pk: str) -> Response:
        """Remove the second factor of somebody whose phone and recovery codes are lost."""
        user = self.get_object()
        services.reset_factor(self.actor, user=user, **self.decoded())
        return self._changed(user)

    def _changed(self, user: Any) -> Response:
        return Response(UserSerializer(user).data)


def register(router: BaseRouter | Any) -> None:
    router.register("projects", Projects)
    router.register("service-keys", ServiceKeys)
    router.register("memberships", Memberships)
    router.register("users", Users)
