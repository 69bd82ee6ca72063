"""Which versions are served, and what publishing needs to know about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from django.db.models import TextField
from django.db.models.functions import Cast

from llmops.core.errors import InvalidRequest
from llmops.prompts.content import proved
from llmops.prompts.models import Label, LabelMove, Prompt, PromptVersion
from llmops.prompts.rendering import RENDERER

#: Of each prompt so many of the newest versions can be named by number, besides all that a label points or pointed to.
NEWEST = 50
_decode = msgspec.json.Decoder().decode


class ServedVersion(NamedTuple):
    """What publishing needs of a version."""

    number: int
    digest: str
    content: dict[str, Any]
    renderings: list[dict[str, Any]]
    renderer: int


def served_versions(prompts: Sequence[Prompt]) -> dict[Any, list[ServedVersion]]:
    """By prompt the versions that services may name, by number: the newest, and every one that a label ever pointed to.

    So a service that names a number is not cut off by newer versions, nor by a label that moves on.
    """
    found: dict[Any, list[ServedVersion]] = defaultdict(list)
    wanted = {prompt.pk for prompt in prompts}
    # A join, and not a list of ids: SQLite takes no list of a thousand.
    rows = PromptVersion.objects.filter(prompt__archived_at=None)
    labelled: dict[Any, set[int]] = defaultdict(set)
    for prompt_id, number in LabelMove.objects.filter(to_version__isnull=False).values_list(
        "prompt_id", "to_version"
    ):
        if number is not None:
            labelled[prompt_id].add(number)
    counts: dict[Any, int] = defaultdict(int)
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
        if counts[prompt_id] <= NEWEST or number in labelled[prompt_id]:
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


def unproved(
    prompts: Sequence[Prompt], versions: dict[Any, list[ServedVersion]]
) -> dict[tuple[str, int], str]:
    """Versions whose samples another renderer proved, and which this one renders otherwise: by name and number, why."""
    found = {}
    for prompt in prompts:
        for version in versions.get(prompt.pk, ()):
            if version.renderer != RENDERER and (problem := _problem(version)):
                found[name_of(prompt), version.number] = problem
    return found


def ceilings(
    prompts: Sequence[Prompt], versions: dict[Any, list[ServedVersion]]
) -> dict[tuple[str, int], tuple[int, dict[str, int]]]:
    """Versions with a token ceiling, and the most tokens that one of their samples takes, by encoding."""
    found = {}
    for prompt in prompts:
        for version in versions.get(prompt.pk, ()):
            if version.content["token_ceiling"] is None:
                continue
            most: dict[str, int] = {}
            for rendering in version.renderings:
                for encoding, count in rendering.get("tokens", {}).items():
                    most[encoding] = max(count, most.get(encoding, 0))
            found[name_of(prompt), version.number] = (version.content["token_ceiling"], most)
    return found


def name_of(prompt: Prompt) -> str:
    """``support/triage``, or ``triage`` for a shared one."""
    return f"{prompt.project.slug}/{prompt.slug}" if prompt.project else prompt.slug


def _problem(version: ServedVersion) -> str:
    try:
        now = {one["name"]: one["digest"] for one in proved(version.content)}
    except InvalidRequest as refused:
        return f"can no longer be rendered: {refused.message}"
    changed = [one["name"] for one in version.renderings if now.get(one["name"]) != one["digest"]]
    if not changed:
        return ""
    return f"renders {', '.join(changed)} otherwise than when it was made. Make a new version of it."
