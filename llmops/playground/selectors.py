"""What may be tried in a project, by whom: prompts and their versions, and what the live revision lets its key call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db.models import Model, Q, QuerySet
from django.utils import timezone

from llmops.access.held_keys import EVERYTHING
from llmops.access.models import Project, ServiceKey
from llmops.access.selectors import may, projects_for
from llmops.core.errors import ConsoleError, NotFound
from llmops.dashboards.simulated import simulated_providers
from llmops.playground.asked import DRAFT, Material
from llmops.playground.models import ProjectKey, Run, Setup
from llmops.playground.sealed import opened, setup_identity
from llmops.prompts.content import EMPTY, inferred
from llmops.prompts.models import Prompt
from llmops.prompts.selectors import live_of
from llmops.providers.models import Provider, Route
from llmops.serving.selectors import live_revision
from llmops.serving.snapshot import RevisionDocument, decode_document

_M = TypeVar("_M", bound=Model)
PERMISSION = "playground.use"
MOST_PROMPTS, MOST_VERSIONS = 1_000, 60
_document: tuple[str, RevisionDocument] | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A route or a model that may be asked; ``note`` says why it may not answer now, or what it leads to."""

    name: str
    kind: str
    note: str = ""
    simulated: bool = False


def projects_of(who: Any) -> QuerySet[Project]:
    return projects_for(who, PERMISSION).filter(archived_at=None).order_by("slug")


def project_of(who: Any, project_id: object) -> Project:
    """Raises ``NotFound``, also for a project in which ``who`` may not use the playground."""
    found = _row(projects_of(who), project_id)
    if found is None:
        raise NotFound(
            "project: there is no such project in which you may use the playground.", param="project"
        )
    return found


def _row(rows: QuerySet[_M], pk: object) -> _M | None:
    found = as_uuid(pk)
    return rows.filter(pk=found).first() if found is not None else None


def as_uuid(value: object) -> UUID | None:
    try:
        return UUID(str(value))
    except ValueError:
        return None


# What may be asked --------------------------------------------------------------------------------------------------


def key_of(project: Project) -> ServiceKey | None:
    """The playground's key of ``project``, revoked or not; None before the first run."""
    found = ProjectKey.objects.filter(project=project).select_related("service_key").first()
    return found.service_key if found else None


def callables(project: Project) -> list[Choice]:
    """Routes first, then models by their own names: what is live, and what the project's playground may call of it."""
    revision = live_revision()
    if revision is None:
        return []
    document = _decoded(revision.digest, revision.document)
    key = key_of(project)
    routes = key.allowed_routes if key else EVERYTHING
    models = key.allowed_models if key else EVERYTHING
    paused = dict(Route.objects.exclude(paused_at=None).values_list("slug", "pause_reason"))
    paused_providers = set(Provider.objects.exclude(paused_at=None).values_list("slug", flat=True))
    simulated = simulated_providers()
    provider_of = {one.slug: one.provider for one in document.models}
    talks = {one.slug for one in document.models if not one.capabilities or "chat" in one.capabilities}
    found = []
    for route in document.routes:
        targets = [one.model for one in route.targets]
        if ("*" not in routes and route.slug not in routes) or not talks.intersection(targets):
            continue
        note = f"paused: {paused[route.slug]}" if route.slug in paused else ", ".join(targets)
        found.append(
            Choice(route.slug, "route", note, any(provider_of.get(one) in simulated for one in targets))
        )
    for model in document.models:
        if ("*" not in models and model.slug not in models) or model.slug not in talks:
            continue
        note = f"paused: {model.provider}" if model.provider in paused_providers else model.provider
        found.append(Choice(model.slug, "model", note, model.provider in simulated))
    return found


def live_document() -> RevisionDocument | None:
    """What is live, for prices and prompts."""
    revision = live_revision()
    return _decoded(revision.digest, revision.document) if revision is not None else None


def _decoded(digest: str, text: Any) -> RevisionDocument:
    """The live document, decoded once for as long as it is live: pages ask for it often."""
    global _document
    if _document is None or _document[0] != digest:
        _document = (digest, decode_document(text))
    return _document[1]


# Prompts ------------------------------------------------------------------------------------------------------------


def prompts_of(project: Project) -> QuerySet[Prompt]:
    """Prompts that the project's services may name: its own and the shared ones."""
    named = _to_be_tried(Q(project=project) | Q(project=None))
    return named.select_related("project", "current").order_by("slug")


def _to_be_tried(whose: Q) -> QuerySet[Prompt]:
    return Prompt.objects.filter(whose, archived_at=None).exclude(current=None, draft=None)


