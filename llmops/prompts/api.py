"""``/api/v1/prompts``: prompts, versions, labels, previews, and prompts as files."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from django.db import transaction
from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import mixins, serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.routers import BaseRouter

from llmops.access.api import ProjectField
from llmops.access.models import slug_validator
from llmops.access.selectors import may_anywhere
from llmops.base.drf import ConsoleViewSet
from llmops.core.errors import InvalidRequest
from llmops.core.money import format_usd
from llmops.prompts import files, services
from llmops.prompts.models import Label, LabelMove, Prompt, PromptVersion
from llmops.prompts.previewing import Preview, preview
from llmops.prompts.selectors import live_of, moves_of, version_of, visible_prompts
from llmops.prompts.wording import compare, differences

_MOST = 2_147_483_647


@extend_schema_field({"type": "object"})
class ContentField(serializers.JSONField):
    """Layers, variables and the rest; the service says what is wrong with it, by its path."""


class PromptVersionSerializer(serializers.ModelSerializer[PromptVersion]):
    content = ContentField(read_only=True)
    renderings = serializers.JSONField(
        read_only=True, help_text="Each sample's digest, and tokens under a ceiling."
    )

    class Meta:
        model = PromptVersion
        fields = ("number", "content", "note", "digest", "renderings", "created_at", "created_by")


class VersionLineSerializer(serializers.ModelSerializer[PromptVersion]):
    changes = serializers.ListField(
        child=serializers.CharField(), help_text="Against the version before, in words."
    )

    class Meta:
        model = PromptVersion
        fields = ("number", "note", "digest", "changes", "created_at", "created_by")


class LabelSerializer(serializers.ModelSerializer[Label]):
    version = serializers.IntegerField(source="version.number")

    class Meta:
        model = Label
        fields = ("name", "version", "updated_at")


class MoveSerializer(serializers.ModelSerializer[LabelMove]):
    class Meta:
        model = LabelMove
        fields = ("name", "from_version", "to_version", "reason", "moved_by", "moved_at")


class LiveSerializer(serializers.Serializer[Any]):
    revision = serializers.IntegerField()
    labels = serializers.DictField(child=serializers.IntegerField())
    versions = serializers.ListField(child=serializers.IntegerField())


class PromptSerializer(serializers.ModelSerializer[Prompt]):
    project = ProjectField(required=False, allow_null=True, help_text="Null: shared by every project.")
    content = ContentField(write_only=True, required=False, help_text="Of the first version.")
    note = serializers.CharField(
        write_only=True, max_length=300, required=False, allow_blank=True, default=""
    )
    version = serializers.IntegerField(source="current.number", read_only=True, default=None)
    draft = ContentField(read_only=True)
    labels = LabelSerializer(many=True, read_only=True)
    live = serializers.SerializerMethodField(help_text="What data planes serve; null for nothing.")

    class Meta:
        model = Prompt
        fields = (
            "id",
            "slug",
            "project",
            "description",
            "content",
            "note",
            "version",
            "draft",
            "draft_by",
            "draft_at",
            "labels",
            "live",
            "archived_at",
            "created_at",
            "updated_at",
        )
        read_only_fields = ("draft_by", "draft_at", "archived_at")
        # The service answers 409 for a name that is taken.
        extra_kwargs: dict[str, Any] = {"slug": {"validators": [slug_validator]}}
        validators: list[Any] = []

    @extend_schema_field(LiveSerializer(allow_null=True))
    def get_live(self, prompt: Prompt) -> dict[str, Any] | None:
        live = live_of(prompt)
        if live is None:
            return None
        return {"revision": live.revision, "labels": dict(live.labels), "versions": sorted(live.versions)}


class NewVersion(serializers.Serializer[Any]):
    content = ContentField(required=False, allow_null=True, default=None, help_text="Left out: the draft.")
    note = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")
    expected = serializers.IntegerField(
        min_value=0, max_value=_MOST, required=False, allow_null=True, default=None,
        help_text="The newest version that you saw; 409 when there is another by now.",
    )  # fmt: skip


class Draft(serializers.Serializer[Any]):
    content = ContentField()


class MoveLabel(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=63)
    version = serializers.IntegerField(min_value=1, max_value=_MOST)
    reason = serializers.CharField(max_length=300)
    expected = serializers.IntegerField(
        min_value=0, max_value=_MOST, required=False, allow_null=True, default=None,
        help_text="The version that you saw it point to (0: none); 409 when it was moved by now.",
    )  # fmt: skip


class RemoveLabel(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=63)
    reason = serializers.CharField(max_length=300)


class Copy(serializers.Serializer[Any]):
    slug = serializers.CharField(max_length=63)
    project = ProjectField(required=False, allow_null=True, default=None)
    note = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class Try(serializers.Serializer[Any]):
    content = ContentField(required=False, allow_null=True, default=None)
    version = serializers.IntegerField(
        min_value=1, max_value=_MOST, required=False, allow_null=True, default=None
    )
    variables = serializers.DictField(required=False, default=dict)


class Draw(serializers.Serializer[Any]):
    content = ContentField()
    variables = serializers.DictField(required=False, default=dict)


class Archive(serializers.Serializer[Any]):
    project = ProjectField(required=False, allow_null=True, default=None)
    archive = serializers.CharField(help_text="A ZIP archive in base64, one folder a prompt.")
    note = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class EmptyBody(serializers.Serializer[Any]):
    """An empty body."""


class Prompts(mixins.ListModelMixin, mixins.RetrieveModelMixin, ConsoleViewSet):
    """What services ask for by name. Versions never change; labels point to them; what is served is what was published."""

    queryset = Prompt.objects.select_related("project", "current").prefetch_related("labels__version")
    serializer_class = PromptSerializer
    filterset_fields = ("slug", "project__slug")
    project_path = "project"
    permission_map = {
        **dict.fromkeys(
            ("list", "retrieve", "versions", "version", "compare", "history", "render", "preview", "export"), "prompt.view"
        ),
        **dict.fromkeys(
            (
                "create", "partial_update", "add_version", "draft", "discard", "move_label", "remove_label", "duplicate",
                "archive", "restore", "import_files",
            ),
            "prompt.manage",
        ),
    }  # fmt: skip

    def get_queryset(self) -> Any:
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        # Shared prompts are everybody's to look at.
        return visible_prompts(type(self).queryset.all(), self.request, ["prompt.view", "prompt.manage"])

    def check_object_permissions(self, request: Any, obj: Any) -> None:
        looks = self.permission_map.get(self.action or "") == "prompt.view"
        if looks and obj.project_id is None and may_anywhere(request, "prompt.view"):
            return
        super().check_object_permissions(request, obj)

    def create(self, request: Request) -> Response:
        """With ``content``, version 1 is made of it."""
        data = self.decoded()
        self.check_may("prompt.manage", data.get("project"))
        return self.answer(services.create_prompt(self.actor, **data), status=201)

    def partial_update(self, request: Request, pk: str) -> Response:
        """Only the description can be changed: services, calls and revisions know a prompt by its name."""
        prompt, data = self.get_object(), self.decoded(partial=True)
        if data.get("slug") == prompt.slug:
            del data["slug"]
        if "project" in data and data["project"] == prompt.project:
            del data["project"]
        data.pop("note", None)
        return self.answer(services.update_prompt(self.actor, prompt=prompt, changes=data))

    @extend_schema(responses=VersionLineSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_fields=(), pagination_class=None)
    def versions(self, request: Request, pk: str) -> Response:
        """All versions, the newest first, each with its differences to the one before in words."""
        rows: list[Any] = list(self.get_object().versions.order_by("number"))
        before: dict[str, Any] = {}
        for row in rows:
            row.changes = differences(before, row.content)
            before = row.content
        return Response(VersionLineSerializer(rows[::-1], many=True).data)

    @extend_schema(request=NewVersion, responses={201: PromptVersionSerializer})
    @versions.mapping.post
    def add_version(self, request: Request, pk: str) -> Response:
        """Make the next version. It serves once published; until then nothing changes for anybody."""
        prompt, data = self.get_object(), self.decoded(NewVersion)
        made = services.add_version(self.actor, prompt=prompt, **data)
        return Response(PromptVersionSerializer(made).data, status=201)

    @extend_schema(parameters=[OpenApiParameter("number", int)], responses=PromptVersionSerializer)
    @action(detail=True, methods=["get"], filterset_fields=())
    def version(self, request: Request, pk: str) -> Response:
        """One version in full: the newest, or the one of that ``number``."""
        prompt = self.get_object()
        newest = prompt.current.number if prompt.current else 0
        number = _asked_number(request, "number") if "number" in request.query_params else newest
        return Response(PromptVersionSerializer(version_of(prompt, number)).data)

    @extend_schema(
        parameters=[OpenApiParameter("from", int, required=True), OpenApiParameter("to", int, required=True)],
        responses={200: {"type": "object"}},
    )
    @action(detail=True, methods=["get"], filterset_fields=())
    def compare(self, request: Request, pk: str) -> Response:
        """Two versions side by side: each member with the pieces that are the same, gone and new."""
        prompt = self.get_object()
        before, after = (version_of(prompt, _asked_number(request, name)) for name in ("from", "to"))
        sides = compare(before.content, after.content)
        return Response(
            {
                "changes": differences(before.content, after.content),
                "members": [
                    {
                        "name": one.name,
                        "changed": one.changed,
                        "before": [piece._asdict() for piece in one.before],
                        "after": [piece._asdict() for piece in one.after],
                    }
                    for one in sides
                ],
            }
        )

    @extend_schema(request=Draft, responses=PromptSerializer)
    @action(detail=True, methods=["put"])
    def draft(self, request: Request, pk: str) -> Response:
        """Keep work in progress, right or not yet."""
        prompt, data = self.get_object(), self.decoded(Draft)
        return self.answer(services.save_draft(self.actor, prompt=prompt, draft=data["content"]))

    @extend_schema(request=None, responses=PromptSerializer)
    @draft.mapping.delete
    def discard(self, request: Request, pk: str) -> Response:
        return self.answer(services.discard_draft(self.actor, prompt=self.get_object()))

    @extend_schema(request=MoveLabel, responses=LabelSerializer)
    @action(detail=True, methods=["post"], url_path="labels")
    def move_label(self, request: Request, pk: str) -> Response:
        """Point a label to a version. It holds once published."""
        prompt, data = self.get_object(), self.decoded(MoveLabel)
        data["number"] = data.pop("version")
        return Response(LabelSerializer(services.move_label(self.actor, prompt=prompt, **data)).data)

    @extend_schema(request=RemoveLabel, responses=PromptSerializer)
    @action(detail=True, methods=["post"], url_path="remove-label")
    def remove_label(self, request: Request, pk: str) -> Response:
        prompt, data = self.get_object(), self.decoded(RemoveLabel)
        services.remove_label(self.actor, prompt=prompt, **data)
        return self.answer(self.get_object())

    @extend_schema(responses=MoveSerializer(many=True))
    @action(detail=True, methods=["get"], filterset_fields=(), pagination_class=None)
    def history(self, request: Request, pk: str) -> Response:
        """Every move of every label, the newest first: who, when, why, from which version, to which."""
        return Response(MoveSerializer(moves_of(self.get_object()), many=True).data)

    @extend_schema(request=Try, responses={200: {"type": "object"}})
    @action(detail=True, methods=["post"])
    def render(self, request: Request, pk: str) -> Response:
        """What a version (the newest by default), or ``content``, says with these variables; tokens and cost by model. Nothing is
        kept, no model is called."""
        prompt, data = self.get_object(), self.decoded(Try)
        content = data["content"]
        if content is None:
            number = data["version"] or (prompt.current.number if prompt.current else 0)
            content = version_of(prompt, number).content
        priced = may_anywhere(request, "model.view")
        return Response(preview_body(preview(content, data["variables"], priced=priced)))

    @extend_schema(request=Draw, responses={200: {"type": "object"}})
    @action(detail=False, methods=["post"], filterset_fields=())
    def preview(self, request: Request) -> Response:
        """What ``content`` says with these variables, as ``render`` tells it, before there is a prompt of it."""
        data = self.decoded(Draw)
        priced = may_anywhere(request, "model.view")
        return Response(preview_body(preview(data["content"], data["variables"], priced=priced)))

    @extend_schema(request=Copy, responses={201: PromptSerializer})
    @action(detail=True, methods=["post"])
    def duplicate(self, request: Request, pk: str) -> Response:
        prompt, data = self.get_object(), self.decoded(Copy)
        self.check_may("prompt.manage", data["project"])
        return self.answer(services.duplicate_prompt(self.actor, prompt=prompt, **data), status=201)

    @extend_schema(request=EmptyBody)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, pk: str) -> Response:
        """It is left out of what is published next; until then it serves as before."""
        self.decoded(EmptyBody)
        return self.answer(services.archive_prompt(self.actor, prompt=self.get_object()))

    @extend_schema(request=EmptyBody)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, pk: str) -> Response:
        self.decoded(EmptyBody)
        return self.answer(services.unarchive_prompt(self.actor, prompt=self.get_object()))

    @extend_schema(
        parameters=[OpenApiParameter("version", int)],
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
    )
    @action(detail=True, methods=["get"], filterset_fields=())
    def export(self, request: Request, pk: str) -> HttpResponse:
        """A version (the newest by default) as a folder in a ZIP archive."""
        prompt = self.get_object()
        number = _asked_number(request, "version") if "version" in request.query_params else None
        archive = archive_of([prompt], number=number)
        services.note_export(self.actor, prompt=prompt, number=number)
        return archive

    @extend_schema(request=Archive, responses={200: {"type": "object"}})
    @action(detail=False, methods=["post"], url_path="import", filterset_fields=())
    def import_files(self, request: Request) -> Response:
        """Bring folders in: each makes a prompt, or another version of it, or nothing where nothing differs. All or none."""
        data = self.decoded(Archive)
        self.check_may("prompt.manage", data["project"])
        try:
            packed = base64.b64decode(data["archive"], validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest("archive: not base64.", param="archive") from None
        done = import_archive(self.actor, packed, project=data["project"], note=data["note"])
        return Response(
            {"prompts": [{"slug": prompt.slug, "id": prompt.pk, "outcome": what} for prompt, what in done]}
        )


def import_archive(actor: Any, packed: bytes, *, project: Any, note: str = "") -> list[tuple[Prompt, str]]:
    """Every folder of an archive, in one transaction."""
    folders = files.unpack(packed)
    done = []
    with transaction.atomic():
        for folder in folders:
            try:
                done.append(
                    services.import_prompt(
                        actor,
                        slug=folder.slug,
                        project=project,
                        content=folder.content,
                        description=folder.description,
                        note=note or folder.note,
                    )
                )
            except InvalidRequest as refused:
                raise InvalidRequest(
                    f"{folder.slug}: {refused.message}", param=f"{folder.slug}.{refused.param}"
                ) from None
    return done


def archive_of(prompts: list[Prompt], *, number: int | None = None) -> HttpResponse:
    """A ZIP archive of a version of each prompt (the newest by default); prompts without one are left out."""
    folders = {}
    for prompt in prompts:
        version = prompt.current if number is None else version_of(prompt, number)
        if version is not None:
            folders[prompt.slug] = files.folder_of(
                version.content,
                description=prompt.description,
                note=version.note,
                renderings=version.renderings,
            )
    if not folders:
        raise InvalidRequest("There is no version to export yet.", param="version")
    answer = HttpResponse(files.pack(folders), content_type="application/zip")
    name = next(iter(folders)) if len(folders) == 1 else "prompts"
    answer["Content-Disposition"] = f'attachment; filename="{name}.zip"'
    return answer


def preview_body(seen: Preview) -> dict[str, Any]:
    """A preview as JSON, for the API and for the editor."""
    return {
        "system": seen.system,
        "user": seen.user,
        "digest": seen.digest,
        "tokens": seen.tokens,
        "ceiling": seen.ceiling,
        "problems": [{"param": param, "message": message} for param, message in seen.problems],
        "inferred": seen.inferred,
        "costs": [
            {
                "model": cost.model,
                "role": cost.role,
                "tokens": cost.tokens,
                "exact": cost.exact,
                "context_window": cost.window,
                "fits": cost.fits,
                "input_usd": None if cost.input_nano is None else format_usd(cost.input_nano),
                "most_usd": None if cost.most_nano is None else format_usd(cost.most_nano),
                "output_tokens": cost.output_tokens,
            }
            for cost in seen.costs
        ],
    }


def _asked_number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "")
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest(f"{name}: give the number of a version.", param=name)
    return int(text)


def register(router: BaseRouter | Any) -> None:
    router.register("prompts", Prompts)
