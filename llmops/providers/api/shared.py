"""What the resources of this room share."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from llmops.access.models import slug_validator
from llmops.base.drf import ConsoleViewSet
from llmops.providers import services
from llmops.providers.models import Provider, Route

SLUG: dict[str, Any] = {"validators": [slug_validator]}


class Explanation(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=300, required=False, allow_blank=True, default="")


class Nothing(serializers.Serializer[Any]):
    """An empty body."""


class BySlug(serializers.SlugRelatedField[Any]):
    """An object by its slug."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(slug_field="slug", **kwargs)


class Switches(ConsoleViewSet):
    """Archiving, bringing back, pausing and resuming, by functions that a subclass names."""

    kind = ""

    def _call(self, name: str, **values: Any) -> Response:
        row = getattr(services, f"{name}_{self.kind}")(self.actor, **{self.kind: self.get_object()}, **values)
        return self.answer(row)

    @extend_schema(request=Nothing)
    @action(detail=True, methods=["post"])
    def archive(self, request: Request, slug: str) -> Response:
        self.decoded(Nothing)
        return self._call("archive")

    @extend_schema(request=Nothing)
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, slug: str) -> Response:
        self.decoded(Nothing)
        return self._call("unarchive")


class Pauses(Switches):
    @extend_schema(request=Explanation)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, slug: str) -> Response:
        return self._call("pause", **self.decoded(Explanation))

    @extend_schema(request=Explanation)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, slug: str) -> Response:
        return self._call("resume", **self.decoded(Explanation))


def refuse_renaming(changes: dict[str, Any], row: Provider | Route) -> None:
    """The slug may be sent back, not changed: revisions, calls and callers name it."""
    if changes.get("slug") == row.slug:
        del changes["slug"]