def home_of(projects: Sequence[Project], prompt_id: object) -> Project:
    """The one of ``projects`` whose prompt it is, or the first, which may name a shared one. Raises ``NotFound``."""
    found = _row(_to_be_tried(Q(project__in=projects) | Q(project=None)), prompt_id)
    for project in projects:
        if found is not None and found.project_id in (None, project.pk):
            return project
    raise NotFound("prompt: there is no such prompt in a project in which you may use the playground.")


def prompt_of(project: Project, prompt_id: object) -> Prompt:
    """Raises ``NotFound`` for a prompt of another project."""
    found = _row(prompts_of(project), prompt_id)
    if found is None:
        raise NotFound("prompt: this project has no such prompt.", param="prompt")
    return found


def material_of(prompt: Prompt, version: object) -> Material:
    """A version by its number, or the ``draft``. Raises ``NotFound``."""
    if version == DRAFT:
        if prompt.draft is None:
            raise NotFound(f"version: {prompt.slug} has no draft any more.", param="version")
        return Material(prompt.slug, DRAFT, {**EMPTY, **prompt.draft})
    text = str(version)
    found = prompt.versions.filter(number=int(text)).first() if text.isdecimal() and len(text) < 10 else None
    if found is None:
        raise NotFound(f"version: {prompt.slug} has no such version.", param="version")
    live = live_of(prompt)
    return Material(
        prompt.slug,
        str(found.number),
        found.content,
        served=live is not None and found.number in live.versions,
    )


def told_of_versions(prompt: Prompt, who: Any) -> dict[str, Any]:
    """A prompt's versions for the page's list, newest first, the draft before them."""
    labels: dict[int, list[str]] = {}
    for name, number in prompt.labels.order_by("name").values_list("name", "version__number"):
        labels.setdefault(number, []).append(name)
    live = live_of(prompt)
    rows = prompt.versions.order_by("-number").values_list("number", "note")[:MOST_VERSIONS]
    versions = [
        {
            "version": str(number),
            "note": note,
            "labels": labels.get(number, []),
            "published": live is not None and number in live.versions,
        }
        for number, note in rows
    ]
    if prompt.draft is not None:
        versions.insert(
            0, {"version": DRAFT, "note": f"by {prompt.draft_by}", "labels": [], "published": False}
        )
    return {
        "id": str(prompt.pk),
        "slug": prompt.slug,
        "versions": versions,
        "newest": prompt.current.number if prompt.current else 0,
        "draft_by": prompt.draft_by if prompt.draft is not None else "",
        "may_change": may(who, "prompt.manage", prompt.project_id),
    }


def told_of_content(material: Material) -> dict[str, Any]:
    """What the page shows and fills in of a version."""
    content = material.content
    variables = content.get("variables")
    if variables is None:
        try:
            variables = inferred(content)
        except ConsoleError:
            variables = []
    return {
        "version": material.version,
        "layers": {name: content.get(name) or "" for name in ("system", "task", "context", "user")},
        "variables": [one for one in variables if isinstance(one, dict) and one.get("name")],
        "samples": [
            {"name": one.get("name") or "", "variables": one.get("variables") or {}}
            for one in content.get("samples") or ()
            if isinstance(one, dict)
        ],
        "route": content.get("route") or "",
        "parameters": content.get("parameters") or {},
        "output_schema": content.get("output_schema"),
        "served": material.served,
    }


# Runs and setups ----------------------------------------------------------------------------------------------------


def run_of(who: Any, user_id: int, run_id: object) -> Run:
    """One's own run, in a project where one may still use the playground. Raises ``NotFound``."""
    kept_since = timezone.now() - timedelta(hours=settings.PLAYGROUND_RUN_HOURS)
    rows = Run.objects.filter(
        user_id=user_id, project__in=projects_for(who, PERMISSION), started_at__gte=kept_since
    )
    found = _row(rows, run_id)
    if found is None:
        raise NotFound("run: there is no such run of yours; runs are forgotten after a while.", param="run")
    return found


def setup_of(who: Any, setup_id: object) -> tuple[Setup, Any]:
    """A shared setup and what stands in it. Raises ``NotFound``."""
    # Whether or not somebody came by to remove what is older.
    kept_since = timezone.now() - timedelta(days=settings.PLAYGROUND_SETUP_DAYS)
    rows = Setup.objects.filter(project__in=projects_of(who), made_at__gte=kept_since).select_related(
        "project"
    )
    found = _row(rows, setup_id)
    if found is None:
        raise NotFound("setup: there is no such setup, or it was forgotten by now.", param="setup")
    return found, opened(found.sealed, identity=setup_identity(found.pk))


def recent_runs(user_id: int, seconds: int) -> QuerySet[Run]:
    return Run.objects.filter(user_id=user_id, started_at__gt=timezone.now() - timedelta(seconds=seconds))
