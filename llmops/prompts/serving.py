"""Which versions are served, and what publishing needs to know about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from django.db.models import OuterRef, Subquery, TextField
from django.db.models.functions import Cast

from llmops.core.errors import InvalidRequest
from llmops.prompts.content import proved
from llmops.prompts.models import Label, LabelMove, Prompt, PromptVersion
from llmops.prompts.rendering import RENDERER

#: Of each prompt so many of the newest versions can be named by number, besides all that a label points or pointed to.
NEWEST = 50
_FEW = 200
_decode = msgspec.json.Decoder().decode


class ServedPrompt(NamedTuple):
    """A prompt in use. ``project`` is its slug, empty for a shared one. ``newest`` is the id of its newest version, and
    ``number`` that one's: versions are only ever added, each with the next number, so ``newest`` stands for all of them."""

    pk: UUID
    project: str
    slug: str
    newest: UUID
    number: int

    @property
    def name(self) -> str:
        """``support/triage``, or ``triage`` for a shared one."""
        return f"{self.project}/{self.slug}" if self.project else self.slug


class ServedVersion(NamedTuple):
    """What publishing needs of a version."""

    number: int
    digest: str
    content: dict[str, Any]
    renderings: list[dict[str, Any]]
    renderer: int


def served_prompts() -> list[ServedPrompt]:
    """Prompts in use that have a version, by project and slug."""
    newest = PromptVersion.objects.filter(prompt=OuterRef("pk")).order_by("-number")
    rows = (
        Prompt.objects.filter(archived_at=None)
        .annotate(newest=Subquery(newest.values("pk")[:1]), number=Subquery(newest.values("number")[:1]))
        .order_by("project__slug", "slug")
        .values_list("pk", "project__slug", "slug", "newest", "number")
    )
    found = (ServedPrompt(pk, project or "", *rest) for pk, project, *rest in rows if rest[1] is not None)
    return sorted(found, key=lambda prompt: (prompt.project, prompt.slug))


def once_labelled(prompts: Sequence[ServedPrompt]) -> dict[UUID, frozenset[int]]:
    """By prompt the versions that a label ever pointed to, of those prompts which have versions that would not be served
    otherwise."""
    if all(prompt.number <= NEWEST for prompt in prompts):
        return {}
    found: dict[UUID, set[int]] = {prompt.pk: set() for prompt in prompts if prompt.number > NEWEST}
    moves = LabelMove.objects.filter(to_version__isnull=False).order_by()
    for prompt_id, number in moves.values_list("prompt_id", "to_version").distinct():
        if prompt_id in found and number is not None:
            found[prompt_id].add(number)
    return {pk: frozenset(numbers) for pk, numbers in found.items()}


def served_versions(
    prompts: Sequence[ServedPrompt], labelled: Mapping[UUID, frozenset[int]]
) -> dict[UUID, list[ServedVersion]]:
    """By prompt the versions that services may name, by number: the newest, and every one that a label ever pointed to
    (``labelled``).

    So a service that names a number is not cut off by newer versions, nor by a label that moves on.
    """
    found: dict[UUID, list[ServedVersion]] = defaultdict(list)
    wanted = {prompt.pk for prompt in prompts}
    if not wanted:
        return found
    # A join where there are many: SQLite takes no list of a thousand.
    few = len(wanted) <= _FEW
    rows = PromptVersion.objects.filter(**{"prompt__in": wanted} if few else {"prompt__archived_at": None})
    counts: dict[UUID, int] = defaultdict(int)
    # Plain rows: twenty thousand objects of the ORM would take longer than everything else that publishing does.
    for prompt_id, *version in (
        rows.annotate(told=Cast("content", TextField()), proof=Cast("renderings", TextField()))
        .order_by("prompt_id", "-number")
        .values_list("prompt_id", "number", "digest", "told", "proof", "renderer")
        .iterator(chunk_size=2000)
    ):
        number, digest, content, renderings, renderer = version
        if prompt_id not in wanted:
            continue
        counts[prompt_id] += 1
        if counts[prompt_id] <= NEWEST or number in labelled.get(prompt_id, ()):
            found[prompt_id].append(
                ServedVersion(number, digest, _decode(content), _decode(renderings), renderer)
            )
    return {pk: versions[::-1] for pk, versions in found.items()}


def all_labels() -> dict[Any, dict[str, int]]:
    """By prompt the labels and the numbers of the versions that they point to, sorted by name."""
    found: dict[Any, dict[str, int]] = defaultdict(dict)
    for prompt_id, name, number in Label.objects.order_by("name").values_list(
        "prompt_id", "name", "version__number"
    ):
        found[prompt_id][name] = number
    return found


def unproved(versions: Sequence[ServedVersion]) -> dict[int, str]:
    """Versions whose samples another renderer proved, and which this one renders otherwise: by number, why."""
    return {
        version.number: problem
        for version in versions
        if version.renderer != RENDERER and (problem := _problem(version))
    }


def ceilings(versions: Sequence[ServedVersion]) -> dict[int, tuple[int, dict[str, int]]]:
    """Versions with a token ceiling, by number: it, and the most tokens that one of their samples takes, by encoding."""
    found = {}
    for version in versions:
        if version.content["token_ceiling"] is None:
            continue
        most: dict[str, int] = {}
        for rendering in version.renderings:
            for encoding, count in rendering.get("tokens", {}).items():
                most[encoding] = max(count, most.get(encoding, 0))
        found[version.number] = (version.content["token_ceiling"], most)
    return found


def _problem(version: ServedVersion) -> str:
    try:
        now = {one["name"]: one["digest"] for one in proved(version.content)}
    except InvalidRequest as refused:
        return f"can no longer be rendered: {refused.message}"
    changed = [one["name"] for one in version.renderings if now.get(one["name"]) != one["digest"]]
    if not changed:
        return ""
    return f"renders {', '.join(changed)} otherwise than when it was made. Make a new version of it."
