"""What the services of this room share."""

from __future__ import annotations

from typing import Any

from django.db.models import Max

from llmops.access.models import Project
from llmops.base import drafts
from llmops.base.locks import lock
from llmops.core.actors import Actor
from llmops.core.errors import Conflict, InvalidRequest
from llmops.core.texts import text_problem
from llmops.prompts import content as contents
from llmops.prompts.models import Prompt, PromptVersion
from llmops.prompts.rendering import RENDERER
from llmops.prompts.wording import differences

#: Held while a prompt gets its name: a shared name stands for one prompt, whoever asks.
_NAMES = "prompts.names"


def check_name(slug: str, project: Project | None) -> None:
    """Refuse a name under which a project would have two prompts, its own and a shared one. Locks names until the end."""
    lock(_NAMES)
    if Prompt.objects.filter(slug=slug, project=project).exists():
        raise Conflict(f"slug: there is a prompt {slug!r} already.", param="slug")
    if project is not None:
        if project.archived_at is not None:
            raise InvalidRequest(f"project: {project} is archived.", param="project")
        if Prompt.objects.filter(slug=slug, project=None).exists():
            raise Conflict(
                f"slug: there is a shared prompt {slug!r}, which this project's services would no longer reach. Choose another "
                "name.",
                param="slug",
            )
        return
    owners = Prompt.objects.filter(slug=slug).exclude(project=None).values_list("project__slug", flat=True)
    if found := sorted(set(owners)):
        raise Conflict(
            f"slug: {', '.join(found[:3])} {'has' if len(found) == 1 else 'have'} a prompt of this name, which a shared one "
            "would stand beside. Choose another name.",
            param="slug",
        )


def in_use(prompt: Prompt) -> Prompt:
    """The stored prompt, locked. Raises ``Conflict`` when it is archived."""
    stored = drafts.locked(prompt)
    if stored.archived_at is not None:
        raise Conflict(f"{stored.slug} is archived. Restore it first.")
    return stored


def next_number(prompt: Prompt) -> int:
    return int(prompt.versions.aggregate(Max("number"))["number__max"] or 0) + 1


def append_version(
    actor: Actor, prompt: Prompt, content: dict[str, Any], *, number: int, note: str
) -> PromptVersion:
    """``content`` is checked already; its samples are proved here. The draft is done with."""
    version = PromptVersion(
        prompt=prompt,
        number=number,
        content=content,
        note=checked_line(note, "note"),
        digest=contents.digest_of(content),
        renderings=contents.proved(content),
        renderer=RENDERER,
        created_by=actor.name[:200],
    )
    drafts.checked(version, lines=("content", "renderings"))
    drafts.inserted(version)
    prompt.current = version
    prompt.draft, prompt.draft_by, prompt.draft_at = None, "", None
    prompt.save()
    return version


def checked_line(text: str, param: str, *, needed: str = "", most: int = 300) -> str:
    text = text.strip()
    if needed and not text:
        raise InvalidRequest(f"{param}: {needed}", param=param)
    if len(text) > most:
        raise InvalidRequest(f"{param}: at most {most} characters are kept.", param=param)
    if problem := text_problem(text):
        raise InvalidRequest(f"{param}: {problem}.", param=param)
    return text


def told(version: PromptVersion, before: PromptVersion | None) -> dict[str, Any]:
    """A version for the trail: what it changes in words, and the digest of the whole, which the version itself keeps."""
    return {
        "version": version.number,
        "digest": version.digest,
        "changes": differences(before.content if before else contents.EMPTY, version.content),
    }
